"""A real systemd-networkd on a lab's host, with the bus, the notify socket and the udev records that it needs.

networkctl(1) and the D-Bus daemon are real too. udev does not run: the lab writes udev's records that the interfaces
are initialized, because networkd ignores other interfaces. A read-only /sys, as in a container, would also make
networkd accept them, but then it configures its links before it has read the kernel's rules, and removes no foreign
rule: the lab exists to show that removal.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from viacheck.host.command import present_environment
from viacheck.host.namespace import Namespace
from viacheck.model.namespace_state import Link
from viacheck.persistence import networkd

PROGRAM, WAIT_ONLINE, BUS_PROGRAM = "systemd-networkd", "systemd-networkd-wait-online", "dbus-daemon"
PACKAGES = {PROGRAM: "systemd", BUS_PROGRAM: "dbus-daemon"}
"""The Debian package of each program."""
PROGRAM_FOLDERS = ("/usr/lib/systemd", "/lib/systemd")
"""The folders of systemd's own programs, which are in no PATH."""
TIMEOUT = 20.0
"""Seconds until networkd is up, down, or has configured its links."""
LOG = "/run/systemd-networkd.log"
_USER = "systemd-network"
_NOTIFY = "/run/systemd/notify"
_UDEV = "/run/udev/data"
_BUS_CONFIG, _BUS_SOCKET = "/run/dbus/lab.conf", "/run/dbus/system_bus_socket"
_BUS_CONFIG_TEXT = f"""\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={_BUS_SOCKET}</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="*"/><allow receive_type="*"/>
  </policy>
</busconfig>
"""
_NO_CARRIER_NEEDED = "lo:carrier"
"""The argument of wait-online for the loopback, which never gets past the state ``carrier``."""


class NetworkdFailed(Exception):
    """networkd, or its bus, did not start, end or configure its links; the message has the last line of its log."""


class NetworkdDaemon:
    """networkd on one host, whose commands run in a process namespace of their own. Made by :meth:`start`."""

    def __init__(self, host: Namespace, links: Sequence[Link]) -> None:
        """Use :meth:`start`."""
        self._host, self._links = host, links
        self._bus: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, host: Namespace, links: Sequence[Link]) -> NetworkdDaemon:
        """Start a bus and networkd; return when networkd is up. Its links are configured later, see :meth:`settle`.

        Raises:
            NetworkdFailed: when it does not come up.
        """
        daemon = cls(host, links)
        try:
            host.call(daemon._prepare)
            daemon._bus = host.call(_start_bus)
            daemon._run()
        except BaseException:
            daemon.close()
            raise
        return daemon

    def _prepare(self) -> None:
        for folder in (os.path.dirname(path) for path in (_NOTIFY, _BUS_CONFIG)):
            os.makedirs(folder, exist_ok=True)
        os.makedirs(_UDEV, exist_ok=True)
        for index in (1, *(link.index for link in self._links)):
            # The time of initialization, in microseconds since the boot; networkd accepts any value.
            Path(_UDEV, f"n{index}").write_text("I:1\n")
        Path(_BUS_CONFIG).write_text(_BUS_CONFIG_TEXT)
        if _user_is_unmapped():
            _map_user_to_root()

    def _run(self) -> None:
        """Start the program, and wait until it reports that it is up (sd_notify(3))."""
        with self._host.call(_notify_socket) as notifications:
            self._process = self._host.call(_start)
            notification = b""
            try:
                while b"READY=1" not in notification.splitlines():
                    notification = notifications.recv(4096)
            except TimeoutError:
                raise NetworkdFailed(f"{PROGRAM} was not up within {TIMEOUT:g} s: {self._last_log_line()}") from None

    def restart(self) -> None:
        """End networkd by SIGTERM, as systemd does, and start it again; return when it is up.

        Raises:
            NetworkdFailed: when it does not end, or does not come up again.
        """
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise NetworkdFailed(f"{PROGRAM} did not end within {TIMEOUT:g} s") from None
        self._run()

    def settle(self) -> None:
        """Wait until every link that its files name is configured (systemd-networkd-wait-online(8)).

        Raises:
            NetworkdFailed: when a link is not.
        """
        # networkd answers on the bus after the work that came before, such as a reload that has begun.
        self._host.run(["networkctl", "--json=short", "list"])
        from viacheck.host import persistence_files

        files = persistence_files.collect(self._host)
        names = sorted({link.interface for link in networkd.read(files, self._links).links if not link.active})
        options = [f"--interface={_NO_CARRIER_NEEDED if name == 'lo' else name}" for name in names]
        result = self._host.run([_find(WAIT_ONLINE), *options, f"--timeout={TIMEOUT:g}"], TIMEOUT + 1)
        if not result.ok:
            raise NetworkdFailed(f"{PROGRAM} has not configured {', '.join(names)}: {self._last_log_line()}")

    def close(self) -> None:
        """End networkd and its bus."""
        for process in (self._process, self._bus):
            if process is not None:
                process.kill()
                process.wait()

    def _last_log_line(self) -> str:
        def read() -> str:
            with contextlib.suppress(OSError):
                return Path(LOG).read_text(errors="replace")
            return ""

        lines = self._host.call(read).splitlines()
        return lines[-1] if lines else "its log is empty"


def _find(program: str) -> str:
    return next((path for folder in PROGRAM_FOLDERS if os.path.exists(path := f"{folder}/{program}")), program)


def _start() -> subprocess.Popen[bytes]:
    with open(LOG, "ab") as log:
        # A lab has no journal: networkd logs to a file.
        environment = {**present_environment(), "NOTIFY_SOCKET": _NOTIFY, "SYSTEMD_LOG_TARGET": "console"}
        return subprocess.Popen(
            [_find(PROGRAM)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0
        )  # fmt: skip


def _start_bus() -> subprocess.Popen[bytes]:
    """Start a bus, and wait until it has printed its address (dbus-daemon(1))."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_BUS_SOCKET)
    bus = subprocess.Popen(
        [BUS_PROGRAM, f"--config-file={_BUS_CONFIG}", "--nofork", "--nopidfile", "--print-address"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0,
    )  # fmt: skip
    assert bus.stdout is not None
    with bus.stdout as address:
        if not select.select([address], [], [], TIMEOUT)[0] or not address.readline():
            bus.kill()
            bus.wait()
            raise NetworkdFailed(f"{BUS_PROGRAM} did not come up")
    return bus


def _notify_socket() -> socket.socket:
    notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_NOTIFY)
    notifications.bind(_NOTIFY)
    # networkd has given up root when it writes here.
    os.chmod(_NOTIFY, 0o777)  # noqa: S103
    notifications.settimeout(TIMEOUT)
    return notifications


def _user_is_unmapped() -> bool:
    """Return whether this is a user namespace to which networkd's user is not mapped (user_namespaces(7))."""
    user = pwd.getpwnam(_USER).pw_uid
    ranges = (map(int, line.split()) for line in Path("/proc/self/uid_map").read_text().splitlines())
    return not any(first <= user < first + count for first, _outside, count in ranges)


def _map_user_to_root() -> None:
    """Give networkd's user the number 0 in the lab's private /etc: networkd must change to a user that is mapped."""
    passwd = Path("/etc/passwd")
    lines = [line for line in passwd.read_text().splitlines() if not line.startswith(f"{_USER}:")]
    passwd.unlink()
    passwd.write_text("\n".join((*lines, f"{_USER}:x:0:0::/:/usr/sbin/nologin", "")))
