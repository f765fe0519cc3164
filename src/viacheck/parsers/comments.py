"""Comments that people write into files and packet filter rules: left out while a host is read.

A comment may hold a name, a ticket or a password, and decides nothing. Everything is line for line, so that line
numbers stay true.
"""

from __future__ import annotations

import re

LEFT_OUT = "…"
"""Stands for a text that is left out."""
FILTER_COMMENT = re.compile(r"(--comment )(\"(?:[^\"\\]|\\.)*\"|\S+)")
"""A comment as iptables prints it."""
_NFT_COMMENT = re.compile(r"(\bcomment )\"[^\"]*\"")
_COMMENT = re.compile(r"(?m)^[ \t]*[#;](?!!).*$|[ \t]#.*$")


def without_comments(text: str) -> str:
    """Return a file's text without its comments, each line where it was."""
    return _COMMENT.sub("", text)


def without_rule_comment(text: str) -> str:
    """Return a packet filter rule, as its tool prints it, without its comment."""
    return _NFT_COMMENT.sub(rf'\g<1>"{LEFT_OUT}"', FILTER_COMMENT.sub(rf"\g<1>{LEFT_OUT}", text))
