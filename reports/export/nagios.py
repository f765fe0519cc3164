"""A Nagios plugin's output and exit status (Monitoring Plugins Development Guidelines): one line, then details."""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

from reports.diagnoses import REPORTED, reported_causes
from reports.text import clip, one_line
from viacheck.model.result import RunResult
from viacheck.model.verdict import Verdict

LONGEST_LINE = 400
"""Characters of a line: a pager shows the first."""
LONGEST_OUTPUT = 4_000
"""Characters of the whole output: Nagios keeps 4 KB."""


class ServiceState(IntEnum):
    """The exit status of a plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


def service_state(outcome: RunResult) -> ServiceState:
    """Return the state of a run: a failure is critical, a risk a warning, and what is not proven is unknown."""
    verdicts = {result.counted for result in outcome.results if result.waiver is None}
    if Verdict.FAIL in verdicts:
        return ServiceState.CRITICAL
    if Verdict.INCONCLUSIVE in verdicts or not any(result.verdict.decided for result in outcome.results):
        return ServiceState.UNKNOWN
    return ServiceState.WARNING if Verdict.ADVISORY in verdicts else ServiceState.OK


def write(outcome: RunResult) -> str:
    """Write the lines of a plugin."""
    state = service_state(outcome)
    counts = Counter(result.verdict for result in outcome.results if result.waiver is None)
    causes = [cause for verdict in REPORTED for cause in reported_causes(outcome, verdict)]
    lines = [_plain(f"{cause.code or cause.checks}: {cause.text}") for cause in causes]
    good = f"{counts[Verdict.PASS]} checks pass" if state is ServiceState.OK else "nothing was decided"
    data = " ".join(
        f"{verdict.value}={counts[verdict]}"
        for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ADVISORY, Verdict.PASS)
    )
    waived = sum(result.waiver is not None for result in outcome.results)
    head = f"VIACHECK {state.name} - {lines[0] if lines else good} | {data} waived={waived}"
    return clip("\n".join([head, *lines[1:]]), LONGEST_OUTPUT) + "\n"


def unknown(why: str) -> str:
    """Return the line of a plugin that has no result to show."""
    return f"VIACHECK {ServiceState.UNKNOWN.name} - {_plain(why)}\n"


def _plain(text: str) -> str:
    """Return a text without the mark that begins performance data."""
    return clip(one_line(text).replace("|", "\u2039U+007C\u203a"), LONGEST_LINE)
