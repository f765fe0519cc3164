"""SARIF 2.1.0 (OASIS standard): a rule for each check, a result for each failure, a suppression for each waiver."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from reports.export.findings import ScanFinding, scan_findings
from reports.text import escape_unprintable, one_line
from viacheck import __version__
from viacheck.model.result import RunResult
from viacheck.model.verdict import Verdict

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
HOST_ROOT = "HOST"
"""The base of paths on the judged host."""
_LEVELS = {Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "warning", Verdict.ADVISORY: "note"}


def write(outcome: RunResult) -> str:
    """Write a run as a SARIF log."""
    findings = list(scan_findings(outcome))
    titles = {finding.result.check: finding.result.title for finding in findings}
    rules = list(titles)
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "viacheck",
                        "version": outcome.run.versions.get("viacheck", __version__),
                        "rules": [{"id": one_line(rule), "shortDescription": _text(titles[rule])} for rule in rules],
                    }
                },
                "automationDetails": {"id": f"viacheck/{one_line(outcome.run.id)}"},
                "originalUriBaseIds": {HOST_ROOT: {"uri": "file:///"}},
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, rules.index(finding.result.check)) for finding in findings],
            }
        ],
    }
    return json.dumps(log, indent=1) + "\n"


def _result(finding: ScanFinding, rule: int) -> dict[str, Any]:
    result = finding.result
    artifact: dict[str, Any] = {"uri": quote(finding.path.encode(errors="backslashreplace"))}
    if finding.on_host:
        artifact["uriBaseId"] = HOST_ROOT
    entry: dict[str, Any] = {
        "ruleId": one_line(result.check),
        "ruleIndex": rule,
        "level": _LEVELS[result.verdict],
        "message": _text(finding.text, keep_lines=True),
        "locations": [
            {
                "physicalLocation": {"artifactLocation": artifact, "region": {"startLine": finding.line}},
                "logicalLocations": [{"fullyQualifiedName": one_line(result.target), "kind": "resource"}],
            }
        ],
        "partialFingerprints": {"viacheck/v1": finding.fingerprint},
    }
    if result.waiver is not None:
        entry["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": one_line(result.waiver.text)}
        ]
    return entry


def _text(text: str, *, keep_lines: bool = False) -> dict[str, str]:
    """Return a message, where braces would be placeholders and brackets links (sections 3.11.5 and 3.11.6)."""
    shown = escape_unprintable(text, keep="\n\t") if keep_lines else one_line(text)
    escaped = shown.replace("[", "\\[").replace("]", "\\]")
    return {"text": escaped.replace("{", "{{").replace("}", "}}") or "-"}
