"""A person at another terminal of a host, who types lines while a run changes the host."""

from __future__ import annotations

import os
import pty
import subprocess
from types import TracebackType

from viacheck.host.namespace import Namespace

_SHELL = 'while read -r line; do eval "$line"; done'
"""A shell that writes no prompt."""


class PersonAtTerminal:
    """``ip -batch -`` in a login session of its own. It stays until the end, so that its process can be looked up."""

    def __init__(self, host: Namespace, *options: str, shell: bool = False) -> None:
        """Log in; ``options`` of ip(8), or a ``shell``, which starts a process for each line."""
        self._terminal, theirs = pty.openpty()
        argv = [
            "setsid",
            "--ctty",
            "--wait",
            *(["sh", "-c", _SHELL] if shell else ["ip", *options, "-force", "-batch", "-"]),
        ]
        self._process = host.call(lambda: subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE))
        os.close(theirs)

    def __enter__(self) -> PersonAtTerminal:
        return self

    def types(self, line: str) -> None:
        """Type one line; it takes effect some time later."""
        os.write(self._terminal, line.encode() + b"\n")

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        # End of file at the beginning of a line.
        os.write(self._terminal, b"\x04")
        _, said = self._process.communicate(timeout=30)
        os.close(self._terminal)
        assert not said, said
