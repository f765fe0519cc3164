"""Starts runs of viacheck from one process that has imported everything, so that a run need not import it again.

More than half of the CPU time of a run over one lab is spent on imports. This program imports what runs import, runs no
check, starts no thread, and forks a child for each run, and for each worker of pytest-xdist that a run starts. The
child becomes what a new Python would be: it has the request's arguments, environment, working directory, standard
streams and namespaces, and its own end as a process.

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
import select
import selectors
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 1 << 18
"""Octets of the largest message."""
STREAMS = 3
"""Descriptors of standard input, output and error output."""
MOST_DESCRIPTORS = 8
OUR_PACKAGES = ("viacheck", "fixtures", "netns_lab", "reports")
NOT_IMPORTED = ("viacheck.cli", "viacheck.bench", "viacheck.fleet", "viacheck.guard.watchdog.process")
"""Commands, which a run imports when it has chosen one, and programs that Python starts with ``-m``."""
LIBRARIES = ("docker", "pyroute2", "xdist.remote")


@dataclass(frozen=True)
class Request:
    """A Python to become, and its descriptors."""

    option: str
    """Of Python: ``-I`` or ``-P``; ``-u`` for a worker of pytest-xdist."""
    module: str
    """To run as a program; "" for a worker, which is told its program by standard input."""
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
    request, channel = Server(channel_of_process([socket.socket(fileno=int(fd)) for fd in sys.argv[1:]])).serve()
    become(request, channel)


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
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Another folder's conftest.py has the same name.
    del sys.modules["conftest"]
    for library in LIBRARIES:
        import_module(library)
    sys.path.insert(0, str(ROOT))
    for package in OUR_PACKAGES:
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            if not module.name.startswith(NOT_IMPORTED) and not module.name.endswith("__main__"):
                import_module(module.name)
    from fixtures.forked_workers import load_all
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
    """Forks for one process of tests at a time, and for the runs that it has forked."""

    def __init__(self, channel: socket.socket) -> None:
        """Serve at this socket, and at one of each run."""
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)

    def serve(self) -> tuple[Request, socket.socket]:
        """Fork for each request; return in each child, with the socket at which it may ask for workers."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._channel.send(b"ready")
        except BrokenPipeError:
            sys.exit()
        while True:
            for key, _events in self._selector.select():
                if key.data is not None:
                    self._reap(key.fd, *key.data)
                elif (child := self._fork(key.fileobj)) is not None:  # type: ignore[arg-type]
                    return child

    def _fork(self, channel: socket.socket) -> tuple[Request, socket.socket] | None:
        request = Request.receive(channel)
        if request is None:
            if channel is self._channel:
                sys.exit()
            self._selector.unregister(channel)
            channel.close()
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            for other in self._selector.get_map().values():
                os.close(other.fileobj) if isinstance(other.fileobj, int) else other.fileobj.close()  # type: ignore[attr-defined]
            self._selector.close()
            ours.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return request, theirs
        theirs.close()
        for descriptor in request.descriptors:
            os.close(descriptor)
        process = os.pidfd_open(pid)
        socket.send_fds(channel, [b"started"], [process])
        self._selector.register(process, selectors.EVENT_READ, (pid, bool(request.module)))
        self._selector.register(ours, selectors.EVENT_READ)
        return None

    def _reap(self, process: int, pid: int, is_run: bool) -> None:
        self._selector.unregister(process)
        os.close(process)
        _pid, status = os.waitpid(pid, 0)
        if is_run:
            self._channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(request: Request, channel: socket.socket) -> None:
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
    if not request.module:
        channel.close()
        sys.argv, sys.orig_argv = ["-c"], [sys.executable, "-u", "-c", *request.arguments]
        sys.modules["__main__"] = program = ModuleType("__main__")
        exec(request.arguments[0], vars(program))
        return
    fork_workers(channel, [*{"net", "mnt", *request.namespaces}])
    sys.argv = ["-m", *request.arguments]
    sys.orig_argv = [sys.executable, request.option, "-m", request.module, *request.arguments]
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def fork_workers(channel: socket.socket, kinds: list[str]) -> None:
    """Let the workers of pytest-xdist be forked by the server as well, in this process' namespaces of these kinds."""
    from execnet import gateway_io
    from execnet.gateway_base import Popen2IO

    # execnet starts a worker by this class.
    class ForkedWorker(gateway_io.Popen2IOMaster):
        def __init__(self, args: list[str], execmodel: Any) -> None:
            assert args[:3] == [sys.executable, "-u", "-c"], args
            (read_stdin, stdin), (stdout, write_stdout) = os.pipe(), os.pipe()
            namespaces = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in kinds]
            given = [read_stdin, write_stdout, 2, *namespaces]
            self._process = Request("-u", "", args[3:], dict(os.environ), os.getcwd(), kinds, given).send(channel)
            for descriptor in (read_stdin, write_stdout, *namespaces):
                os.close(descriptor)
            Popen2IO.__init__(self, os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb"), execmodel=execmodel)

        def wait(self) -> None:
            select.select([self._process], [], [])

        def kill(self) -> None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    gateway_io.Popen2IOMaster = ForkedWorker  # type: ignore[misc]


if __name__ == "__main__":
    main()
