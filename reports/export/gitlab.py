"""GitLab's code quality report (the format of Code Climate's issues): a list of findings, without the waived ones."""

from __future__ import annotations

import json

from reports.export.findings import scan_findings
from reports.text import escape_unprintable, one_line
from viacheck.model.result import RunResult
from viacheck.model.verdict import Verdict

_SEVERITIES = {Verdict.FAIL: "critical", Verdict.INCONCLUSIVE: "major", Verdict.ADVISORY: "minor"}


def write(outcome: RunResult) -> str:
    """Write the findings of a run."""
    issues = [
        {
            "description": f"{finding.title}: {finding.text}",
            "check_name": one_line(finding.result.check),
            "fingerprint": finding.fingerprint,
            "severity": _SEVERITIES[finding.result.verdict],
            "location": {"path": escape_unprintable(finding.path), "lines": {"begin": finding.line}},
        }
        for finding in scan_findings(outcome)
        if finding.result.waiver is None
    ]
    return json.dumps(issues, indent=1) + "\n"
