"""Runs a viacheck command line in a child of the fork server, where that gives the same as a new Python."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers import fork_server
from tests.helpers.fork_server import Request

STARTS = {("-P", "pytest"), ("-I", "viacheck.cli.main")}
"""How Python is started for a run: its option, and the module."""
INSIDE = re.compile(r"nsenter(?: --target (\d+))?((?: --(?:net|mount|pid)(?:=[\w/]+)?)+)")
"""The words with which the hosts of the tests are entered."""
KINDS = {"--net": "net", "--mount": "mnt", "--pid": "pid"}
"""Options of nsenter(1), and the names of the namespaces in /proc."""
READ_LATE = {
    "COLUMNS", "DOCKER_HOST", "NO_COLOR", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_TESTRUNUID", "PYTEST_XDIST_WORKER",
    "PYTEST_XDIST_WORKER_COUNT", "SSH_CONNECTION", "TERM",
}  # fmt: skip
"""Variables that are not read before a run has begun: neither by an import, nor when Python or the C library starts."""
ENVIRONMENT = dict(os.environ)
"""Of this process before any test has changed it."""
READY = 16
"""Octets of the longest message of the server."""
ENDS_WITHIN = 60.0
"""Seconds that a server may need to end on a busy machine."""


@dataclass(frozen=True)
class PythonRun:
    """A command line that starts a module in Python, on this host or inside a host made by hand."""

    option: str
    module: str
    arguments: list[str]
    namespaces: dict[str, str] = field(default_factory=dict)
    """Paths of the namespaces to enter, by kind."""

    @classmethod
    def of(cls, argv: Sequence[str]) -> PythonRun | None:
        """Return the run that a command line starts; None for any other command line."""
        place = list(argv).index(sys.executable) if sys.executable in argv else len(argv)
        inside = INSIDE.fullmatch(shlex.join(argv[:place]))
        if (place and not inside) or len(argv) < place + 4:
            return None
        option, minus_m, module, *arguments = argv[place + 1 :]
        if (option, module) not in STARTS or minus_m != "-m":
            return None
        namespaces: dict[str, str] = {}
        target, words = inside.groups() if inside else ("", "")
        for word in words.split():
            kind = KINDS[word.partition("=")[0]]
            namespaces[kind] = word.partition("=")[2] or f"/proc/{target}/ns/{kind}"
        return cls(option, module, arguments, namespaces)


class ServerProcesses:
    """Server processes that share one import; each ends when no process holds the other end of its socket."""

    def __init__(self, count: int) -> None:
        """Start them; they import everything meanwhile."""
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
        self.channels = [ours for ours, _theirs in pairs]
        numbers = [theirs.fileno() for _ours, theirs in pairs]
        self._first = subprocess.Popen(
            [sys.executable, "-P", fork_server.__file__, *map(str, numbers)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=numbers, cwd="/", env=ENVIRONMENT,
        )  # fmt: skip
        for _ours, theirs in pairs:
            theirs.close()

    def close(self) -> None:
        """Close this process' ends, and wait for the first server's end."""
        for channel in self.channels:
            channel.close()
        self._first.wait(ENDS_WITHIN)


class ForkServer:
    """The other end of a server process, which serves one request after another."""

    def __init__(self, channel: socket.socket) -> None:
        """Wait until the server has imported everything."""
        self._busy = threading.Lock()
        self._channel = channel
        assert self._channel.recv(READY) == b"ready", "the fork server did not start"

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Return whether a new Python with this environment would import the same."""
        return {name for name, _value in ENVIRONMENT.items() ^ environment.items()} <= READ_LATE

    def run(
        self, run: PythonRun, environment: Mapping[str, str], cwd: Path | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run it as ``subprocess.run`` does, with both streams captured as text."""
        with self._busy, contextlib.ExitStack() as closing:
            (stdout, write_stdout), (stderr, write_stderr) = os.pipe(), os.pipe()
            closing.callback(os.close, stdout)
            closing.callback(os.close, stderr)
            with contextlib.ExitStack() as given:
                # nsenter(1) goes to the root folder of the namespace that it enters.
                folder = "/" if run.namespaces else os.path.abspath(cwd or os.getcwd())
                namespaces = [os.open(path, os.O_RDONLY) for path in run.namespaces.values()]
                descriptors = [write_stdout, write_stderr, *namespaces]
                for descriptor in descriptors:
                    given.callback(os.close, descriptor)
                process = Request(
                    run.option, run.module, run.arguments, dict(environment), folder, list(run.namespaces),
                    [0, *descriptors],
                ).send(self._channel)  # fmt: skip
            closing.callback(os.close, process)
            try:
                texts = _read(stdout, stderr, timeout=timeout)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                raise
            finally:
                status = int(self._channel.recv(READY))
        return subprocess.CompletedProcess([run.module, *run.arguments], status, *texts)


def _read(*pipes: int, timeout: float) -> list[str]:
    """Read all pipes to their ends."""
    deadline = time.monotonic() + timeout
    octets = {pipe: bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired("a forked run", timeout)
            for key, _events in ready:
                chunk = os.read(key.fd, 1 << 16)
                octets[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
    # As text streams do.
    return [octets[pipe].decode().replace("\r\n", "\n").replace("\r", "\n") for pipe in pipes]


_of_workers: list[ServerProcesses] = []
"""Started for the workers of pytest-xdist that are forked from this process, or that this process was forked with."""
_own: list[ServerProcesses] = []
"""Started by this process for itself."""
_starting = threading.Lock()
"""Held while the server is looked up or started."""


def start_servers(count: int) -> None:
    """Start the servers of workers that will be forked from this process."""
    _of_workers.append(ServerProcesses(count))


def server() -> ForkServer:
    """Return this process' server: that of a forked worker of pytest-xdist, or one that is started at the first use."""
    # functools.cache calls the function once for each thread that asks before the first answer is there.
    with _starting:
        return _server()


@functools.cache
def _server() -> ForkServer:
    if _of_workers:
        worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        return ForkServer(_of_workers[0].channels[worker])
    _own.append(ServerProcesses(1))
    return ForkServer(_own[0].channels[0])


def end_servers() -> None:
    """End the servers that this process started."""
    in_worker = "PYTEST_XDIST_WORKER" in os.environ
    for processes in _own if in_worker else [*_own, *_of_workers]:
        processes.close()
    _server.cache_clear()
    _own.clear()
    _of_workers.clear()


def run_python(
    argv: Sequence[str], *, cwd: Path | None, env: Mapping[str, str] | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command line with both streams captured; in a forked child where that makes no difference."""
    environment = {**os.environ, **(env or {})}
    run = PythonRun.of(argv)
    if run is not None and server().serves(environment):
        return server().run(run, environment, cwd, timeout)
    return run_anew(argv, cwd=cwd, env=env, timeout=timeout)


def run_anew(
    argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run a command line with both streams captured, in a new process."""
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, cwd=cwd, timeout=timeout, env={**os.environ, **(env or {})}
    )
