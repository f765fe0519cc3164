"""The tokenizer of shell lines: words with their quotes, operators and redirections.

A line is split as POSIX.1-2017, section 2.3, says; nothing is expanded and nothing is run. What may stand in a word is
for the caller to judge, which is why each piece of a word keeps its quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Quoting = Literal["bare", "single", "double", "escaped"]

_BLANK = re.compile(r"[ \t\r\n]+")
_REDIRECTION = re.compile(r"(?:&>>?|\d*(?:<<-|<<|<&|<>|>>|>&|>\||<|>))", re.ASCII)
_OPERATOR = re.compile(r"\|\||&&|;;|[;&|()]")
_BARE = re.compile(r"[^ \t\r\n;&|()<>'\"\\]+")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED_IN_DOUBLE = re.compile(r'\\([$`"\\])')


class ShellError(ValueError):
    """The line cannot be split, or makes no command that a caller expects; the message says why."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a word that is quoted in one manner."""

    text: str
    quoting: Quoting


@dataclass(frozen=True, slots=True)
class Word:
    """A word in a line."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The word without its quotes."""
        return "".join(
            _ESCAPED_IN_DOUBLE.sub(r"\1", piece.text) if piece.quoting == "double" else piece.text
            for piece in self.pieces
        )


@dataclass(frozen=True, slots=True)
class Operator:
    """``;``, ``&``, ``|``, ``||``, ``&&``, ``;;`` or a parenthesis."""

    text: str


@dataclass(frozen=True, slots=True)
class Redirection:
    """A redirection with its target; None when no word follows."""

    operator: str
    """With the file descriptor before it: ``2>``."""
    target: Word | None


Token = Word | Operator | Redirection


def tokens(line: str) -> Iterator[Token]:
    """Split a line into tokens; a comment ends it.

    Raises:
        ShellError: when a quote is not closed, or nothing follows a backslash.
    """
    position = 0
    while position < len(line):
        if blank := _BLANK.match(line, position):
            position = blank.end()
        elif line[position] == "#":
            return
        elif redirection := _REDIRECTION.match(line, position):
            position = redirection.end()
            blank = _BLANK.match(line, position)
            target, position = _word(line, blank.end() if blank else position)
            yield Redirection(redirection[0], target)
        elif operator := _OPERATOR.match(line, position):
            position = operator.end()
            yield Operator(operator[0])
        else:
            word, position = _word(line, position)
            assert word is not None, "every other character begins a word"
            yield word


def first_command(line: str) -> list[str]:
    """Return the first command of a line: its words, without quotes and without redirections.

    Raises:
        ShellError: when a quote is not closed, or nothing follows a backslash.
    """
    first: list[str] = []
    for token in tokens(line):
        if isinstance(token, Operator):
            break
        if isinstance(token, Word):
            first.append(token.text)
    return first


def _word(line: str, position: int) -> tuple[Word | None, int]:
    """Read the word at a position, and return the position behind it."""
    pieces: list[Piece] = []
    while position < len(line):
        quoting: Quoting
        if line[position] == "'":
            match, quoting = _SINGLE.match(line, position), "single"
        elif line[position] == '"':
            match, quoting = _DOUBLE.match(line, position), "double"
        elif line[position] == "\\":
            if position + 1 == len(line):
                raise ShellError("no escaped character")
            pieces.append(Piece(line[position + 1], "escaped"))
            position += 2
            continue
        else:
            bare = _BARE.match(line, position)
            if bare is None:
                break
            pieces.append(Piece(bare[0], "bare"))
            position = bare.end()
            continue
        if match is None:
            raise ShellError("no closing quotation")
        pieces.append(Piece(match[1], quoting))
        position = match.end()
    return (Word(tuple(pieces)) if pieces else None), position
