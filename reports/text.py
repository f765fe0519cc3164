"""Words that the page and the console share: names from outside made harmless, lists in prose, the chapters' titles.

Whatever came from outside (interface names, container names, output of commands) passes through `escape_unprintable` before a
person sees it, so that neither a terminal nor a browser obeys it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from viacheck.model.result import CheckResult, Verdict

CHAPTERS = {
    "HOST": "The host",
    "NAT": "Network address translation",
    "ROUTE": "Rules, tables and the kernel's decision",
    "EGRESS": "The way of the packets",
    "MACVLAN": "Bridging with macvlan",
    "PIPEWORK": "Bridging with pipework",
    "PERSIST": "What is written down",
    "FLAP": "What it survives",
}
"""Chapters in the order in which they are told; a check id's letters name its chapter."""

SEVERITY = (
    Verdict.FAIL,
    Verdict.INCONCLUSIVE,
    Verdict.ADVISORY,
    Verdict.PASS,
    Verdict.NOT_RUN,
    Verdict.NOT_APPLICABLE,
)
"""Worst first: of several cases the first one found here stands for all."""


def escape_unprintable(text: str, *, keep: str = "") -> str:
    """Make every character visible that a reader could not see, or that a terminal or browser would obey.

    Whatever does not print (C0 and C1 controls, bidi controls, zero-width and unusual spaces, lone surrogates) becomes
    its code point in angle quotes: U+001B for ESC. Plain text of that kind needs no font that has control pictures.
    Characters in ``keep`` stay; ordinary spaces always do.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else f"\u2039U+{ord(c):04X}\u203a" for c in text)


def one_line(text: str) -> str:
    """A text as one visible line. What only looks like a space in it is no space."""
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


def sentence(text: str) -> str:
    """End a text with a full stop, unless it has an end already."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", ":")) else text + "."


def chapter(check: str) -> str:
    """The chapter that a check id belongs to: ``EGRESS`` for ``EGRESS-01``."""
    return check.rpartition("-")[0] or check


def check_order(check: str) -> tuple[int, str]:
    """Sort key: chapters in the order of the guide, ids by number, unknown chapters last."""
    names = list(CHAPTERS)
    name = chapter(check)
    return (names.index(name) if name in CHAPTERS else len(names), check)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that stands for several cases of one check."""
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
    """Write check ids with runs drawn together: ``FLAP-01 to FLAP-08, HOST-01``."""
    runs: list[list[str]] = []
    for check in sorted(set(ids), key=check_order):
        if runs and _follows(runs[-1][-1], check):
            runs[-1].append(check)
        else:
            runs.append([check])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


def _follows(before: str, check: str) -> bool:
    one, other = before.rpartition("-")[2], check.rpartition("-")[2]
    return chapter(before) == chapter(check) and one.isdigit() and other.isdigit() and int(other) == int(one) + 1


def reason(result: CheckResult) -> str:
    """Why a check was not decided, in the words of the result."""
    told = result.observed or (result.diagnosis.cause if result.diagnosis else "") or result.expected
    return told.strip() or "no reason was recorded"


def reasons(results: Iterable[CheckResult], verdict: Verdict) -> dict[str, list[str]]:
    """Group the checks of one verdict by their reason: reason -> check ids."""
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.verdict is verdict:
            groups.setdefault(reason(result), []).append(result.check)
    return {why: list(dict.fromkeys(ids)) for why, ids in groups.items()}
