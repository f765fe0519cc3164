"""Unified diffs of a host's files, of which a snapshot may hold some lines in part.

GNU patch applies them without fuzz, so a hunk shows only lines that are known whole. A hunk has no more lines before a
change than behind it, unless the file ends there: patch takes such a hunk for the end of the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile, zip_longest

from viacheck.model.snapshot import HostFile

CONTEXT = 3
"""Lines of context before and behind a change."""
NO_NEWLINE = "\\ No newline at end of file"
_PLAIN_PATH = re.compile(r"[^\x00-\x20\x7f\"\\]*")


@dataclass(frozen=True, slots=True)
class LineChange:
    """Other lines in place of a range of lines of a file."""

    path: str
    first: int
    """The number of the first line of the range."""
    last: int
    """The number of its last line; one less than ``first``: nothing is removed."""
    new: tuple[str, ...]
    """The new lines, without their line ends."""
    comments_out: bool = False
    """The old lines stay, as comments before the new ones."""

    @property
    def growth(self) -> int:
        """How many lines the file has more afterwards."""
        return len(self.new) - (0 if self.comments_out else self.last - self.first + 1)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a hunk: its mark (``-``, ``+`` or a space), its text, and whether it ends without a line end."""

    mark: str
    text: str
    unended: bool = False

    def __str__(self) -> str:
        return f"{self.mark}{self.text}\n" + (f"{NO_NEWLINE}\n" if self.unended else "")


@dataclass(slots=True)
class _Hunk:
    """A hunk: the number of its first old line, and its lines."""

    first: int
    lines: list[_Line]

    def text(self, shift: int) -> str:
        """Return the hunk as text; ``shift`` is by how much the hunks before it have moved it."""
        old = sum(line.mark != "+" for line in self.lines)
        new = sum(line.mark != "-" for line in self.lines)
        head = f"@@ -{_range(self.first, old)} +{_range(self.first + shift, new)} @@\n"
        return head + "".join(map(str, self.lines))

    @property
    def growth(self) -> int:
        """How many lines the file has more afterwards."""
        return sum({"+": 1, "-": -1}.get(line.mark, 0) for line in self.lines)


def unified_diff(file: HostFile, changes: Sequence[LineChange]) -> tuple[str, str]:
    """Return the diff of some changes of a file, and the diff that takes them back.

    Args:
        file: the file; the lines of ``incomplete_lines`` are never shown.
        changes: the changes, in any order. They do not overlap, and replace only lines that are known whole.
    """
    old = KnownLines(file)
    forward = _hunks(old, sorted(changes, key=lambda change: (change.first, change.last)))
    backward, shift = [], 0
    for hunk in forward:
        backward.append(_Hunk(hunk.first + shift, _reversed(hunk.lines)))
        shift += hunk.growth
    return _text(file.path, forward), _text(file.path, backward)


class KnownLines:
    """The lines of a file, by number, and which of them are known whole."""

    def __init__(self, file: HostFile) -> None:
        """Take the lines of ``file``."""
        lines = file.text.split("\n")
        self.ends_with_newline = lines[-1] == ""
        self.lines = lines[:-1] if self.ends_with_newline else lines
        every = range(1, len(self.lines) + 1)
        self._unknown = frozenset(every if file.incomplete_lines is None else file.incomplete_lines)

    def knows(self, number: int) -> bool:
        """Return whether a line exists and is known whole."""
        return 1 <= number <= len(self.lines) and number not in self._unknown

    def line(self, mark: str, number: int) -> _Line:
        """Return a line as a hunk shows it."""
        unended = number == len(self.lines) and not self.ends_with_newline and mark != "+"
        return _Line(mark, self.lines[number - 1], unended)

    def context(self, numbers: Sequence[int]) -> list[_Line]:
        """Return lines of context."""
        return [self.line(" ", number) for number in numbers]


