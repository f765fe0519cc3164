"""Host facts by testinfra: files, programs, services, read in the target's own namespaces.

testinfra has one narrow seam, a backend that runs a command; this one runs it through a Namespace, so that the same
facts are read of a lab and of a live host.
"""

from __future__ import annotations

from typing import Any

from testinfra.backend.base import BaseBackend
from testinfra.backend.base import CommandResult as TestinfraResult
from testinfra.host import Host

from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import HostFile

READ_LIMIT = 256 * 1024
"""Bytes of a file that are kept; the files that matter here are a few kilobytes."""


class NamespaceBackend(BaseBackend):  # type: ignore[misc]
    """Runs testinfra's commands inside a namespace. testinfra quotes every argument itself."""

    NAME = "viacheck"

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(hostname=namespace.name)
        self._namespace = namespace
        self._encoding = "utf-8"

    def run(self, command: str, *args: str, **_ignored: Any) -> TestinfraResult:
        """Run one command line, its arguments quoted by testinfra."""
        line = self.get_command(command, *args)
        result = self._namespace.run(["/bin/sh", "-c", line])
        return self.result(result.exit_code, line.encode(), result.stdout, result.stderr)


def facts(namespace: Namespace) -> Host:
    """The facts of the host that a namespace belongs to."""
    return Host(NamespaceBackend(namespace))


def read_file(host: Host, path: str) -> HostFile:
    """Read one file. A file that is there and cannot be read says so in ``error``."""
    file = host.file(path)
    if not file.exists:
        return HostFile(path=path, exists=False)
    try:
        return HostFile(path=path, exists=True, text=file.content_string[:READ_LIMIT], mode=file.mode)
    except (RuntimeError, AssertionError, UnicodeDecodeError) as error:
        return HostFile(path=path, exists=True, error=str(error).splitlines()[0])
