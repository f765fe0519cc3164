"""The events of a hand-made host in whose middle a guarded run is ended, and the ways in which it ends."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.guarded_host import STEPS, WITHIN, GuardedHost, GuardedRun, guarded_run, wait_for_end
from viacheck.guard.saved_state import UNFINISHED

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
"""Gives a process another CLOCK_REALTIME, as a jump of the clock does; the other clocks stay (faketime(1))."""
LATER = 0.2
"""Seconds in which a run that does not pause takes its last steps, and restores the state."""
_INTERFACES = """\
iface wl0 inet static
    address 10.10.50.9/24
    post-up ip route replace default via 10.10.50.1 dev $IFACE table 200
    post-up ip rule add from 172.17.0.0/16 lookup 200
iface wl0 inet6 static
    address 2001:db8:50::9/64
    dad-attempts 0
"""


def _flap(_host: GuardedHost, _folder: Path) -> Sequence[str]:
    return STEPS


def _link_flap(_host: GuardedHost, _folder: Path) -> Sequence[str]:
    return ["ip link set wl0 down", "ip link set wl0 up"] * 2


def _carrier_loss(host: GuardedHost, _folder: Path) -> Sequence[str]:
    far = f"nsenter --net={host.far.path} ip link set wl0-far"
    return [f"{far} down", f"{far} up"] * 2


def _ifupdown(_host: GuardedHost, folder: Path) -> Sequence[str]:
    """Return real cycles of ifdown and ifup; no file of the machine is read or written."""
    (folder / "ifupdown").mkdir(exist_ok=True)
    (folder / "interfaces").write_text(_INTERFACES)
    (folder / "ifupdown" / "ifstate").write_text("wl0=wl0\n")
    options = f"--no-scripts --interfaces={folder}/interfaces --state-dir={folder}/ifupdown wl0"
    return [f"ifdown --force {options}", f"ifup {options}"] * 2


def _clock_jump(_host: GuardedHost, folder: Path) -> Sequence[str]:
    jumps = [f"sh -c 'echo {jump} >{folder}/clock'" for jump in ("+400d", "-400d")]
    return [STEPS[0], jumps[0], *STEPS[1:5], jumps[1], *STEPS[5:]]


EVENTS: dict[str, Callable[[GuardedHost, Path], Sequence[str]]] = {
    "changes": _flap,
    "link-flap": _link_flap,
    "carrier-loss": _carrier_loss,
    "ifupdown": _ifupdown,
    "clock-jump": _clock_jump,
}


TAKE_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
_CLOCK_FOR_THE_WATCHDOG = """
from viacheck.guard.watchdog import handle
own_environment = handle._environment
handle._environment = lambda: {**os.environ, **own_environment()}
"""


@contextlib.contextmanager
def run_through(host: GuardedHost, folder: Path, event: str, **options: Any) -> Iterator[GuardedRun]:
    """Start a guarded run that goes through an event; the files of the event are in the parent of ``folder``."""
    files = folder.parent
    steps = EVENTS[event](host, files)
    if event == "clock-jump":
        (files / "clock").write_text("+0")
        options["env"] = {
            **os.environ, "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(files / "clock"),
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        options["first"] = _CLOCK_FOR_THE_WATCHDOG
    with guarded_run(host, folder, steps=steps, **options) as run:
        yield run


def _killed(run: GuardedRun) -> None:
    run.end_with(signal.SIGKILL)


def _killed_beside_a_stopped_watchdog(run: GuardedRun) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.watchdog, signal.SIGSTOP)
    run.process.kill()
    run.process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.watchdog, signal.SIGCONT)
    wait_for_end(run.watchdog, WITHIN, "the watchdog has restored the state")


def _watchdog_killed(run: GuardedRun) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.watchdog, signal.SIGKILL)
    with contextlib.suppress(BrokenPipeError):
        run.go_on()
    assert run.outcome()["equal"]


def _both_killed(run: GuardedRun) -> None:
    """Restore by hand, as nothing else can do then."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.watchdog, signal.SIGKILL)
    run.process.kill()
    run.process.wait()
    wait_for_end(run.watchdog, WITHIN, "the watchdog is gone")
    argv = [sys.executable, "-m", "viacheck.cli.main", "restore", "--state", str(run.folder / UNFINISHED)]
    with run.host.start(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as restore:
        said, _ = restore.communicate(timeout=60)
    assert restore.returncode == 0, said


ENDS: Mapping[str, Callable[[GuardedRun], None]] = {
    "killed": _killed,
    "killed beside a stopped watchdog": _killed_beside_a_stopped_watchdog,
    "without its watchdog": _watchdog_killed,
    "killed with its watchdog": _both_killed,
}
TERMINAL_LOST = "terminal lost"


def end_in_the_middle(host: GuardedHost, folder: Path, event: str, end: str, moment: random.Random) -> str:
    """End a run at a random moment of an event; return the watchdog's log once everything has ended."""
    folder.parent.mkdir(exist_ok=True)
    count = len(EVENTS[event](host, folder.parent))
    step, runs_on, later = moment.randrange(count), moment.random() < 0.5, moment.uniform(0, LATER)
    options: dict[str, Any] = {"pause_at": -1 if runs_on else step}
    with contextlib.ExitStack() as closing:
        if end == TERMINAL_LOST:
            ours, theirs = pty.openpty()
            closing.callback(os.close, theirs)
            options |= {"before": TAKE_TERMINAL, "stdin": theirs, "start_new_session": True}
        run = closing.enter_context(run_through(host, folder, event, **options))
        run.reach(step)
        # Half of the runs pause, the others end while they take another step, or restore the state.
        if runs_on:
            time.sleep(later)
        if event == "carrier-loss":
            # Nothing on this host can plug a cable in; a person does, some time after the run is gone.
            plug = threading.Timer(later, host.far.run, [["ip", "link", "set", "wl0-far", "up"]])
            plug.start()
            closing.callback(plug.join)
        if end == TERMINAL_LOST:
            os.close(ours)
            wait_for_end(run.watchdog, WITHIN, "the watchdog has restored the state")
        else:
            ENDS[end](run)
        return run.log()
