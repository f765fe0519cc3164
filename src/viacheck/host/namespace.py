"""A network namespace in which this process can act without leaving its own.

setns(2) is per thread, so that each namespace has a worker thread that lives inside it. Sockets that the worker opens
keep the namespace wherever they are used, and commands that it starts run there. The main thread never moves.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from viacheck.host import outer_host, syscalls
from viacheck.host.command import NOT_FOUND, CommandResult, RecordedCommand, finish, memory_file, start
from viacheck.user_file import handle_of, opened, special_kind

T = TypeVar("T")
COMMAND_TIMEOUT = 30.0
NS_GET_NSTYPE = 0xB703
"""ioctl_ns(2)"""


class NotANamespace(Exception):
    """The path does not name a network namespace; the message has the path and the reason."""


class Namespace:
    """A network namespace, and the mount namespace that belongs to it if it has one.

    In viacheck's container the others have the mount namespace of the host around it.
    """

    def __init__(self, name: str, net_fd: int, mount_fd: int | None = None) -> None:
        """Take over the descriptors; ``name`` is the namespace's name in messages."""
        self.name = name
        self.net_fd = net_fd
        self.mount_fd = mount_fd
        self.prefix: tuple[str, ...] = ()
        """The command that takes each command into further namespaces, which no thread of this process can enter."""
        self.skips_prefix: Callable[[Sequence[str]], bool] = _never
        """Returns whether a command does not need those further namespaces."""
        self.environment: Mapping[str, str] | None = None
        """The environment of each command; None for this process's, which may break programs of another root."""
        self.recorder: list[RecordedCommand] | None = None
        """The list to which every command that runs here is added; None while none is kept."""
        self._worker: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    @classmethod
    def current(cls, name: str = "host") -> Namespace:
        """Return the namespace that this process was started in; in viacheck's container that of the host around it."""
        if outer_host.in_container():
            return cls.from_path("/proc/1/ns/net", name)
        namespace = cls(name, os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        # The worker is inside already: setns(2) needs CAP_SYS_ADMIN even where it changes nothing.
        namespace._worker = ThreadPoolExecutor(1, thread_name_prefix=f"ns-{name}")
        return namespace

    @classmethod
    def from_path(cls, path: str, name: str = "agent") -> Namespace:
        """Return the network namespace behind a path such as /proc/123/ns/net or /run/netns/x.

        Raises:
            NotANamespace: when the path cannot be opened or does not name a network namespace.
        """
        return cls(name, open_netns(path))

    @classmethod
    def create(cls, name: str, prepare: Callable[[], None] | None = None) -> Namespace:
        """Create an anonymous network namespace, and with ``prepare`` a mount namespace in which ``prepare`` runs.

        Neither has a name on the system, so that both end with this process, also at SIGKILL.

        Raises:
            OSError: when the system forbids it.
        """
        return cls.begin_create(name, prepare)()

    @classmethod
    def begin_create(cls, name: str, prepare: Callable[[], None] | None = None) -> Callable[[], Namespace]:
        """Begin what ``create`` does; the returned function waits for the namespace, and raises what ``create`` raises.

        The kernel creates several namespaces beside each other.
        """
        worker = ThreadPoolExecutor(1, thread_name_prefix=f"ns-{name}")
        entered = worker.submit(cls.move_into_new, name, prepare)

        def created() -> Namespace:
            try:
                namespace = entered.result()
            except BaseException:
                worker.shutdown()
                raise
            namespace._worker = worker
            return namespace

        return created

    @classmethod
    def move_into_new(cls, name: str, prepare: Callable[[], None] | None = None) -> Namespace:
        """Move the calling thread into the namespaces that ``create`` makes, and return them.

        Their own worker starts when it is needed first.

        Raises:
            OSError: when the system forbids it.
        """
        _enter_mounts(outer_host.mounts())
        syscalls.unshare(syscalls.CLONE_NEWNET | (syscalls.CLONE_FS | syscalls.CLONE_NEWNS if prepare else 0))
        net_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if prepare is None:
            return cls(name, net_fd)
        try:
            syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
            prepare()
            return cls(name, net_fd, os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        except BaseException:
            os.close(net_fd)
            raise

    def _enter(self) -> None:
        syscalls.setns(self.net_fd, syscalls.CLONE_NEWNET)
        _enter_mounts(self.mount_fd if self.mount_fd is not None else outer_host.mounts())

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Queue a function for the worker, which runs it inside the namespace."""
        with self._lock:
            if self._worker is None:
                worker = ThreadPoolExecutor(1, thread_name_prefix=f"ns-{self.name}")
                worker.submit(self._enter).result()
                self._worker = worker
            return self._worker.submit(function)

    def call(self, function: Callable[[], T]) -> T:
        """Run a short function inside the namespace and return what it returns.

        Raises:
            OSError: when the namespace cannot be entered (EPERM without CAP_SYS_ADMIN).
        """
        return self.submit(function).result()

    def run(
        self,
        argv: Sequence[str],
        timeout: float = COMMAND_TIMEOUT,
        *,
        stdin: str | None = None,
        kept: Callable[[str], str] | None = None,
        large: bool = False,
    ) -> CommandResult:
        """Run a command inside the namespace. A command that does not exist has the exit code 127.

        Args:
            argv: the command.
            timeout: seconds after which the command is killed.
            stdin: the text of standard input, which is empty without it.
            kept: returns the part of the output that may be kept. Standard error, which may quote a secret, is dropped.
            large: the output may be large, and goes to a file in memory: to read 12 MB from a pipe takes 0.15 s of CPU
                time. What a process writes that the command leaves behind is not read.
        """
        return self.begin(argv, timeout, stdin=stdin, kept=kept, large=large)()

    def begin(
        self,
        argv: Sequence[str],
        timeout: float = COMMAND_TIMEOUT,
        *,
        stdin: str | None = None,
        kept: Callable[[str], str] | None = None,
        large: bool = False,
    ) -> Callable[[], CommandResult]:
        """Start what ``run`` runs, with the same arguments; the returned function, called once, waits for its end."""
        command = argv if self.skips_prefix(argv) else (*self.prefix, *argv)
        output = memory_file() if large else None
        process: subprocess.Popen[bytes] | None = None
        failed: CommandResult | None = None
        try:
            process = self.call(
                lambda: start(command, with_input=stdin is not None, output=output, environment=self.environment)
            )
        except FileNotFoundError as error:
            failed = CommandResult(tuple(argv), NOT_FOUND, "", f"{error.filename}: {error.strerror}")
        finally:
            if process is None and output is not None:
                os.close(output)

        def ended() -> CommandResult:
            result = failed
            if process is not None:
                try:
                    result = finish(argv, process, timeout, stdin, output)
                finally:
                    if output is not None:
                        os.close(output)
            assert result is not None
            if kept is not None:
                result = replace(result, stdout=kept(result.stdout), stderr="")
            if self.recorder is not None:
                now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
                self.recorder.append(RecordedCommand(self.name, now, result))
            return result

        return ended

    def enter_copy_of_mounts(self, path: str, prepare: Callable[[], None]) -> None:
        """Move into a copy of another mount namespace, in which ``prepare`` runs; what is mounted there later shows.

        Args:
            path: the other mount namespace, such as /proc/123/ns/mnt.
            prepare: mounts that only the copy has.

        Raises:
            OSError: when the system forbids it.
        """

        def enter() -> int:
            other = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.unshare(syscalls.CLONE_FS)
                syscalls.setns(other, syscalls.CLONE_NEWNS)
            finally:
                os.close(other)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
            prepare()
            return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

        previous, self.mount_fd = self.mount_fd, self.call(enter)
        if previous is not None:
            os.close(previous)

    def become(self, other: Namespace) -> None:
        """Take another namespace's place, which must not be used further: a host that boots again is in a new one."""
        self.close()
        self.net_fd, self.mount_fd, self._worker = other.net_fd, other.mount_fd, other._worker
        self.prefix, self.environment, self.skips_prefix = other.prefix, other.environment, other.skips_prefix

    def close(self) -> None:
        """Release the namespace; an anonymous namespace ends when nothing else holds it."""
        if self._worker is not None:
            self._worker.shutdown()
            self._worker = None
        for fd in (self.net_fd, self.mount_fd):
            if fd is not None:
                os.close(fd)
        self.mount_fd = None

    @property
    def path(self) -> str:
        """Return a path to the network namespace that nsenter(1) and pyroute2 accept while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.net_fd}"


def _never(_argv: Sequence[str]) -> bool:
    return False


def _enter_mounts(mount_fd: int | None) -> None:
    """Move the calling thread into a mount namespace; None leaves it where it is."""
    if mount_fd is not None:
        syscalls.unshare(syscalls.CLONE_FS)
        syscalls.setns(mount_fd, syscalls.CLONE_NEWNS)


def open_netns(path: str) -> int:
    """Open a path that must be a network namespace; a FIFO is not waited for.

    Raises:
        NotANamespace: when it cannot be opened, or is not a network namespace.
    """
    try:
        handle = handle_of(path)
        try:
            # The file of a namespace is regular (nsfs); any other may have an effect when it is opened.
            fd = opened(handle, path) if special_kind(os.fstat(handle)) is None else None
        finally:
            os.close(handle)
    except OSError as error:
        raise NotANamespace(f"{path}: {error.strerror}") from None
    if fd is None:
        raise NotANamespace(f"{path}: is not a network namespace")
    if not _is_net_namespace(fd):
        os.close(fd)
        raise NotANamespace(f"{path}: is not a network namespace")
    return fd


def _is_net_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == syscalls.CLONE_NEWNET
    except OSError:
        return False
