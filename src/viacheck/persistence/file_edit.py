"""Edits of a host's files, as plain values: a new file, lines inserted, replaced, deleted or commented out.

An edit holds paths, line numbers and text exactly as they are; ``diagnosis.remedy`` makes the shell command that a
person types. The functions return an edit together with the one that undoes it byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class InsertLines:
    """Insert lines into a file."""

    path: str
    after: int
    """The number of the line that the new ones follow; 0 for the top of the file."""
    text: str
    """Whole lines, each with its line end."""


@dataclass(frozen=True, slots=True)
class DeleteLines:
    """Delete a range of lines, both ends included."""

    path: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ReplaceLines:
    """Put other lines in place of a range of lines, both ends included."""

    path: str
    first: int
    last: int
    text: str
    """Whole lines, each with its line end."""


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


@dataclass(frozen=True, slots=True)
class AppendLine:
    """Append one line at the end of a file."""

    path: str
    line: str


@dataclass(frozen=True, slots=True)
class DeleteMatchingLines:
    """Delete every line that equals a text."""

    path: str
    line: str


FileEdit = (
    WriteFile
    | RemoveFile
    | InsertLines
    | DeleteLines
    | ReplaceLines
    | CommentLine
    | UncommentLine
    | AppendLine
    | DeleteMatchingLines
)


@dataclass(frozen=True, slots=True)
class ReversibleEdit:
    """A step of a change on a host, and the step that undoes it."""

    edit: FileEdit | Arguments
    rollback: FileEdit | Arguments


def new_file(path: str, text: str, mode: str = "644") -> ReversibleEdit:
    """Return the edit that writes a file that does not exist yet."""
    return ReversibleEdit(WriteFile(path, text, mode), RemoveFile(path))


def insert_lines(path: str, after: int, text: str) -> ReversibleEdit:
    """Return the edit that inserts whole lines behind a line."""
    return ReversibleEdit(InsertLines(path, after, text), DeleteLines(path, after + 1, after + text.count("\n")))


def delete_line(path: str, line: int, old: str) -> ReversibleEdit:
    """Return the edit that deletes one line, whose text is ``old``."""
    return ReversibleEdit(DeleteLines(path, line, line), InsertLines(path, line - 1, f"{old}\n"))


def replace_line(path: str, line: int, old: str, new: str) -> ReversibleEdit:
    """Return the edit that puts the lines ``new`` in place of one line, whose text is ``old``."""
    last = line + new.count("\n")
    return ReversibleEdit(ReplaceLines(path, line, line, f"{new}\n"), ReplaceLines(path, line, last, f"{old}\n"))


def comment_line(path: str, line: int, new: str) -> ReversibleEdit:
    """Return the edit that comments out a line that is known in part only, and puts the lines ``new`` behind it."""
    return ReversibleEdit(CommentLine(path, line, f"{new}\n"), UncommentLine(path, line, 1 + new.count("\n")))
