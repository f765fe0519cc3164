"""Every remedy of the catalogue is proven in a lab, and its undo; or it is said why no command mends the cause."""

from __future__ import annotations

import pytest

from fixtures.model.verdict import Outcome
from netns_lab.faults import FAULTS
from tests.front_door import Finished, viacheck

BROKEN = [
    f"{lab}+{fault.name}"
    for fault in FAULTS.values()
    # What only an event shows is left out: going through every event in every mended lab would take a quarter hour.
    if fault.flavour != "engine" and any(not check.startswith("FLAP") for check in fault.breaks)
    for lab in fault.on
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    labs = ",".join(BROKEN)
    return viacheck(
        "--lab", labs, "-n", "2", "-q", "--mend-in-lab", "-k", "not FLAP", report_dir=tmp_path_factory.mktemp("mends")
    )


@pytest.fixture(scope="module")
def outcome(run: Finished) -> Outcome:
    assert run.exit_code == 1, run.said
    return run.outcome


@pytest.mark.parametrize("lab", BROKEN)
def test_what_a_fault_needs_is_proven(outcome: Outcome, lab: str) -> None:
    told = {
        result.diagnosis.code: result.diagnosis.mend or "nothing was said of it"
        for result in outcome.results
        if result.target == f"lab:{lab}" and result.diagnosis is not None and result.diagnosis.told_by is None
    }
    assert told
    for code, words in told.items():
        proven = words.startswith("mend proven") and "undo proven" in words
        assert proven or words.startswith("no mend to prove"), f"{code}: {words}"
        assert not words.endswith("no command mends it"), f"{code}: why does no command mend it?"
