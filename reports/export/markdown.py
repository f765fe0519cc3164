"""Markdown (CommonMark with tables) for a change ticket: the verdict, what to fix with its commands, every check."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reports.diagnoses import ReportedCause, fixes_together, reported_causes
from reports.egress_summary import verdict_sentence
from reports.text import counted, escape_unprintable, ids_shortened, listed, one_line, reason, waivers
from viacheck.model.chapters import check_order
from viacheck.model.result import CheckResult, RunResult, TargetRecord
from viacheck.model.verdict import Verdict

_SECTIONS = (
    ("What to fix first", Verdict.FAIL),
    ("What could not be proven", Verdict.INCONCLUSIVE),
    ("Works now, at risk", Verdict.ADVISORY),
)


def write(outcome: RunResult) -> str:
    """Write a run as Markdown."""
    return "\n".join(_lines(outcome)) + "\n"


def _lines(outcome: RunResult) -> Iterator[str]:
    yield "# viacheck"
    if outcome.run.interrupted:
        yield from ("", f"**This run was interrupted by {outcome.run.interrupted}: the rest was not judged.**")
    for target in outcome.targets:
        results = [result for result in outcome.results if result.target == target.id]
        yield from (
            "",
            f"**{target.verdict.upper()}** {_code(target.id)}: {_text(str(verdict_sentence(target, results)))}",
        )
    for title, verdict in _SECTIONS:
        causes = reported_causes(outcome, verdict)
        if causes:
            yield from ("", f"## {title}")
        for number, cause in enumerate(causes, 1):
            yield from _cause(number, cause, many=len(outcome.targets) > 1)
    for text in fixes_together(outcome):
        yield from ("", _text(f"{text[0].upper()}{text[1:]}."))
    waived = waivers(outcome.results)
    if waived:
        yield from ("", "## Waived by the site file", "")
        yield from (f"- {_text(ids_shortened(ids))}: {_text(text)}" for text, ids in waived.items())
    for target in outcome.targets:
        yield from _checks(target, [result for result in outcome.results if result.target == target.id])
    versions = ", ".join(f"{name} {version}" for name, version in outcome.run.versions.items())
    yield from ("", "## This run", "")
    yield f"- {_code(outcome.run.id)}, {_text(outcome.run.started)} to {_text(outcome.run.finished)}"
    yield f"- command: {_code(outcome.run.command)}"
    if versions:
        yield f"- {_text(versions)}"


def _cause(number: int, cause: ReportedCause, *, many: bool) -> Iterator[str]:
    code = f"{_code(cause.code)} " if cause.code else ""
    where = f" on {listed([_code(name) for name in cause.targets])}" if many else ""
    yield from ("", f"### {number}. {code}({_text(cause.checks)}){where}", "", _text(cause.text))
    for need in cause.needs:
        yield from ("", f"First: {_text(need)}")
    for title, commands in (("Fix", cause.remedy), ("Roll back", cause.undo), ("Site file", cause.site_file)):
        if commands:
            yield from ("", f"{title}:", "", _block(commands))
    if cause.decision:
        yield from ("", f"Decide: {_text(cause.decision)}")
    for text in (cause.verification, cause.alone):
        if text:
            yield from ("", _text(f"{text[0].upper()}{text[1:]}."))
    if cause.also_affects:
        yield from ("", f"Also caused by this: {_text(', '.join(cause.also_affects))}")


def _checks(target: TargetRecord, results: list[CheckResult]) -> Iterator[str]:
    shown = [result for result in results if result.verdict is not Verdict.NOT_APPLICABLE]
    yield from ("", f"## Checks of {_code(target.id)}", "")
    yield from ("| check | verdict | observed |", "| --- | --- | --- |")
    for result in sorted(shown, key=lambda result: check_order(result.check)):
        name = f"{result.check} ({result.case})" if result.case else result.check
        verdict = f"{result.verdict.value}, waived" if result.waiver is not None else result.verdict.value
        yield f"| {_text(name)} | {verdict} | {_text(reason(result))} |"
    left_out = len(results) - len(shown)
    if left_out:
        yield from ("", f"{counted(left_out, 'check')} not applicable.")


def _text(text: str) -> str:
    """Escape a text of one line: nothing in it is a mark, a link, HTML or a cell's border."""
    escaped = re.sub(r"([\\`*_\[\]<>#|~&$@]|(?<=www)\.|:(?=//))", r"\\\1", one_line(text))
    # At the start of a line these begin a list or underline a heading.
    return re.sub(
        r"^([-+=]|\d+(?=[.)]))", lambda match: f"\\{match[0]}" if match[0] in "-+=" else f"{match[0]}\\", escaped
    )


def _code(text: str) -> str:
    """Return a code span; its fence is longer than any within, and a cell's border cannot be in it."""
    text = one_line(text).replace("|", "\u2039U+007C\u203a") or "-"
    fence = _fence(text, 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _block(commands: tuple[str, ...]) -> str:
    text = "\n".join(escape_unprintable(command, keep="\n\t") for command in commands)
    fence = _fence(text, 3)
    return f"{fence}sh\n{text}\n{fence}"


def _fence(text: str, shortest: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(shortest, longest + 1)
