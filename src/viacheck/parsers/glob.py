"""Matches names against the shell patterns of network managers' files, in time that grows with the pattern's length."""

from __future__ import annotations

from fnmatch import fnmatchcase

LONGEST_PATTERN = 4096
"""Characters of a pattern, as of a path; a longer pattern matches no name."""


def glob_matches(name: str, pattern: str) -> bool:
    """Return whether a name matches a shell pattern, upper and lower case apart (glob(7))."""
    if len(pattern) > LONGEST_PATTERN:
        return False
    # fnmatch searches the end of each bracket expression: a "[" without an end would cost the rest of the pattern.
    closed = pattern.rfind("]") + 1
    return fnmatchcase(name, pattern[:closed] + pattern[closed:].replace("[", "[[]"))
