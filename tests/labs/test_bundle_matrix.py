"""The redaction of a bundle changes no verdict: every lab and fault, from each kind of bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.fault_matrix import LABS
from tests.helpers.front_door import Finished
from viacheck.bundle.manifest import MODES
from viacheck.bundle.reader import read_bundle
from viacheck.bundle.writer import Case, write_bundle
from viacheck.diagnosis import causes
from viacheck.model.intent import PROTOCOLS
from viacheck.model.measurements import Measurements
from viacheck.model.result import RunResult
from viacheck.model.site_agents import SOLE_AGENT
from viacheck.targets.bundle import BundleTarget

PUBLIC = {"10.10.40.": "81.2.69.", "10.10.50.": "81.2.70.", "fd00:": "2a01:4f8:"}
"""What a lab's addresses are taken for, so that there is something to map."""


@pytest.fixture(scope="module")
def outcome(matrix: Finished) -> RunResult:
    return matrix.outcome


def _public(document: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(document)
    for private, public in PUBLIC.items():
        text = text.replace(private, public)
    found: dict[str, Any] = json.loads(text)
    return found


def _judged(path: Path) -> tuple[object, ...]:
    """Everything that a bundle's state decides, without the values that redaction may change."""
    target = BundleTarget("bundle:case", read_bundle(path))
    found = [
        (one.code, one.reported_by, one.also_affects, len(one.remedy.steps))
        for one in causes(target.resolved, Measurements())
    ]
    predicted = [target.forecast(protocol).as_intended for protocol in PROTOCOLS]
    decided = [(target.kernel_decision(one).answer.type, target.kernel_decision(one).answer.table) for one in PROTOCOLS]
    return found, predicted, decided


@pytest.mark.parametrize("lab", LABS)
def test_redaction_changes_no_verdict(outcome: RunResult, lab: str, tmp_path: Path) -> None:
    target = next(one for one in outcome.targets if one.id == f"lab:{lab}")
    if target.snapshot is None:
        pytest.skip("; ".join(target.notes))
    case = Case("0.1.0", {SOLE_AGENT: _public(target.intent)}, {SOLE_AGENT: _public(target.snapshot)}, [])
    for mode in MODES:
        write_bundle(tmp_path / f"{mode}.tar.gz", case, mode)
    found = {mode: _judged(tmp_path / f"{mode}.tar.gz") for mode in MODES}
    assert found["default"] == found["none"]
    assert found["strict"] == found["none"]
