"""Which network namespaces processes hold, and whether anybody still does."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator


def network_namespaces(pid: str) -> dict[str, str]:
    """Return the network namespaces that a process' threads are in or that it holds, with their paths."""
    paths = []
    with contextlib.suppress(OSError):
        paths += [f"/proc/{pid}/task/{task}/ns/net" for task in os.listdir(f"/proc/{pid}/task")]
        paths += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
    names = {}
    for path in paths:
        with contextlib.suppress(OSError):
            names[os.readlink(path)] = path
    return {name: path for name, path in names.items() if name.startswith("net:")}


@contextlib.contextmanager
def pinned(pids: Iterable[str]) -> Iterator[set[str]]:
    """Yield the network namespaces of some processes that are not this process'.

    They are held open, so that no other lab gets a namespace of the same number meanwhile.
    """
    paths = {name: path for pid in pids for name, path in network_namespaces(pid).items()}
    own = network_namespaces("self")
    with contextlib.ExitStack() as pins:
        names = set()
        for path in (path for name, path in paths.items() if name not in own):
            with contextlib.suppress(OSError):
                pin = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                pins.callback(os.close, pin)
                names.add(os.readlink(f"/proc/self/fd/{pin}"))
        yield names


def holders(namespaces: set[str]) -> list[str]:
    """Return a line for each other process that holds one of these namespaces."""
    return [
        f"process {pid} holds {name}"
        for pid in filter(str.isdecimal, os.listdir("/proc"))
        if int(pid) != os.getpid()
        for name in namespaces & network_namespaces(pid).keys()
    ]


def assert_nobody_holds(namespaces: set[str], within: float) -> None:
    """Wait, at most so many seconds, until no other process holds one of these namespaces."""
    deadline = time.monotonic() + within
    while holding := holders(namespaces):
        assert time.monotonic() < deadline, holding
        time.sleep(0.01)
