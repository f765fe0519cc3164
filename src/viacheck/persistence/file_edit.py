"""Edits of a host's files, as plain values: a new file, a unified diff, a line commented out.

An edit holds paths, line numbers and text exactly as they are; ``diagnosis.remedy`` makes the shell command that a
person types. The functions return an edit together with the one that undoes it byte for byte. ``in_diffs`` turns all
changed lines of a file into one diff.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.persistence.unified_diff import KnownLines, LineChange, unified_diff

_MERGED = ("conf", "yaml")
"""The suffixes of files of which programs read all in a folder."""
Arguments = tuple[str, ...]
"""A command as an argument list."""


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write a whole file, and make the folders above it."""

    path: str
    text: str
    mode: str = "644"


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Remove a file."""

    path: str


@dataclass(frozen=True, slots=True)
class PatchFile:
    """Change lines of a file by a unified diff."""

    path: str
    diff: str


@dataclass(frozen=True, slots=True)
class CommentLine:
    """Turn a line into a comment, and put lines behind it."""

    path: str
    line: int
    following: str = ""
    """Whole lines, each with its line end."""


@dataclass(frozen=True, slots=True)
class UncommentLine:
    """Undo a :class:`CommentLine`."""

    path: str
    line: int
    following: int = 0
    """How many lines to delete behind it."""


FileEdit = WriteFile | RemoveFile | PatchFile | CommentLine | UncommentLine


@dataclass(frozen=True, slots=True)
class ReversibleEdit:
    """A step of a change on a host, and the step that undoes it."""

    edit: FileEdit | Arguments
    rollback: FileEdit | Arguments


Edit = ReversibleEdit | LineChange
"""A step of a change on a host; changed lines become steps by :func:`in_diffs`."""


def new_file(snapshot: Snapshot, path: str, text: str, mode: str = "644") -> ReversibleEdit:
    """Return the edit that writes a whole file, and the one that leaves the host without it, or with the old one.

    A file that the snapshot holds in part could not be written again: of those that a program merges with others of
    their folder, the edit writes one beside it.
    """
    old = snapshot.file(path)
    if old is None or not old.exists:
        return ReversibleEdit(WriteFile(path, text, mode), RemoveFile(path))
    if old.error is None and old.incomplete_lines == () and (not old.text or old.text.endswith("\n")):
        return ReversibleEdit(WriteFile(path, text, mode), WriteFile(path, old.text, f"{old.mode:o}"))
    stem, dot, suffix = path.rpartition(".")
    if suffix in _MERGED:
        return new_file(snapshot, f"{stem}-more{dot}{suffix}", text, mode)
    return ReversibleEdit(WriteFile(path, text, mode), RemoveFile(path))


def insert_lines(path: str, after: int, text: str) -> LineChange:
    """Return the change that inserts whole lines behind a line; 0 for the top of the file."""
    return LineChange(path, after + 1, after, tuple(text.removesuffix("\n").split("\n")))


def delete_line(path: str, line: int) -> LineChange:
    """Return the change that deletes one line."""
    return LineChange(path, line, line, ())


def replace_line(path: str, line: int, new: str) -> LineChange:
    """Return the change that puts the lines ``new`` in place of one line."""
    return LineChange(path, line, line, tuple(new.split("\n")))


def comment_out(path: str, line: int) -> LineChange:
    """Return the change that turns one line into a comment."""
    return LineChange(path, line, line, (), comments_out=True)


def in_diffs(snapshot: Snapshot, edits: Iterable[Edit]) -> list[ReversibleEdit]:
    """Return edits with all changed lines of a file in one diff, which stands where the first of them stood.

    A line that the snapshot holds in part cannot stand in a diff: it is commented out, and the new lines follow it.

    Args:
        snapshot: of the host, with its files.
        edits: the edits. Line numbers are those of a file before any of them.
    """
    edits = list(edits)
    changes: dict[str, list[LineChange]] = {}
    for edit in edits:
        if isinstance(edit, LineChange):
            changes.setdefault(edit.path, []).append(edit)
    ordered: list[ReversibleEdit] = []
    for edit in edits:
        if isinstance(edit, ReversibleEdit):
            ordered.append(edit)
        elif edit.path in changes:
            ordered += _line_edits(_file(snapshot, edit.path), changes.pop(edit.path))
    return ordered


def _file(snapshot: Snapshot, path: str) -> HostFile:
    return snapshot.file(path) or HostFile(path=path, exists=True)


def _line_edits(file: HostFile, changes: Sequence[LineChange]) -> Iterator[ReversibleEdit]:
    """Yield the diff of a file, then the comments on its lines that are known in part, the last line first."""
    known = KnownLines(file)
    whole = [change for change in changes if all(map(known.knows, range(change.first, change.last + 1)))]
    if whole:
        forward, backward = unified_diff(file, whole)
        yield ReversibleEdit(PatchFile(file.path, forward), PatchFile(file.path, backward))
    for change in sorted(set(changes) - set(whole), key=lambda change: -change.first):
        moved = change.first + sum(other.growth for other in whole if other.first <= change.first)
        following = "".join(f"{line}\n" for line in change.new)
        yield ReversibleEdit(
            CommentLine(file.path, moved, following), UncommentLine(file.path, moved, len(change.new))
        )  # fmt: skip
