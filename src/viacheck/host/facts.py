"""Facts of a host that differ between distributions, by testinfra: where a program is, a package, a service.

testinfra has one narrow seam, a backend that runs a command; this backend runs it through a Namespace, so that the same
facts are read of a lab and of a live host. Each fact costs at least one shell (2.2 ms for a program, 27 ms for a
package, 52 ms for a service), which is worth its knowledge of package managers, init systems and folders outside of
PATH. Files and sysctls have no such differences: :mod:`viacheck.host.files` and :mod:`viacheck.host.sysctl` read them
without a shell (0.05 ms; 8 ms by testinfra).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from testinfra.backend.base import BaseBackend
from testinfra.backend.base import CommandResult as TestinfraResult
from testinfra.host import Host

from viacheck.host.namespace import Namespace


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
    """Return the facts of the host that a namespace belongs to."""
    return Host(NamespaceBackend(namespace))


def find_programs(namespace: Namespace, names: Iterable[str]) -> dict[str, str]:
    """Return the path of each program that the host has, on PATH or in /sbin and /usr/sbin."""
    host = facts(namespace)
    paths = {}
    for name in names:
        try:
            paths[name] = str(host.find_command(name))
        except ValueError:
            continue
    return paths
