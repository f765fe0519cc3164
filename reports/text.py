"""Text that the page and the console share: escaped names from outside, lists in prose, the order of checks.

Every text from outside (interface names, container names, output of commands) passes through `escape_unprintable`
before a person sees it, so that neither a terminal nor a browser obeys it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TextIO

from viacheck.model.chapters import chapter, check_order
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

SEVERITY = (
    Verdict.FAIL,
    Verdict.INCONCLUSIVE,
    Verdict.ADVISORY,
    Verdict.PASS,
    Verdict.NOT_RUN,
    Verdict.NOT_APPLICABLE,
)
"""Worst first: of several cases the worst stands for all."""


def escape_unprintable(text: str, *, keep: str = "") -> str:
    """Replace every character that a reader cannot see, or that a terminal or browser would obey.

    Each character that does not print (C0 and C1 controls, bidi controls, zero-width and unusual spaces, lone
    surrogates) becomes its code point in angle quotes: U+001B for ESC. Any font can show these.
    Characters in ``keep`` stay; ordinary spaces always do.
    """
    if text.isprintable() or (keep and text.translate(dict.fromkeys(map(ord, keep))).isprintable()):
        return text
    return "".join(c if c.isprintable() or c in keep else f"\u2039U+{ord(c):04X}\u203a" for c in text)


def columns_of(stream: TextIO) -> int | None:
    """Return the width of the terminal that a stream writes to; None when it writes to something else.

    Text that goes to a file or to another program is neither cut nor wrapped.
    """
    if not stream.isatty():
        return None
    try:
        # A new pseudoterminal has no columns.
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def one_line(text: str) -> str:
    """Return a text as one printable line. Unusual spaces are escaped, so only ordinary ones separate words."""
    return " ".join(escape_unprintable(text, keep="\n\t").split())


def clip(text: str, limit: int) -> str:
    """Shorten a text to ``limit`` characters, the ellipsis included."""
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Write names as a list in prose: ``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}" if names else ""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 check``, ``1,200 checks``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def tally(verdicts: Iterable[Verdict]) -> str:
    """Count verdicts, the worst first: ``1 fail, 30 pass, 2 not-run, 23 not-applicable``."""
    numbers = Counter(verdicts)
    return ", ".join(f"{numbers[verdict]} {verdict.value}" for verdict in SEVERITY if numbers[verdict])


def sentence(text: str) -> str:
    """End a text with a full stop, unless it already ends a sentence."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", ":")) else text + "."


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict that stands for several cases of one check."""
    return min(verdicts, key=SEVERITY.index)


def named(results: Iterable[CheckResult]) -> list[str]:
    """Name checks with their cases, each id once: ``ROUTE-05``, ``EGRESS-01 (icmp, udp)``."""
    cases: dict[str, list[str]] = {}
    for result in results:
        cases.setdefault(result.check, []).extend([result.case] if result.case else [])
    return [
        f"{check} ({', '.join(dict.fromkeys(cases[check]))})" if cases[check] else check
        for check in sorted(cases, key=check_order)
    ]


def ids_shortened(ids: Iterable[str]) -> str:
    """Write check ids with consecutive ids contracted: ``FLAP-01 to FLAP-08, HOST-01``."""
    runs: list[list[str]] = []
    for check in sorted(set(ids), key=check_order):
        if runs and _follows(runs[-1][-1], check):
            runs[-1].append(check)
        else:
            runs.append([check])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


def _follows(before: str, check: str) -> bool:
    numbers = before.rpartition("-")[2], check.rpartition("-")[2]
    if chapter(before) != chapter(check) or not all(number.isdecimal() for number in numbers):
        return False
    return int(numbers[1]) == int(numbers[0]) + 1


def reason(result: CheckResult) -> str:
    """Return what a result says of itself: its observation, else its cause, else its expectation."""
    text = result.observed or (result.diagnosis.cause if result.diagnosis else "") or result.expected
    return text.strip() or "no reason was recorded"


def waivers(results: Iterable[CheckResult]) -> dict[str, list[str]]:
    """Group the waived checks by their waiver: its text -> check ids."""
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.waiver is not None:
            groups.setdefault(result.waiver.text, []).append(result.check)
    return {text: list(dict.fromkeys(ids)) for text, ids in groups.items()}


def reasons(results: Iterable[CheckResult], verdict: Verdict) -> dict[str, list[str]]:
    """Group the checks of one verdict by their reason: reason -> check ids."""
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.verdict is verdict:
            groups.setdefault(reason(result), []).append(result.check)
    return {why: list(dict.fromkeys(ids)) for why, ids in groups.items()}
