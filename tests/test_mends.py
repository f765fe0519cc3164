"""Every remedy of the catalogue is proven in a lab, and its undo; or it is said why no command mends the cause."""

from __future__ import annotations

import pytest

from fixtures.model.verdict import Outcome
from netns_lab.faults import FAULTS
from tests.front_door import Finished, viacheck

NETNS = [fault for fault in FAULTS.values() if fault.flavour != "engine"]
SEEN_AT_ONCE = [
    f"{lab}+{fault.name}"
    for fault in NETNS
    if any(not check.startswith("FLAP") for check in fault.breaks)
    for lab in fault.on
]
SEEN_BY_EVENTS = [
    f"{lab}+{fault.name}"
    for fault in NETNS
    if all(check.startswith("FLAP") for check in fault.breaks)
    for lab in fault.on
]
"""Only these are taken through every event: to do so in every mended lab would take a quarter hour."""
MENDED_BY_COMMANDS = {
    "policy-routing-ifupdown+nexthop-object": "FLAP-02 fail -> pass",
    "policy-routing-ifupdown+failover-script": "FLAP-06 fail -> pass",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Finished]:
    words = ("-n", "2", "-q", "--mend-in-lab")
    return [
        viacheck("--lab", ",".join(labs), *words, "-k", checks, report_dir=tmp_path_factory.mktemp("mends"))
        for labs, checks in ((SEEN_AT_ONCE, "not FLAP"), (SEEN_BY_EVENTS, "FLAP"))
    ]


@pytest.fixture(scope="module")
def outcomes(runs: list[Finished]) -> list[Outcome]:
    for run in runs:
        assert run.exit_code == 1, run.said
    return [run.outcome for run in runs]


def mends(outcomes: list[Outcome], lab: str) -> dict[str, str]:
    """By diagnosis, what came of its mend in a lab."""
    return {
        result.diagnosis.code: result.diagnosis.mend or "nothing was said of it"
        for outcome in outcomes
        for result in outcome.results
        if result.target == f"lab:{lab}" and result.diagnosis is not None and result.diagnosis.told_by is None
    }


@pytest.mark.parametrize("lab", [*SEEN_AT_ONCE, *SEEN_BY_EVENTS])
def test_what_a_fault_needs_is_proven(outcomes: list[Outcome], lab: str) -> None:
    told = mends(outcomes, lab)
    assert told
    for code, words in told.items():
        proven = words.startswith("mend proven") and "undo proven" in words
        assert proven or words.startswith("no mend to prove"), f"{code}: {words}"
        assert not words.endswith("no command mends it"), f"{code}: why does no command mend it?"


@pytest.mark.parametrize("lab", MENDED_BY_COMMANDS)
def test_what_only_an_event_shows_is_mended_by_commands(outcomes: list[Outcome], lab: str) -> None:
    assert any(MENDED_BY_COMMANDS[lab] in words for words in mends(outcomes, lab).values())
