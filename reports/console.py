"""The console summary: the end of a run's output, short enough to be read whole.

It gives the verdict sentence of each target, what to fix with commands to copy, what is at risk, what could not be
proven, which checks did not run, and the path of the report. Control characters from outside are escaped, so that no
name can control the terminal.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from reports.diagnoses import ReportedCause, fixes_together, reported_causes
from reports.egress_summary import VerdictSentence, verdict_sentence
from reports.text import (
    counted,
    escape_unprintable,
    ids_shortened,
    listed,
    one_line,
    reason,
    reasons,
    sentence,
    waivers,
)
from viacheck.model.check_evidence import CommandEvidence
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

NARROWEST, WIDEST = 40, 120
_COLOURS = {"pass": "32", "fail": "31", "inconclusive": "35", "advisory": "33", "strong": "1", "quiet": "2"}


def colour_wanted(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that takes colour (no-color.org, terminfo's ``dumb``)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def summary(outcome: RunResult, report: Path | None, *, colour: bool, width: int | None) -> str:
    """Write the short form of a run.

    Args:
        outcome: the run.
        report: path of the page, or of its report directory, as shown to the user; None when it was not written.
        colour: whether to use SGR colour sequences (ECMA-48); the text says everything without them.
        width: columns of the terminal, to wrap prose at; None when there is no terminal: nothing is wrapped or cut
            then. Commands are never wrapped.

    Returns:
        Lines ended by a newline each.
    """
    columns = min(max(width, NARROWEST), WIDEST) if width is not None else None
    return "".join(f"{line}\n" for line in _Summary(outcome, report, colour, columns).lines())


class _Summary:
    def __init__(self, outcome: RunResult, report: Path | None, colour: bool, width: int | None) -> None:
        self.outcome, self.report, self.colour, self.width = outcome, report, colour, width
        self.sentences: dict[str, VerdictSentence] = {}
        """The verdict sentences, by target."""

    def lines(self) -> Iterator[str]:
        yield from self._targets()
        for title, verdict in (("Fix first", Verdict.FAIL), ("Could not be proven", Verdict.INCONCLUSIVE)):
            causes = [cause for cause in reported_causes(self.outcome, verdict) if not self._is_reported(cause)]
            if causes:
                yield ""
                in_order = title == "Fix first" and len(causes) > 1
                yield self._paint("strong", "Fix in this order" if in_order else title)
            for number, cause in enumerate(causes, 1):
                yield from self._cause(number, cause)
        together = list(fixes_together(self.outcome))
        if together:
            yield ""
        for text in together:
            yield from self._prose(text)
        yield from self._at_risk()
        waived = waivers(self.outcome.results)
        if waived:
            yield ""
            yield self._paint("strong", "Waived by the site file")
            for text, ids in waived.items():
                yield from self._prose(f"{ids_shortened(ids)}: {text}", "  ")
        yield ""
        yield from self._undecided()
        if self.report is not None:
            yield f"report: {escape_unprintable(str(self.report))}"

    def _at_risk(self) -> Iterator[str]:
        """Yield the advisories: a line or two for each, or with --strict its fix as well, as for any other failure."""
        causes = reported_causes(self.outcome, Verdict.ADVISORY)
        if not causes:
            return
        yield ""
        if not self.outcome.run.strict:
            yield self._paint("strong", "Works now, at risk")
            yield from self._advisories(causes)
            return
        yield self._paint("strong", "Works now, at risk: counted as failures by --strict")
        for number, cause in enumerate(causes, 1):
            yield from self._cause(number, cause)

    def _targets(self) -> Iterator[str]:
        if self.outcome.run.interrupted:
            yield from self._prose(
                f"This run was interrupted by {self.outcome.run.interrupted}: it reports what was judged until then."
            )
        if not self.outcome.targets:
            yield f"{self._paint('inconclusive', 'INCONCLUSIVE')}  Nothing was decided: no target was opened."
        several = len(self.outcome.targets) > 1
        for target in self.outcome.targets:
            results = [result for result in self.outcome.results if result.target == target.id]
            verdict = self._paint(target.verdict, target.verdict.upper())
            verdict_text = self.sentences[target.id] = verdict_sentence(target, results)
            name = escape_unprintable(target.id)
            if several and target.verdict == "pass":
                first, *more = self._wrapped(f"{name}: {verdict_text.text}", "PASS  ", "      ")
                yield first.replace("PASS", verdict, 1).replace(name, self._paint("strong", name), 1)
                yield from more
                continue
            yield f"{verdict}  {self._paint('strong', name)}"
            yield from self._prose(verdict_text.text, "  ")
            if verdict_text.undecided_because is not None:
                yield from self._transcripts(results)
            for note in (note for note in target.notes if note != verdict_text.undecided_because):
                first, *more = note.splitlines() or [""]
                yield from self._prose(f"note: {first}", "  ")
                for line in more:
                    yield from self._prose(line, "    ")

    def _transcripts(self, results: Sequence[CheckResult]) -> Iterator[str]:
        """Yield the whole output of the commands that left everything undecided."""
        for result in results:
            for evidence in result.evidence:
                if result.verdict is Verdict.INCONCLUSIVE and isinstance(evidence, CommandEvidence):
                    yield f"  {escape_unprintable(evidence.command)}: exit {evidence.exit_code}"
                    for line in (evidence.stdout + evidence.stderr).splitlines():
                        yield f"    {escape_unprintable(line, keep=chr(9))}"

    def _is_reported(self, cause: ReportedCause) -> bool:
        """Whether the verdict sentences of its targets have said the cause already, and no command fixes it."""
        # A result that was edited may name a target that it does not have.
        sentences = map(self.sentences.get, cause.targets)
        return not cause.remedy and all(
            sentence is not None and sentence.undecided_because == cause.text for sentence in sentences
        )

    def _cause(self, number: int, cause: ReportedCause) -> Iterator[str]:
        where = (
            f" on {listed([escape_unprintable(name) for name in cause.targets])}"
            if len(self.outcome.targets) > 1
            else ""
        )
        checks = escape_unprintable(cause.checks)
        if cause.code:
            yield f"{number}. {self._paint(cause.verdict.value, escape_unprintable(cause.code))} ({checks}{where})"
        else:
            yield f"{number}. {self._paint(cause.verdict.value, checks)}{where}"
        yield from self._prose(sentence(cause.text), "   ")
        for need in cause.needs:
            yield from self._wrapped(f"first: {need}", "   ", "       ")
        yield from self._commands("fix", cause.remedy)
        yield from self._commands("roll back", cause.undo)
        if cause.decision:
            yield from self._wrapped(f"decide: {cause.decision}", "   ", "       ")
        yield from self._commands("site file", cause.site_file)
        if cause.verification:
            yield from self._prose(cause.verification, "   ")
        if cause.alone:
            yield from self._prose(cause.alone, "   ")
        for observation in cause.event_observations:
            yield from self._wrapped(f"seen by {observation}", "   ", "       ")
        if cause.also_affects:
            yield from self._prose(f"also caused by this: {', '.join(cause.also_affects)}", "   ")

    def _commands(self, purpose: str, commands: tuple[str, ...]) -> Iterator[str]:
        if commands:
            yield f"   {purpose}:"
        for command in commands:
            # A here-document ends at a line that is its delimiter alone: indented, it could not be pasted.
            indent = "" if "\n" in command else "       "
            for line in command.split("\n"):
                yield f"{indent}{escape_unprintable(line, keep=chr(9))}"

    def _advisories(self, causes: Sequence[ReportedCause]) -> list[str]:
        groups: dict[str, list[ReportedCause]] = {}
        for cause in causes:
            groups.setdefault(cause.code or cause.checks, []).append(cause)
        lines = []
        for code, group in groups.items():
            targets = list(dict.fromkeys(name for cause in group for name in cause.targets))
            where = ""
            if len(self.outcome.targets) > 1:
                where = f" on {targets[0] if len(targets) == 1 else counted(len(targets), 'target')}"
            checks = ids_shortened(result.check for cause in group for result in cause.results)
            head = f"{code} ({checks}{where}): " if code != checks else f"{code}{where}: "
            first, *more = self._shortened(head + sentence(group[0].text))
            lines += [
                first.replace(escape_unprintable(code), self._paint("advisory", escape_unprintable(code)), 1),
                *more,
            ]
        return lines

    def _undecided(self) -> Iterator[str]:
        for verdict in (Verdict.NOT_RUN, Verdict.NOT_APPLICABLE):
            groups = reasons(self.outcome.results, verdict)
            if not groups:
                continue
            number = counted(len({check for ids in groups.values() for check in ids}), "check")
            if verdict is Verdict.NOT_APPLICABLE:
                yield self._paint("quiet", f"not applicable: {number}; the report says why")
                continue
            yield self._paint("quiet", f"not run: {number}")
            said = {verdict_text.undecided_because for verdict_text in self.sentences.values()}
            for why, ids in groups.items():
                if why in said:
                    continue
                yield from self._shortened(f"  {ids_shortened(ids)}{self._where(verdict, why)}: {why}")

    def _where(self, verdict: Verdict, why: str) -> str:
        """Say which targets have a reason, unless there is one target only, or all have it."""
        results = [result for result in self.outcome.results if result.verdict is verdict and reason(result) == why]
        targets = list(dict.fromkeys(result.target for result in results))
        if len(targets) == len(self.outcome.targets):
            return ""
        return f" on {escape_unprintable(targets[0]) if len(targets) == 1 else counted(len(targets), 'target')}"

    def _shortened(self, text: str) -> list[str]:
        """Return the first two lines of a text on a terminal; the report gives it in full."""
        indent = text[: len(text) - len(text.lstrip())]
        return self._wrapped(text, indent, indent + "    ", max_lines=2)

    def _prose(self, text: str, indent: str = "") -> list[str]:
        return self._wrapped(text, indent, indent)

    def _wrapped(self, text: str, first: str, others: str, max_lines: int | None = None) -> list[str]:
        if self.width is None:
            return [first + one_line(text)]
        return textwrap.wrap(
            one_line(text),
            self.width,
            initial_indent=first,
            subsequent_indent=others,
            break_long_words=False,
            break_on_hyphens=False,
            max_lines=max_lines,
            placeholder=" …",
        )

    def _paint(self, role: str, text: str) -> str:
        return f"\x1b[{_COLOURS[role]}m{text}\x1b[0m" if self.colour else text
