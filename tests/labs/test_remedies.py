"""Every remedy of the catalogue is proven in a lab, and its undo; or it is said why no command mends the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.faults import FAULTS
from tests.helpers.front_door import viacheck
from viacheck.model.result import RunResult

NO_ENGINE = missing_requirement()


def _labs(*, engine: bool, events: bool) -> list[str]:
    """The broken labs of one flavour whose fault shows at once, or only through an event."""
    return [
        f"{'engine:' if engine else ''}{lab}+{fault.name}"
        for fault in FAULTS.values()
        if (fault.flavour == "engine") == engine
        if all(check.startswith("FLAP") for check in fault.breaks) == events
        for lab in fault.on
    ]


SEEN_AT_ONCE, SEEN_BY_EVENTS = _labs(engine=False, events=False), _labs(engine=False, events=True)
OF_ENGINE, OF_ENGINE_BY_EVENTS = _labs(engine=True, events=False), _labs(engine=True, events=True)
"""Only what an event alone shows is taken through events: to do so in every mended lab would take a quarter hour."""
MENDED_BY_COMMANDS = {
    "policy-routing-ifupdown+nexthop-object": "FLAP-02 fail -> pass",
    "policy-routing-ifupdown+failover-script": "FLAP-06 fail -> pass",
    "policy-routing-networkd+foreign-route-purged": "FLAP-09 fail -> pass",
}


def _runs(folder: Path, *batches: tuple[list[str], str, str]) -> list[RunResult]:
    """What came of labs, each batch judged by some checks on so many workers."""
    outcomes = []
    for number, (labs, checks, workers) in enumerate(batches):
        words = ("--lab", ",".join(labs), "-n", workers, "-q", "--mend-in-lab", "-k", checks)
        run = viacheck(*words, report_dir=folder / str(number))
        assert run.exit_code in (0, 1), run.said
        outcomes.append(run.outcome)
    return outcomes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    folder = tmp_path_factory.mktemp("mends")
    return _runs(folder, (SEEN_AT_ONCE, "not FLAP", "2"), (SEEN_BY_EVENTS, "FLAP", "2"))


@pytest.fixture(scope="module")
def engine_outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    folder = tmp_path_factory.mktemp("engine-mends")
    return _runs(folder, (OF_ENGINE, "not FLAP", "2"), (OF_ENGINE_BY_EVENTS, "FLAP-04 or FLAP-05", "2"))


def mends(outcomes: list[RunResult], lab: str) -> dict[str, str]:
    """By diagnosis, what came of its mend in a lab."""
    return {
        result.diagnosis.code: result.diagnosis.mend or "nothing was said of it"
        for outcome in outcomes
        for result in outcome.results
        if result.target == f"lab:{lab}" and result.diagnosis is not None and result.diagnosis.reported_by is None
    }


@pytest.mark.parametrize("lab", [*SEEN_AT_ONCE, *SEEN_BY_EVENTS])
def test_what_a_fault_needs_is_proven(outcomes: list[RunResult], lab: str) -> None:
    _is_proven(mends(outcomes, lab))


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
@pytest.mark.parametrize("lab", [*OF_ENGINE, *OF_ENGINE_BY_EVENTS])
def test_what_a_fault_of_an_engine_lab_needs_is_proven(engine_outcomes: list[RunResult], lab: str) -> None:
    _is_proven(mends(engine_outcomes, lab))


def _is_proven(told: dict[str, str]) -> None:
    assert told
    for code, words in told.items():
        proven = words.startswith("mend proven") and "undo proven" in words
        assert proven or words.startswith("no mend to prove"), f"{code}: {words}"
        assert not words.endswith("no command mends it"), f"{code}: why does no command mend it?"


@pytest.mark.parametrize("lab", MENDED_BY_COMMANDS)
def test_what_only_an_event_shows_is_mended_by_commands(outcomes: list[RunResult], lab: str) -> None:
    assert any(MENDED_BY_COMMANDS[lab] in words for words in mends(outcomes, lab).values())
