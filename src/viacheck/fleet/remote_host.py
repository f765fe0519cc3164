"""Runs a script on one remote host over one connection of the user's own OpenSSH, and brings back what it made.

OpenSSH brings its configuration, known hosts, jump hosts, agents and keys; its own messages say why a host was not
reached. The host sends its result, or its bundle, on standard output. What comes from the host is data: it is bounded,
validated, and never part of a command.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from viacheck.bundle.script_file import collect_script
from viacheck.fleet.inventory import FleetHost
from viacheck.model.result import RunResult
from viacheck.model.saved_result import ResultRefused, read_result

JUDGE_SCRIPT = Path(__file__).with_name("remote.sh")
COLLECT_SCRIPT = Path(__file__).with_name("remote_collect.sh")
LARGEST_RESULT, LARGEST_BUNDLE = 64 << 20, 128 << 20
"""Bytes of what a host sends."""
LARGEST_GREETING = 1 << 16
"""Bytes that a host may print before the script speaks, as a shell's start-up file does."""
STDERR_KEPT = 4_000
LARGEST_STDERR = 16 << 20
"""Bytes that a host may print on standard error; then its connection is ended."""
STDERR_DRAINED = 2.0
"""Seconds for what ssh printed before it ended. A helper of it, which holds the pipe, may live on."""
TERMINATION_SECONDS = 1.0
"""How long a process has after SIGTERM; then it is killed."""
CONNECT_TIMEOUT = 15
"""Seconds until OpenSSH gives up to connect, the server's greeting included."""
INTERRUPTED = "interrupted while this host was judged"
_MARK = b"viacheck-fleet "
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec "$@"; fi; exec sudo -n -- "$@"'
_AS_ROOT_BY_PASSWORD = (
    'IFS= read -r password; if [ "$(id -u)" = 0 ]; then exec "$@"; fi; '
    'printf "%s\\n" "$password" | sudo -S -p "" -v || exit 1; sudo -n -- "$@"'
)
"""Standard input begins with the password. sudo gets that one line: after a wrong password it would read another, which
never comes. printf is part of the shell, so that the password is in no argument list."""


class HostNotJudged(Exception):
    """A host has no result. ``words`` are the lines of OpenSSH, sudo or the host; the first line says the most."""

    def __init__(self, *words: str) -> None:
        super().__init__(*words)
        self.words = list(words)


class RemoteJob(Protocol):
    """What is run on each host."""

    @property
    def seconds(self) -> float:
        """How long a host may take, connection and transfer included."""

    @property
    def packed(self) -> bytes:
        """The file that is sent where the script asks for it."""

    @property
    def largest(self) -> int:
        """Bytes that the host may send."""

    def script(self) -> list[str]:
        """Return the text of the script, its name and its arguments, as ``sh -c`` takes them."""


