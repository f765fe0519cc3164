"""Workflow commands of GitHub Actions: an annotation for each finding, printed by a step of a job."""

from __future__ import annotations

from reports.export.findings import ScanFinding, scan_findings
from reports.text import escape_unprintable
from viacheck.model.result import RunResult
from viacheck.model.verdict import Verdict

_COMMANDS = {Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "error", Verdict.ADVISORY: "notice"}


def write(outcome: RunResult) -> str:
    """Write the annotations of a run, one line for each."""
    return "".join(f"{_annotation(finding)}\n" for finding in scan_findings(outcome))


def _annotation(finding: ScanFinding) -> str:
    command = "notice" if finding.result.waiver is not None else _COMMANDS[finding.result.verdict]
    properties = {"file": escape_unprintable(finding.path), "line": str(finding.line), "title": finding.title}
    named = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{command} {named}::{_data(finding.text)}"


def _data(text: str) -> str:
    """Escape a message as the runner reads it (actions/toolkit, escapeData)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape a property's value (actions/toolkit, escapeProperty)."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
