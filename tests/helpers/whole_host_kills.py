"""Runs on a whole host that end at a random moment of a real event, and what the host is like after them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netns_lab.lab import Lab
from tests.helpers.guarded_host import until
from tests.helpers.host_attributes import host_attributes
from viacheck.guard.lock import LOCK
from viacheck.guard.saved_state import UNFINISHED

EVENTS: Mapping[str, tuple[str, float]] = {
    "container-restart": ("FLAP-04", 3.0),
    "networkd-restart": ("FLAP-09", 1.5),
    "engine-restart": ("FLAP-05", 5.0),
    "link-flap": ("FLAP-01", 2.0),
    "networkmanager-restart": ("FLAP-11", 2.5),
    "netplan-apply": ("FLAP-11", 3.0),
}
"""By event, the check that makes it, and the seconds within which the run ends: longer than the event itself."""
ARMED_WITHIN, RESTORED_WITHIN, SETTLED_WITHIN = 120.0, 90.0, 60.0
_STATE_DIR = "run/viacheck"
_STATE_COMMANDS = (
    "iptables-save", "docker inspect --format '{{.State.Running}} {{.State.Paused}}' te-agent",
    "systemctl is-active docker.service systemd-networkd.service NetworkManager.service",
    "systemctl list-units --failed --no-legend",
)  # fmt: skip


class KilledRun:
    """A run of viacheck on a lab's whole host, at a terminal of its own, in all of the host's namespaces."""

    def __init__(self, lab: Lab, event: str, site: str) -> None:
        """Start it; return once its watchdog is armed for the event."""
        assert lab.engine is not None
        self._lab, self._folder = lab, Path(lab.engine.root) / _STATE_DIR
        for name in (UNFINISHED, LOCK):
            (self._folder / name).unlink(missing_ok=True)
        check = EVENTS[event][0]
        options = f"--local --site {site} --allow-disruptive --events {event} --yes -q -k {check}"
        line = f"cd /root && exec sh viacheck.pyz {options} --report-dir killed"
        self._terminal, theirs = pty.openpty()
        host = lab.host.namespace
        argv = [*host.prefix, "setsid", "--ctty", "--wait", "sh", "-c", line]
        # In the lab's namespace as every command; what it writes is read by nobody but the message of a failure.
        self._process = host.call(
            lambda: subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=host.environment)
        )
        os.close(theirs)
        self._written = b""
        until(self._armed, f"armed for {event}: {self.written()}", ARMED_WITHIN)
        holder = json.loads((self._folder / LOCK).read_bytes())
        self.pid, self.watchdog = int(holder["pid"]), int(holder["watchdog"])

    def _armed(self) -> bool:
        self._read()
        assert self._process.poll() is None, self.written()
        with contextlib.suppress(OSError, ValueError):
            return (self._folder / UNFINISHED).exists() and "watchdog" in json.loads((self._folder / LOCK).read_bytes())
        return False

    def _read(self) -> None:
        # EIO: the last process at the terminal has ended.
        with contextlib.suppress(OSError):
            while select.select([self._terminal], [], [], 0)[0] and (text := os.read(self._terminal, 1 << 16)):
                self._written += text

    def written(self) -> str:
        """Return what the run wrote so far."""
        return self._written.decode(errors="replace")

    def log(self) -> str:
        """Return what the watchdogs of this host wrote."""
        path = self._folder / "watchdog.log"
        return path.read_text()[-4000:] if path.exists() else ""

    def type(self, line: str) -> str:
        """Type a line at another terminal of the host; it may fail, as the process that it names may be gone."""
        return self._lab.host.namespace.run(["sh", "-c", line], RESTORED_WITHIN).stdout

    def lose_terminal(self) -> None:
        """Hang up, as an SSH session does that breaks."""
        os.close(self._terminal)
        self._terminal = -1

    def wait_for_watchdog(self) -> None:
        """Wait until the watchdog has ended."""
        within = f"timeout {RESTORED_WITHIN:g} tail --pid={self.watchdog} -f /dev/null && echo ended"
        said = self._lab.host.namespace.run(["sh", "-c", within], RESTORED_WITHIN + 10).stdout
        assert said.strip() == "ended", f"the watchdog has not ended:\n{self.log()}"

    def close(self) -> None:
        """Wait until the run has ended, whatever ended it."""
        if self._terminal >= 0:
            self._read()
            os.close(self._terminal)
        try:
            self._process.wait(RESTORED_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _killed(run: KilledRun) -> None:
    run.type(f"kill -KILL {run.pid}")


def _group_killed(run: KilledRun) -> None:
    run.type(f"kill -KILL -- -$(ps -o pgid= -p {run.pid} | tr -d ' ')")


def _hung_up(run: KilledRun) -> None:
    run.type(f"kill -HUP -- -$(ps -o pgid= -p {run.pid} | tr -d ' ')")


def _killed_beside_a_stopped_watchdog(run: KilledRun) -> None:
    run.type(f"kill -STOP {run.watchdog}; kill -KILL {run.pid}; kill -CONT {run.watchdog}")


def _killed_with_its_watchdog(run: KilledRun) -> None:
    """Restore by hand, as nothing else can do then."""
    run.type(f"kill -KILL {run.watchdog} {run.pid}")
    run.wait_for_watchdog()
    run.type("cd /root && [ ! -e /run/viacheck/saved-state.json ] || sh viacheck.pyz restore")


ENDS: Mapping[str, Callable[[KilledRun], None]] = {
    "SIGKILL": _killed,
    "SIGKILL of the group": _group_killed,
    "SIGHUP of the group": _hung_up,
    "terminal lost": KilledRun.lose_terminal,
    "SIGKILL beside a stopped watchdog": _killed_beside_a_stopped_watchdog,
    "SIGKILL with its watchdog": _killed_with_its_watchdog,
}


def whole_host_state(lab: Lab) -> list[str]:
    """Return what a run must leave as it was; the engine gives the container's veth another name at each start."""

    def run(argv: Sequence[str]) -> str:
        return lab.host.namespace.run(argv).stdout

    lines = host_attributes(run, without="veth")
    for command in _STATE_COMMANDS:
        printed = run(["sh", "-c", command]).splitlines()
        kept = (line for line in printed if not line.startswith(("#", ":")) and "veth" not in line)
        lines += [f"{command}: {line}" for line in sorted(kept)]
    return lines


def end_on_whole_host(lab: Lab, event: str, end: str, moment: random.Random, *, site: str, before: list[str]) -> str:
    """End a run at a random moment of an event; return what differs from ``before`` once the host has settled."""
    with contextlib.closing(KilledRun(lab, event, site)) as run:
        time.sleep(moment.uniform(0, EVENTS[event][1]))
        ENDS[end](run)
        run.wait_for_watchdog()
        log = run.log()
    # An engine that was told to restart its container does so without the run too, and takes its time.
    deadline = time.monotonic() + SETTLED_WITHIN
    while (after := whole_host_state(lab)) != before and time.monotonic() < deadline:
        time.sleep(0.2)
    differing = [f"- {line}" for line in before if line not in after]
    differing += [f"+ {line}" for line in after if line not in before]
    if not differing and after != before:
        pairs = zip(before, after, strict=True)
        differing = ["in another order:", *(f"{old}\n{new}" for old, new in pairs if old != new)]
    return "\n".join([*differing, log]) if differing else ""
