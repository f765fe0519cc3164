"""The standard streams where they cannot be used: closed by the caller, or on a full disk."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def open_closed_streams() -> None:
    """Lead each standard stream nowhere that the caller has closed, as ``>&-`` does in a shell.

    Python has None in its place, and the next file that is opened would get its number.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            # The lowest number that is free is taken, which is this one.
            opened = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(opened, opened == descriptor)
            stream = os.fdopen(opened, mode)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def discard(stream: TextIO) -> None:
    """Write no more to a stream that cannot be written: Python would complain when it flushes at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
