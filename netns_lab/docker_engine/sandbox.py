"""The namespaces of a lab's engine: everything in them ends when this process does, SIGKILL included.

dockerd, containerd and the containers share a process and mount namespace, whose first process reads from this one.
Their files are on a tmpfs in that mount namespace. The programs are this machine's, or those of a release's base root.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import child_of, end, read_line

STOP_TIMEOUT = 20.0
"""Seconds; dockerd gives its containers 15."""
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": SEARCH_PATH}
"""The whole environment of dockerd: no proxies and no DOCKER_ variables of this process."""

# The shell waits for its input to end, and reaps orphans. /etc/docker is hidden because dockerd 20.10 writes a key
# there. The resolver's file is kept where it lies below /run. A lab's host has mounted its own /sys on top of the /sys
# that has the cgroups.
FIRST_PROCESS = """
set -e
resolvers=$(cat /etc/resolv.conf 2>/dev/null) || true
resolvers_file=$(readlink -f /etc/resolv.conf) || true
while [ -z "$(ls -A /sys/fs/cgroup)" ]; do umount /sys; done
if [ -n "$1" ]; then
    cd "$1"
    mount -t tmpfs tmpfs /run
    mkdir /run/base /run/upper /run/work /run/newroot
    mount --bind . /run/base
    mount -t overlay overlay -o lowerdir=/run/base,upperdir=/run/upper,workdir=/run/work /run/newroot
    for folder in proc sys dev; do mount --rbind "/$folder" "/run/newroot/$folder"; done
    cd /run/newroot
    pivot_root . mnt
    umount --lazy /mnt
    resolvers_file=/etc/resolv.conf
    rm -f "$resolvers_file"
fi
mount -t tmpfs tmpfs /run
if [ -n "$resolvers" ] && [ ! -e /etc/resolv.conf ]; then
    mkdir -p "${resolvers_file%/*}"
    printf '%s\\n' "$resolvers" >"$resolvers_file"
fi
if [ -d /etc/docker ]; then mount -t tmpfs tmpfs /etc/docker; fi
echo ready
cat >/dev/null
"""
_READY = b"ready"


class SandboxFailed(Exception):
    """The system forbids the namespaces; the message holds the first process's output."""


class EngineSandbox:
    """The process and mount namespace of one engine, inside the network namespace of a lab's host.

    Attributes:
        pid: the first process, as this process sees it; 0 when the sandbox is closed.
    """

    def __init__(self, host: Namespace, timeout: float, base: Path | None = None) -> None:
        """Start the first process, and wait until it has prepared the mounts.

        Args:
            host: the namespace that the engine works on.
            timeout: seconds until the mounts must be prepared.
            base: the root that has the engine's programs, never written to; None for this machine's.

        Raises:
            SandboxFailed: they are not prepared in time.
        """
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", FIRST_PROCESS]
        argv += ["sh", str(base or "")]
        self._first: subprocess.Popen[bytes] | None = host.call(
            lambda: subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                process_group=0,
            )
        )
        self.pid = 0
        try:
            output = read_line(self._first, timeout)
            if output.strip() != _READY:
                reason = output.decode(errors="replace").strip() or "no answer"
                raise SandboxFailed(f"no namespaces for the engine: {reason}")
            self.pid = child_of(self._first.pid)
        except BaseException:
            self.close()
            raise

    @property
    def root(self) -> str:
        """The sandbox's file system, as this process sees it."""
        return f"/proc/{self.pid}/root"

    @property
    def proc(self) -> str:
        """The /proc in which the engine's process numbers are true."""
        return f"{self.root}/proc"

    def command(self, *argv: str) -> list[str]:
        """Return the command line that runs a command in the sandbox."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", *argv]

    def close(self) -> None:
        """End every process in the sandbox, and with them its mounts."""
        if self._first is not None:
            end(self._first, STOP_TIMEOUT)
            self._first = None
            # Another process may soon have the number.
            self.pid = 0
