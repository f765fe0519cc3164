"""Values and keys as TOML writes them, and wrong values as a message shows them."""

from __future__ import annotations

import re

LONGEST_SHOWN = 80
"""Characters of a wrong value that a message repeats."""


def toml_text(value: str) -> str:
    """Return text as TOML writes it between quotes, with everything escaped that is not printable."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in value) + '"'


def toml_key(name: str) -> str:
    """Return a key as TOML writes it, between quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_text(name)


def shown(value: object) -> str:
    """Return a wrong value for a message, shortened where it is long; a truth value as TOML writes it."""
    return str(value).lower() if isinstance(value, bool) else shortened(repr(value))


def shortened(text: str) -> str:
    """Return text with its end cut off where it is long."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"
