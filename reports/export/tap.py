"""The Test Anything Protocol, version 13: a line for each result, with a YAML block for what is not good.

A waived failure is a failed test marked TODO, which a harness does not count; a check that did not run is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from reports.text import one_line, reason
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict


def write(outcome: RunResult) -> str:
    """Write the results of a run."""
    lines = ["TAP version 13", f"1..{len(outcome.results)}"]
    for number, result in enumerate(outcome.results, 1):
        lines += _lines(number, result)
    return "\n".join(lines) + "\n"


def _lines(number: int, result: CheckResult) -> Iterator[str]:
    name = f"{result.check} ({result.case})" if result.case else result.check
    directive = ""
    if result.verdict in (Verdict.NOT_RUN, Verdict.NOT_APPLICABLE):
        directive = f" # SKIP {_plain(reason(result))}"
    elif result.waiver is not None and result.verdict.bad:
        directive = f" # TODO {_plain(result.waiver.text)}"
    status = "not ok" if result.verdict.bad else "ok"
    yield f"{status} {number} - {_plain(f'{result.target}: {name}: {result.title}')}{directive}"
    if result.verdict.bad or result.verdict is Verdict.ADVISORY:
        yield "  ---"
        for key, text in _details(result).items():
            # A JSON string is a YAML scalar.
            yield f"  {key}: {json.dumps(one_line(text))}"
        yield "  ..."


def _details(result: CheckResult) -> dict[str, str]:
    details = {"verdict": result.verdict.value, "expected": result.expected, "observed": result.observed}
    if result.diagnosis is not None:
        details |= {"diagnosis": result.diagnosis.code, "cause": result.diagnosis.cause}
        details |= {"fix": "; ".join(result.diagnosis.remedy)} if result.diagnosis.remedy else {}
    return details


def _plain(text: str) -> str:
    """Return a text without the mark that begins a directive."""
    return one_line(text).replace("#", "\u2039U+0023\u203a")
