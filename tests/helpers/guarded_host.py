"""A hand-made host for the tests of the guard: two uplinks with everything on them that a restore must not lose.

What it is like is read with ip(8), not with the reader under test, and told without what runs by itself (lifetimes,
counters, what the kernel found out about a way).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.host_attributes import host_attributes
from tests.helpers.paths import ROOT
from viacheck.host.namespace import Namespace

WITHIN = 15.0
"""Seconds after the end of a run in which its host must be what it was; an idle machine takes a fraction of one."""

_BUILD = """\
link set lo up
link set up0 up
link set wl0 up
address add 10.10.40.9/24 dev up0
address add 10.10.50.9/24 dev wl0
address add 10.10.50.10/24 dev wl0 label wl0:second
address add 10.10.51.9 peer 10.10.51.1/32 dev wl0
address add 10.10.52.9/24 dev wl0 valid_lft 4000 preferred_lft 3000
address add 2001:db8:40::9/64 dev up0 nodad
address add 2001:db8:50::9/64 dev wl0 nodad
address add 2001:db8:50::a/64 dev wl0 nodad valid_lft 4000 preferred_lft 3000
address add 2001:db8:50::b/64 dev wl0 nodad
address change 2001:db8:50::9/64 dev wl0
address change 2001:db8:50::b/64 dev wl0
neighbour add 10.10.50.1 lladdr 02:00:00:00:50:01 dev wl0 nud permanent
neighbour add proxy 10.10.50.77 dev wl0
route add default via 10.10.40.1 dev up0
route add default via 10.10.50.1 dev wl0 metric 600 proto static
route add default via 10.10.50.1 dev wl0 table 200 src 10.10.50.10
route add unreachable default metric 4278198272 table 200
route add 198.18.0.0/16 table 200 nexthop via 10.10.50.1 dev wl0 weight 3 nexthop via 10.10.50.2 dev wl0
route add 198.19.0.0/16 nexthop via 10.10.50.1 dev wl0 nexthop via 10.10.40.1 dev up0
route add 203.0.113.0/24 via 10.10.99.1 dev wl0 onlink mtu lock 1400 proto 77
route append 192.0.2.0/24 dev wl0
route append 192.0.2.0/24 dev up0
route add blackhole 192.0.2.128/25 table 201
-6 route add default via 2001:db8:50::1 dev wl0 table 200
-6 route add default via 2001:db8:40::1 dev up0
-6 route add unreachable default metric 4278198272 table 200
-6 route add 2001:db8:99::/48 table 200 nexthop via 2001:db8:50::1 dev wl0 weight 2 nexthop via 2001:db8:50::2 dev wl0
rule add priority 990 from 172.17.0.0/16 lookup main suppress_prefixlength 0
rule add priority 1000 from 172.17.0.0/16 lookup 200
rule add priority 1000 iif wl0 fwmark 0x5/0xff lookup 201
rule add priority 40000 not to 10.0.0.0/8 ipproto udp dport 53-54 unreachable
-6 rule add priority 1000 from 2001:db8:17::/64 lookup 200
"""


class GuardedHost:
    """The host's namespace, and the one at the other end of its uplinks."""

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        """Build it; ``prepare`` mounts what the host shall have for itself."""
        self.namespace = Namespace.create("guarded", prepare)
        self.far = Namespace.create("far")
        # With the same index at both ends the kernel tells of a carrier up to a second later.
        for number in range(3):
            assert self.far.run(["ip", "link", "add", f"other{number}", "type", "bridge"]).ok
        for name in ("up0", "wl0"):
            self.ip(f"link add {name} type veth peer name {name}-far netns {self.far.path}")
            assert self.far.run(["ip", "link", "set", f"{name}-far", "up"]).ok
        # Link-local addresses usable at once, before the test looks at them for the first time.
        self.namespace.call(lambda: _write("/proc/sys/net/ipv6/conf/all/accept_dad", "0"))
        for name in ("up0", "wl0"):
            self.namespace.call(lambda name=name: _write(f"/proc/sys/net/ipv6/conf/{name}/accept_dad", "0"))  # type: ignore[misc]
        for line in _BUILD.splitlines():
            self.ip(line)
        until(lambda: "tentative" not in self.ip("-6 address show"), "the addresses are usable")
        # The kernel sets the local route of an address from a queue of its own, also where it looks for no duplicate.
        until(self._has_local_routes, "every address has its local route")
        for name in ("all", "up0", "wl0"):
            self.namespace.call(lambda name=name: _write(f"/proc/sys/net/ipv6/conf/{name}/accept_dad", "1"))  # type: ignore[misc]

    def _has_local_routes(self) -> bool:
        addresses = set(re.findall(r"inet6 (\S+)/", self.ip("-6 address show")))
        return addresses <= set(re.findall(r"^local (\S+) ", self.ip("-6 route show table local"), re.MULTILINE))

    def ip(self, words: str) -> str:
        """Have iproute2 do something, and return what it says."""
        result = self.namespace.run(["ip", *words.split()])
        assert result.ok, f"{result.command}: {result.stderr}"
        return result.stdout

    def start(self, argv: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a program in the host's namespace."""
        return self.namespace.call(lambda: subprocess.Popen(argv, text=True, cwd=ROOT, **options))

    def state(self) -> list[str]:
        """Everything, one line for each object."""
        return host_attributes(self._output)

    def _output(self, argv: Sequence[str]) -> str:
        result = self.namespace.run(argv)
        assert result.ok or argv[0] != "ip", f"{result.command}: {result.stderr}"
        return result.stdout

    def close(self) -> None:
        """End it."""
        self.namespace.close()
        self.far.close()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def until(true: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait for something that no event tells of, with a bound."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


def wait_for_end(pid: int, seconds: float, what: str) -> None:
    """Wait for the end of a process that may be nobody's child here."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready = select.select([process], [], [], seconds)[0]
    finally:
        os.close(process)
    assert ready, f"not within {seconds:g} s: {what}"


RUN = """\
import json, os, shlex, subprocess, sys
from viacheck.host.namespace import Namespace
from viacheck.guard.guard import guard

folder, timeout, pause_at = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
{first}
def flap():
    for number, words in enumerate(json.loads(sys.argv[4])):
        subprocess.run(shlex.split(words), check=True, stdout=subprocess.DEVNULL)
        print("step", number, flush=True)
        if number == pause_at:
            sys.stdin.readline()

with guard(Namespace.current(), ["wl0"], timeout=timeout, tables=[200, 201], state_dir=folder) as armed:
    {before}
    print("armed", armed.watchdog, flush=True)
    flap()
print("outcome", armed.result.to_json().replace("\\n", " "), flush=True)
"""
STEPS = (
    "ip link set wl0 down",
    "ip rule del priority 1000 from 172.17.0.0/16 lookup 200",
    "ip link set wl0 up",
    "ip address del 10.10.50.9/24 dev wl0",
    "ip route flush table 200",
    "ip rule add from 172.17.0.0/16 lookup 200",
    "ip link set wl0 mtu 1200",
    "ip address flush dev wl0",
    "ip route replace 198.51.100.0/24 via 10.10.40.1 dev up0 table 200",
    "ip link set wl0 address 02:00:00:00:99:99",
)
NEVER = -1


class GuardedRun:
    """A run of its own process that flaps wl0 under guard, one step at a time."""

    def __init__(
        self, host: GuardedHost, folder: Path, *, timeout: float = 60, pause_at: int = NEVER, before: str = "pass",
        first: str = "", steps: Sequence[str] = STEPS, **options: Any,
    ) -> None:  # fmt: skip
        self.host, self.folder = host, folder
        source = RUN.format(first=first, before=before)
        argv = [sys.executable, "-c", source, str(folder), str(timeout), str(pause_at), json.dumps(steps)]
        options.setdefault("stdin", subprocess.PIPE)
        self.process = host.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        self.watchdog = int(self._line().split()[1])

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(f"the run ended: {self.process.stderr.read()}")
        return line

    def reach(self, step: int) -> None:
        """Wait until a step is done."""
        while int(self._line().split()[1]) < step:
            pass

    def go_on(self) -> None:
        """Let a run that pauses go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def outcome(self) -> dict[str, Any]:
        """Wait for the run's last words."""
        while not (line := self._line()).startswith("outcome"):
            pass
        found: dict[str, Any] = json.loads(line.removeprefix("outcome"))
        return found

    def end_with(self, number: signal.Signals) -> None:
        """End it, and wait until its watchdog is done."""
        self.process.send_signal(number)
        wait_for_end(self.watchdog, WITHIN, f"the watchdog has put the state back; its log:\n{self.log()}")
        self.process.wait()

    def log(self) -> str:
        """What the watchdog wrote down."""
        path = self.folder / "watchdog.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """End whatever is left of it."""
        for pid in (self.process.pid, self.watchdog):
            if self.process.poll() is None or pid == self.watchdog:
                _kill(pid)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                # What go_on() could not write any more is still in the buffer.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _kill(pid: int) -> None:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            mine = "viacheck.guard" in file.read()
        if mine:
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return


@contextmanager
def guarded_run(host: GuardedHost, folder: Path, **options: Any) -> Iterator[GuardedRun]:
    run = GuardedRun(host, folder, **options)
    try:
        yield run
    finally:
        run.close()


@contextmanager
def locked_by_another(folder: Path) -> Iterator[None]:
    """Hold the lock as a run that has said nothing yet does."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
