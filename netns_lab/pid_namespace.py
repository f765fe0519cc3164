"""A process namespace for a lab's host: the daemons that its commands start end with the lab (pid_namespaces(7)).

A DHCP client that ifup starts would otherwise outlive the lab and hold its namespaces. Process numbers in the host's
files, such as a client's pid file, are true for every command of the host, and never name a process of the machine.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from viacheck.host import syscalls
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import FIRST_PROCESS, end, namespace_of


def contain_processes(host: Namespace) -> Callable[[], None]:
    """Run every further command of a host in a process namespace of its own; return the function that ends it.

    Its first process waits on a pipe that only this process holds, so that SIGKILL of this process ends it too.

    Raises:
        OSError: when the system forbids it.
    """

    def start() -> subprocess.Popen[bytes]:
        syscalls.unshare(syscalls.CLONE_NEWPID)
        return subprocess.Popen(FIRST_PROCESS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)

    first = host.call(start)
    namespace = namespace_of(first.pid)
    return lambda: end(first, namespace=namespace)
