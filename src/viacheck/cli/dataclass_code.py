"""Keeps the compiled methods of dataclasses, beside the byte code of a checkout's Python files.

For each class ``dataclasses`` writes the source of up to six methods, and has Python compile it by ``exec``. A start
with ``--local`` makes 370 classes: 580 kB of source, which takes 0.2 s of CPU time to compile and 15 ms to load. The
source itself is the key, so that nothing out of date is ever used. Where the ``dataclasses`` of a later Python does not
call ``exec`` by that name, nothing is kept, and all is as without this module.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import marshal
import sys
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path
from types import CodeType
from typing import Any

LARGEST = 8 << 20
"""Octets of the file from which it is begun again: in a checkout whose classes change, old methods add up."""


class MethodCode:
    """The compiled methods of one file."""

    def __init__(self, path: Path) -> None:
        """Load what the file has; a file that is missing, or of another Python, has nothing."""
        self._path = path
        self._codes: dict[str, CodeType] = {}
        self._used: dict[str, CodeType] = {}
        self._is_large = False
        with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
            content = path.read_bytes()
            self._is_large = len(content) > LARGEST
            if content.startswith(MAGIC_NUMBER):
                self._codes = marshal.loads(content[len(MAGIC_NUMBER) :])  # noqa: S302 - trusted as byte code is

    def run(self, source: str, global_names: dict[str, Any], local_names: dict[str, Any]) -> None:
        """Do what ``exec`` does with a source."""
        code = self._codes.get(source)
        if code is None:
            code = compile(source, "<string>", "exec", dont_inherit=True)
        self._used[source] = code
        exec(code, global_names, local_names)  # noqa: S102 - in place of dataclasses' own call

    def save(self) -> None:
        """Write the file if methods were compiled; a file that cannot be written is left as it is."""
        from viacheck.atomic_file import write_file

        if self._used.keys() <= self._codes.keys():
            return
        kept = self._used if self._is_large else self._codes | self._used
        with contextlib.suppress(OSError):
            write_file(self._path, MAGIC_NUMBER + marshal.dumps(kept), durable=False)


def keep_method_code() -> None:
    """Use the compiled methods of earlier starts for all classes made from now on, and save new ones at the exit.

    As with Python's own byte code, nothing is kept without a folder for it: only a checkout's launcher names one.
    """
    names = vars(dataclasses)
    if sys.pycache_prefix is None or sys.dont_write_bytecode or "exec" in names:
        return
    code = MethodCode(Path(cache_from_source(__file__)).with_suffix(".methods"))
    names["exec"] = code.run
    atexit.register(code.save)
