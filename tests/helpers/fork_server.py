"""Starts runs of viacheck from one process that has imported everything, so that a run need not import it again.

More than half of the CPU time of a run over one lab is spent on imports. This program imports what runs import, runs no
check, starts no thread, and forks a child for each run. The child becomes what a new Python would be: it has the
request's arguments, environment, working directory, standard streams and namespaces, and its own end as a process.

Run as ``python -P fork_server.py FD ...``, where each FD is a socket that a process of its own serves;
:mod:`tests.helpers.forked_runs` is the other end.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 1 << 18
"""Octets of the largest message."""
STREAMS = 3
"""Descriptors of standard input, output and error output."""
MOST_DESCRIPTORS = 8
OUR_PACKAGES = ("viacheck", "fixtures", "netns_lab", "reports")
NOT_IMPORTED = ("viacheck.cli", "viacheck.bench", "viacheck.fleet", "viacheck.guard.watchdog.process")
"""Commands, which a run imports when it has chosen one, and programs that Python starts with ``-m``."""
LIBRARIES = ("docker", "pyroute2")


@dataclass(frozen=True)
class Request:
    """A Python to become, and its descriptors."""

    option: str
    """Of Python: ``-I`` or ``-P``."""
    module: str
    """To run as a program."""
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    namespaces: list[str]
    """The kinds of the namespaces to enter: ``net``, ``mnt``, ``pid``."""
    descriptors: list[int]
    """The streams, and the namespaces."""

    def send(self, channel: socket.socket) -> int:
        """Ask for the process; return a descriptor of it (pidfd_open(2))."""
        words = {name: value for name, value in vars(self).items() if name != "descriptors"}
        socket.send_fds(channel, [json.dumps(words).encode()], self.descriptors)
        _started, (process,), _flags, _address = socket.recv_fds(channel, LARGEST, 1)
        return process

    @classmethod
    def receive(cls, channel: socket.socket) -> Request | None:
        """Return the next request; None when the other end was closed."""
        try:
            message, descriptors, _flags, _address = socket.recv_fds(channel, LARGEST, MOST_DESCRIPTORS)
        except ConnectionResetError:
            # It was closed before it had read what was sent to it, as by a worker that needed no run.
            return None
        return cls(**json.loads(message), descriptors=list(descriptors)) if message else None


def main() -> None:
    """Import, serve, and become each process that is asked for."""
    preload()
    become(Server(channel_of_process([socket.socket(fileno=int(fd)) for fd in sys.argv[1:]])).serve())


def channel_of_process(channels: list[socket.socket]) -> socket.socket:
    """Fork a process for each socket after the first; return the socket that is left to the process."""
    own = channels[0]
    for channel in channels[1:]:
        if os.fork() == 0:
            own = channel
            break
    for channel in channels:
        if channel is not own:
            channel.close()
    return own


def preload() -> None:
    """Import what a run imports, by pytest where pytest rewrites assertions, and compile the page's template."""
    import pytest

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        arguments = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-q"]
        status = pytest.main([*arguments, "--collect-only", "--lab", "nat", str(ROOT / "checks")])
    assert status == 0, f"pytest cannot collect the checks: exit status {status}"
    # The report's handler, which has nothing to write.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    # Another folder's conftest.py has the same name.
    del sys.modules["conftest"]
    for library in LIBRARIES:
        import_module(library)
    sys.path.insert(0, str(ROOT))
    for package in OUR_PACKAGES:
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            if not module.name.startswith(NOT_IMPORTED) and not module.name.endswith("__main__"):
                import_module(module.name)
    from fixtures.shared_run import load_all
    from reports.report_page import render
    from viacheck.model.result import Run, RunResult

    sys.path.remove(str(ROOT))
    load_all()
    moment = "2026-01-01T00:00:00Z"
    render(RunResult(run=Run(id="", started=moment, finished=moment, command=""), targets=[], results=[]))
    assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1, "a thread does not survive a fork"
    # A child's garbage collector need not look at what was imported.
    gc.collect()
    gc.freeze()


class Server:
    """Forks for one process of tests at a time."""

    def __init__(self, channel: socket.socket) -> None:
        """Serve at this socket."""
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)

    def serve(self) -> Request:
        """Fork for each request; return in each child."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._channel.send(b"ready")
        except BrokenPipeError:
            sys.exit()
        while True:
            for key, _events in self._selector.select():
                if key.data is not None:
                    self._reap(key.fd, key.data)
                elif (request := self._fork()) is not None:
                    return request

    def _fork(self) -> Request | None:
        request = Request.receive(self._channel)
        if request is None:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            for other in self._selector.get_map().values():
                os.close(other.fileobj) if isinstance(other.fileobj, int) else other.fileobj.close()  # type: ignore[attr-defined]
            self._selector.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return request
        for descriptor in request.descriptors:
            os.close(descriptor)
        process = os.pidfd_open(pid)
        socket.send_fds(self._channel, [b"started"], [process])
        self._selector.register(process, selectors.EVENT_READ, pid)
        return None

    def _reap(self, process: int, pid: int) -> None:
        self._selector.unregister(process)
        os.close(process)
        _pid, status = os.waitpid(pid, 0)
        self._channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(request: Request) -> None:
    """Run the program of a request as a new Python would."""
    for number, descriptor in enumerate(request.descriptors[:STREAMS]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    libc = ctypes.CDLL(None, use_errno=True)
    for namespace in request.descriptors[STREAMS:]:
        if libc.setns(namespace, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(namespace)
    if "pid" in request.namespaces and (pid := os.fork()):
        # Only a child is in the process namespace that was entered.
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(status if status >= 0 else 128 - status)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    if request.option == "-I":
        # An isolated Python does not read PYTHONPYCACHEPREFIX.
        sys.pycache_prefix = None
    sys.argv = ["-m", *request.arguments]
    sys.orig_argv = [sys.executable, request.option, "-m", request.module, *request.arguments]
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
