"""The console summary: what stands at the end of a run, short enough to be read whole.

Per target the verdict in words, then what to fix with commands that can be copied, then what works but will hurt, what
could not be proven, what was not looked at, and where the report lies. Control characters from outside are made
visible, so that no name can steer the terminal.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from reports.diagnoses import Cause, causes
from reports.egress_summary import verdict_sentence
from reports.text import counted, escape_unprintable, ids_shortened, listed, one_line, reasons, sentence
from viacheck.model.result import Outcome, Verdict

NARROWEST, WIDEST = 40, 120
_COLOURS = {"pass": "32", "fail": "31", "inconclusive": "35", "advisory": "33", "strong": "1", "quiet": "2"}


def colour_wanted(stream: TextIO) -> bool:
    """Say whether a stream is a terminal that takes colour (no-color.org, terminfo's ``dumb``)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def summary(outcome: Outcome, report: Path | None, *, colour: bool, width: int | None = None) -> str:
    """Write the short form of a run.

    Args:
        outcome: the run.
        report: path of the page, or of the report directory that holds it, as it is to be shown; None where there is
            none.
        colour: whether to use SGR colour sequences (ECMA-48); the words say everything without them.
        width: columns to wrap prose at; the terminal's own when left out. Commands are never wrapped.

    Returns:
        Lines ended by a newline each.
    """
    columns = min(max(width or shutil.get_terminal_size((100, 24)).columns, NARROWEST), WIDEST)
    return "".join(f"{line}\n" for line in _Summary(outcome, report, colour, columns).lines())


class _Summary:
    def __init__(self, outcome: Outcome, report: Path | None, colour: bool, width: int) -> None:
        self.outcome, self.report, self.colour, self.width = outcome, report, colour, width

        self.told: dict[str, str] = {}
        """The verdict in words, by target."""

    def lines(self) -> Iterator[str]:
        yield from self._targets()
        for title, verdict in (("Fix first", Verdict.FAIL), ("Could not be proven", Verdict.INCONCLUSIVE)):
            found = [cause for cause in causes(self.outcome, verdict) if not self._is_told(cause)]
            if found:
                yield ""
                yield self._paint("strong", title)
            for number, cause in enumerate(found, 1):
                yield from self._cause(number, cause)
        advisories = self._advisories()
        if advisories:
            yield ""
            yield self._paint("strong", "Works, but will hurt")
            yield from advisories
        yield ""
        yield from self._unlooked()
        if self.report is not None:
            yield f"report: {escape_unprintable(str(self.report))}"

    def _targets(self) -> Iterator[str]:
        if self.outcome.run.interrupted:
            yield from self._prose(
                f"This run was cut short by {self.outcome.run.interrupted}: only what was judged until then is told."
            )
        if not self.outcome.targets:
            yield f"{self._paint('inconclusive', 'INCONCLUSIVE')}  Nothing was decided: no target was looked at."
        for target in self.outcome.targets:
            results = [result for result in self.outcome.results if result.target == target.id]
            yield (
                f"{self._paint(target.verdict, target.verdict.upper())}  {self._paint('strong', escape_unprintable(target.id))}"
            )
            told = self.told[target.id] = verdict_sentence(target, results)
            yield from self._prose(told, "  ")
            for note in (note for note in target.notes if note.rstrip(".") not in told):
                yield from self._prose(f"note: {note}", "  ")

    def _is_told(self, cause: Cause) -> bool:
        """The words under the targets have said it already, and nothing mends it."""
        return not cause.remedy and all(
            self.told.get(target) == f"Nothing was decided: {sentence(cause.text)}" for target in cause.targets
        )

    def _cause(self, number: int, cause: Cause) -> Iterator[str]:
        where = (
            f" on {listed([escape_unprintable(name) for name in cause.targets])}"
            if len(self.outcome.targets) > 1
            else ""
        )
        code = self._paint(cause.verdict.value, escape_unprintable(cause.code)) + " " if cause.code else ""
        yield f"{number}. {code}({escape_unprintable(cause.checks)}{where})"
        yield from self._prose(sentence(cause.text), "   ")
        yield from self._commands("mend", cause.remedy)
        yield from self._commands("undo", cause.undo)
        if cause.mend:
            yield from self._prose(cause.mend, "   ")
        for seen in cause.measurements:
            yield from self._wrapped(f"seen by {seen}", "   ", "       ")
        if cause.following:
            yield from self._prose(f"only because of it: {', '.join(cause.following)}", "   ")

    def _commands(self, purpose: str, commands: tuple[str, ...]) -> Iterator[str]:
        if commands:
            yield f"   {purpose}:"
        for command in commands:
            for line in command.splitlines():
                yield f"       {escape_unprintable(line, keep=chr(9))}"

    def _advisories(self) -> list[str]:
        groups: dict[str, list[Cause]] = {}
        for cause in causes(self.outcome, Verdict.ADVISORY):
            groups.setdefault(cause.code or cause.checks, []).append(cause)
        lines = []
        for code, group in groups.items():
            targets = list(dict.fromkeys(name for cause in group for name in cause.targets))
            where = ""
            if len(self.outcome.targets) > 1:
                where = f" on {targets[0] if len(targets) == 1 else counted(len(targets), 'target')}"
            checks = ids_shortened(result.check for cause in group for result in cause.told)
            head = f"{code} ({checks}{where}): " if code != checks else f"{code}{where}: "
            first, *more = self._shortened(head + sentence(group[0].text))
            lines += [
                first.replace(escape_unprintable(code), self._paint("advisory", escape_unprintable(code)), 1),
                *more,
            ]
        return lines

    def _unlooked(self) -> Iterator[str]:
        for verdict in (Verdict.NOT_RUN, Verdict.NOT_APPLICABLE):
            groups = reasons(self.outcome.results, verdict)
            if not groups:
                continue
            number = counted(sum(len(ids) for ids in groups.values()), "check")
            if verdict is Verdict.NOT_APPLICABLE:
                yield self._paint("quiet", f"not applicable: {number}; the report says why")
                continue
            yield self._paint("quiet", f"not run: {number}")
            for why, ids in groups.items():
                yield from self._shortened(f"  {ids_shortened(ids)}: {why}")

    def _shortened(self, text: str) -> list[str]:
        """What the report tells whole: two lines of it."""
        indent = text[: len(text) - len(text.lstrip())]
        return self._wrapped(text, indent, indent + "    ", max_lines=2)

    def _prose(self, text: str, indent: str = "") -> list[str]:
        return self._wrapped(text, indent, indent)

    def _wrapped(self, text: str, first: str, others: str, max_lines: int | None = None) -> list[str]:
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