def _hunks(old: KnownLines, changes: Sequence[LineChange]) -> list[_Hunk]:
    groups: list[list[LineChange]] = []
    for change in changes:
        gap = range(groups[-1][-1].last + 1, change.first) if groups else range(0)
        if groups and len(gap) <= 2 * CONTEXT and all(map(old.knows, gap)):
            groups[-1].append(change)
        else:
            groups.append([change])
    hunks: list[_Hunk] = []
    shown = 0
    for number, group in enumerate(groups):
        following = groups[number + 1][0].first if number + 1 < len(groups) else len(old.lines) + 1
        hunk, shown = _hunk(old, group, shown, following)
        hunks.append(hunk)
    return hunks


def _hunk(old: KnownLines, group: Sequence[LineChange], shown: int, following: int) -> tuple[_Hunk, int]:
    """Return the hunk of a group of changes, and the number of the last old line that it shows.

    Args:
        old: the file.
        group: changes with known lines between them.
        shown: the last line that the hunk before it shows.
        following: the first line of the next group.
    """
    start, last = group[0].first, group[-1].last
    behind = _known(old, range(last + 1, min(last + 1 + CONTEXT, following)))
    before = _known(old, range(start - 1, max(start - 1 - CONTEXT, shown), -1))
    at_end = last + len(behind) == len(old.lines)
    lines: list[_Line] = []
    if not at_end and before and not behind and last < start:
        # Nothing known stands behind the new lines: the line before them shows the place, as one that is put again.
        start -= 1
        lines = [old.line("-", start), _Line("+", old.lines[start - 1])]
        before = []
    elif not at_end:
        before = before[: len(behind)]
    at = group[0].first
    for change in group:
        lines += old.context(range(at, change.first))
        lines += [old.line("-", number) for number in range(change.first, change.last + 1)]
        if change.comments_out:
            lines += [_Line("+", f"# {old.lines[number - 1]}") for number in range(change.first, change.last + 1)]
        lines += [_Line("+", text) for text in change.new]
        at = change.last + 1
    lines = [*old.context(before[::-1]), *lines, *old.context(behind)]
    return _Hunk(start - len(before), _ended(lines)), last + len(behind)


def _known(old: KnownLines, numbers: Sequence[int]) -> list[int]:
    """Return the numbers up to the first line that is not known whole."""
    return list(takewhile(old.knows, numbers))


def _ended(lines: Sequence[_Line]) -> list[_Line]:
    """Return the lines of a hunk; a last line without a line end gets one where others follow it."""
    ended: list[_Line] = []
    for line, following in zip_longest(lines, lines[1:]):
        if line.mark == " " and line.unended and following is not None:
            ended += [replace(line, mark="-"), _Line("+", line.text)]
        else:
            ended.append(line)
    return ended


def _reversed(lines: Sequence[_Line]) -> list[_Line]:
    """Return the lines of the hunk that takes a hunk back: what was removed is added, and stands behind."""
    taken_back: list[_Line] = []
    for is_context, run in groupby(lines, key=lambda line: line.mark == " "):
        block = list(run)
        if not is_context:
            added = [replace(line, mark="-") for line in block if line.mark == "+"]
            block = [*added, *(replace(line, mark="+") for line in block if line.mark == "-")]
        taken_back += block
    return taken_back


def _range(first: int, count: int) -> str:
    if count == 1:
        return f"{first}"
    return f"{first},{count}" if count else f"{first - 1},0"


def _text(path: str, hunks: Sequence[_Hunk]) -> str:
    text, shift = f"--- {_name(f'a{path}')}\n+++ {_name(f'b{path}')}\n", 0
    for hunk in hunks:
        text += hunk.text(shift)
        shift += hunk.growth
    return text


def _name(path: str) -> str:
    """Return a path as the head of a diff holds it: quoted as in C where it is not plain."""
    if _PLAIN_PATH.fullmatch(path):
        return path
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\{ord(match[0]):03o}", escaped) + '"'