class HostNotReached(HostNotJudged):
    """The run was interrupted before the host's turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteProgram:
    """viacheck itself, which judges the host where it is."""

    packed: bytes
    """The content of viacheck.pyz."""
    digest: str
    options: tuple[str, ...] = ()
    """Options of the run."""
    seconds: float = 300.0
    largest: int = LARGEST_RESULT

    def script(self) -> list[str]:
        """Return the script that judges the host."""
        limit = _limit_on_host(self.seconds)
        return [_text(JUDGE_SCRIPT), "viacheck-fleet", self.digest, str(len(self.packed)), limit, *self.options]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCollection:
    """The script of ``viacheck collect-script``, which writes a bundle of the host and needs no Python."""

    seconds: float = 300.0
    largest: int = LARGEST_BUNDLE
    packed: bytes = field(default_factory=lambda: collect_script().encode())

    def script(self) -> list[str]:
        """Return the script that runs it."""
        return [_text(COLLECT_SCRIPT), "viacheck-fleet", str(len(self.packed)), _limit_on_host(self.seconds)]


@dataclass(slots=True)
class SSHConnections:
    """The connections of a fleet run: how they are opened, and all that are open."""

    ssh_config: Path | None = None
    """The file of ``ssh -F``; None for the user's own."""
    become_password: str | None = None
    """The password for sudo; None where sudo asks for none."""
    _open: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def argv(self, host: FleetHost, command: str) -> list[str]:
        """Return the command line of ssh."""
        return [
            "ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}",
            "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
            *(["-F", str(self.ssh_config)] if self.ssh_config is not None else []),
            *(["-p", str(host.port)] if host.port is not None else []),
            *(["-l", host.user] if host.user is not None else []),
            *(["-i", host.key_file] if host.key_file is not None else []),
            "--", host.address, command,
        ]  # fmt: skip

    def stop(self) -> None:
        """End every connection, and open no other."""
        self.stopped.set()
        with self._lock:
            for process in self._open:
                _end(process)

    @contextlib.contextmanager
    def opened(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Note an open connection for the time of a block, and end it after that."""
        with self._lock:
            self._open.add(process)
        try:
            if self.stopped.is_set():
                _end(process)
            yield
        finally:
            _end(process)
            process.wait()
            with self._lock:
                self._open.discard(process)


def judge(host: FleetHost, site: str, program: RemoteProgram, connections: SSHConnections) -> RunResult:
    """Judge a host with its site file, and return its result as the host wrote it.

    Raises:
        HostNotJudged: the host sent nothing, or something that is no result.
    """
    return result_of(answer_of(host, site, program, connections))


def answer_of(host: FleetHost, site: str, job: RemoteJob, connections: SSHConnections) -> bytes:
    """Run a script on a host, which gets the site file, and return what it sends.

    Raises:
        HostNotReached: the run was interrupted before.
        HostNotJudged: the host sent nothing.
    """
    if connections.stopped.is_set():
        raise HostNotReached("interrupted before this host was reached")
    password = connections.become_password
    process = subprocess.Popen(
        connections.argv(host, _remote_command(job, by_password=password is not None)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    stderr = _StandardError(process)
    late = threading.Event()
    timer = threading.Timer(job.seconds, _end_late, [process, late])
    timer.start()
    try:
        with connections.opened(process):
            status, sent = _converse(process, site, job, password)
            process.wait()
    finally:
        timer.cancel()
    words = stderr.words()
    if connections.stopped.is_set() and not sent:
        raise HostNotJudged(INTERRUPTED, *words)
    if stderr.too_much:
        raise HostNotJudged(f"the host printed more than {LARGEST_STDERR >> 20} MiB on standard error")
    if late.is_set():
        raise HostNotJudged(f"no result within {job.seconds:g} s", *words)
    if not sent:
        fallback = f"the host ended with status {status or process.returncode} and sent no result"
        raise HostNotJudged(*(words or [fallback]))
    return sent


def _remote_command(job: RemoteJob, *, by_password: bool) -> str:
    """Return the command for the remote user's shell."""
    as_root = _AS_ROOT_BY_PASSWORD if by_password else _AS_ROOT
    return shlex.join(["exec", "sh", "-c", as_root, "sh", "sh", "-c", *job.script()])


def _limit_on_host(seconds: float) -> str:
    """Return the seconds after which the host itself ends the work, a moment before the connection is ended."""
    return str(max(int(seconds) - 5, 1))


def _text(script: Path) -> str:
    return script.read_text(encoding="utf-8")


def _converse(process: subprocess.Popen[bytes], site: str, job: RemoteJob, password: str | None) -> tuple[str, bytes]:
    """Send what the host needs, and return the status and the result that it sends; empty when it sends none."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if password is not None:
            process.stdin.write(f"{password}\n".encode())
            process.stdin.flush()
        answer = _marked_line(process.stdout)
        if not answer:
            return "", b""
        if answer == "need":
            process.stdin.write(job.packed)
        process.stdin.write(site.encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # the host's own words say why it ended
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
    status = _marked_line(process.stdout).removeprefix("status ")
    sent = process.stdout.read(job.largest + 1)
    if len(sent) > job.largest:
        raise HostNotJudged(f"the host sent more than {job.largest >> 20} MiB")
    return status, sent


def _marked_line(stream: IO[bytes]) -> str:
    """Return the next line of the script without its mark; empty at the stream's end, or when others print too much."""
    allowance = LARGEST_GREETING
    while allowance > 0:
        line = stream.readline(allowance)
        if not line:
            return ""
        if line.startswith(_MARK):
            return line[len(_MARK) :].decode(errors="replace").strip()
        allowance -= len(line)
    return ""


def result_of(sent: bytes) -> RunResult:
    """Return the result of a host.

    Raises:
        HostNotJudged: it is no result.
    """
    try:
        return read_result(sent)
    except ResultRefused as error:
        raise HostNotJudged(f"the host sent no result of viacheck.result/1: {error}") from None


class _StandardError:
    """Reads what ssh and the host print on standard error beside the conversation, and keeps the end of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.too_much = False
        self._process, self._kept = process, b""
        self._thread = threading.Thread(target=self._read, name="stderr", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            size = 0
            while octets := os.read(stream.fileno(), 1 << 16):
                size += len(octets)
                self._kept = (self._kept + octets)[-STDERR_KEPT:]
                if size > LARGEST_STDERR:
                    self.too_much = True
                    _end(self._process)
                    break

    def words(self) -> list[str]:
        """Return the last lines, the last line first: it says why a program ended."""
        self._thread.join(STDERR_DRAINED)
        lines = [line.strip() for line in self._kept.decode(errors="replace").splitlines()]
        lines = [line for line in lines if line]
        return [lines[-1], *lines[:-1]] if lines else []


def _end_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    """End ssh at the host's time limit, and note that it is the limit that ends it."""
    late.set()
    _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End ssh with its helpers (a ProxyCommand); it is the leader of their session. A process that stays is killed."""
    _signal(process, signal.SIGTERM)
    if process.poll() is None:
        kill = threading.Timer(TERMINATION_SECONDS, _signal, [process, signal.SIGKILL])
        kill.daemon = True
        kill.start()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
