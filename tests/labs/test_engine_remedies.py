"""Every remedy of a fault that needs a Docker engine is verified in a lab with an engine, and its rollback.

The labs are judged before: the remedies are verified from that saved result. By default those of each fault are
verified on one of its scenarios, with ``--soak`` on each.
"""

from __future__ import annotations

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from tests.helpers.front_door import Finished
from tests.helpers.remedies import BrokenLabs, assert_verified, diagnoses, is_no_event, verified
from viacheck.model.result import RunResult

NO_ENGINE = missing_requirement()


def broken_labs(config: pytest.Config) -> BrokenLabs:
    return BrokenLabs.of(engine=True, every_scenario=config.option.soak)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broken_lab" in metafunc.fixturenames:
        metafunc.parametrize("broken_lab", broken_labs(metafunc.config).names)


@pytest.fixture(scope="module")
def run_results(engine_matrix: Finished, pytestconfig: pytest.Config) -> list[RunResult]:
    saved, labs = engine_matrix.outcome, broken_labs(pytestconfig)
    return [
        verified(saved, labs.seen_at_once, is_no_event),
        verified(saved, labs.seen_by_events, lambda check: check in ("FLAP-04", "FLAP-05")),
    ]


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
def test_the_remedy_of_a_fault_is_verified(run_results: list[RunResult], broken_lab: str) -> None:
    assert_verified(diagnoses(run_results, broken_lab))
