"""Matches names against the shell patterns of network managers' files, in time that grows with the pattern's length."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache

_SPECIAL = re.compile(r"[*?\[]")
LONGEST_PATTERN = 4096
"""Characters of a pattern, as of a path; a longer pattern matches no name."""


def glob_matches(name: str, pattern: str) -> bool:
    """Return whether a name matches a shell pattern, upper and lower case apart (glob(7))."""
    if len(pattern) > LONGEST_PATTERN:
        return False
    if not _SPECIAL.search(pattern):
        return name == pattern
    return _compiled(pattern).match(name) is not None


@lru_cache(maxsize=1 << 13)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern as an expression: fnmatch keeps those of 256 patterns, and a host's files may have more."""
    # fnmatch searches the end of each bracket expression: a "[" without an end would cost the rest of the pattern.
    closed = pattern.rfind("]") + 1
    return re.compile(translate(pattern[:closed] + pattern[closed:].replace("[", "[[]")))
