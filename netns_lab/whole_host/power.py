"""The power of a whole host: its disk, its network cards, and the namespaces that it runs in from boot to boot."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from netns_lab import cgroups
from netns_lab.whole_host.first_process import ENGINE_FOLDERS, FIRST_PROCESS, LAYERS, READY, START
from netns_lab.whole_host.root_files import RootFile
from netns_lab.whole_host.unit_states import unfinished_jobs
from viacheck.host import syscalls
from viacheck.host.command import TIMED_OUT
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import PATH, child_of, read_line

ROOTS_ENVIRONMENT = {"PATH": f"/usr/local/sbin:/usr/local/bin:{PATH}", "HOME": "/root"}
"""The environment of root's shell on Debian, as far as commands need it."""
NSENTER = "/usr/bin/nsenter"
SYSTEMDS_SOCKET = "/run/systemd/private"
"""Where systemd listens for systemctl, from an early moment of the boot on."""
REBOOTS, POWERS_OFF = -signal.SIGHUP, -signal.SIGINT
"""The signals that end unshare(1) when init has called reboot(2) in its process namespace (pid_namespaces(7))."""
IS_RUNNING = ("systemctl", "is-system-running")
BOOTED = ("running", "degraded")
"""The states of systemd after the boot, without and with units that failed."""
STARTED_WITHIN = 60.0
BOOTED_WITHIN = 120.0
OFF_WITHIN = 120.0
ENDED_WITHIN = 20.0
INOTIFY_INSTANCES, INOTIFY_WITHIN = 12, 30.0
"""Inotify instances of a host that boots, and the seconds to wait until other hosts have ended that hold them. Where
systemd, udevd or D-Bus gets none, the boot is degraded or never ends."""
LOOK_AGAIN_AFTER = 0.002
"""Seconds between two looks for systemd's socket; to ask systemctl each time would take a good part of the boot."""
ASK_AGAIN_AFTER, ASK_AGAIN_WITHIN = 0.02, 10.0
"""Seconds from an answer about the boot to the next question, and from a question without an answer."""


WRITTEN_BY_THE_WAY = ("/var/log/", "/var/lib/NetworkManager/")
"""Folders of files that decide nothing at a boot: NetworkManager writes down when its profiles were last active."""
DOCKERS_CONTAINERS = "containers/*/hostconfig.json"
"""Docker's files with the restart policy of each container, below its folder. It writes them again when it starts."""


class WholeHostFailed(Exception):
    """The host did not boot, or did not end; the message says how far it came."""


class WholeHost:
    """A host's disk and power. Everything of it ends when it is closed, and with this process, SIGKILL included.

    Attributes:
        host: where the host runs: each boot gives this object other namespaces.
        base: the root that the disk's files lie over.
    """

    def __init__(self, host: Namespace, base: Path, files: Mapping[str, RootFile]) -> None:
        """Write the host's files on a disk of its own, over the base root.

        Args:
            host: a network namespace with the host's network cards in it.
            base: the root that the disk's files lie over, never written to.
            files: the files by absolute path.

        Raises:
            OSError: the system forbids it.
        """
        self.host, self.base = host, base
        self._process: subprocess.Popen[bytes] | None = None
        self._shortage = ""
        # The same number from boot to boot, so that paths by it stay true.
        self._root_fd = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
        self._disk = Namespace.create("disk", lambda: _make_disk(base, files))
        self._lab_cgroup = cgroups.LabCgroup()
        self._cgroup = f"{cgroups.unified_hierarchy()}/{self._lab_cgroup.name}"
        os.mkdir(self._cgroup)

    @property
    def init(self) -> int:
        """The host's first process, as this process sees it."""
        assert self._process is not None
        return child_of(self._process.pid)

    @property
    def root(self) -> str:
        """The host's file system, as this process sees it; the same path from boot to boot."""
        return f"/proc/{os.getpid()}/fd/{self._root_fd}"

    def power_on(self) -> None:
        """Start init; return when it runs.

        Raises:
            WholeHostFailed: it does not.
        """
        self._shortage = _wait_for_inotify()
        disk = f"/proc/{os.getpid()}/fd/{self._disk.mount_fd}"
        # unshare ends with the thread that started it, which is the namespace's worker, and init with unshare.
        argv = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--mount={disk}", "sh", "-ec", START, "sh", self._cgroup]
        argv += [FIRST_PROCESS, LAYERS]
        self._process = self.host.call(
            lambda: subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
            )
        )
        output = read_line(self._process, STARTED_WITHIN)
        if output != READY:
            self._end()
            raise WholeHostFailed(f"init was not started: {output.decode(errors='replace').strip() or 'no answer'}")
        init = self.init
        self._set_root(f"/proc/{init}/root")
        self.host.enter_copy_of_mounts(f"/proc/{init}/ns/mnt", _show_machines_processes)
        self.host.prefix = (NSENTER, "--target", str(init), "--mount", "--uts", "--ipc", "--pid", "--cgroup")
        self.host.skips_prefix = _reads_the_network
        # What this process has in its environment may break the host's own programs.
        self.host.environment = ROOTS_ENVIRONMENT

    def has_booted(self) -> bool:
        """Return whether every job of the boot is done."""
        return self.host.run(IS_RUNNING).stdout.strip() in BOOTED

    def wait_until_booted(self) -> str:
        """Return systemd's state once every job of the boot is done: ``running``, or ``degraded``.

        Raises:
            WholeHostFailed: the boot takes more than :data:`BOOTED_WITHIN`.
        """
        deadline = time.monotonic() + BOOTED_WITHIN
        while not os.path.exists(f"{self.root}{SYSTEMDS_SOCKET}") and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN_AFTER)
        while True:
            # It waits without end where it misses the signal, and fails at once while systemd reads its units.
            answer = self.host.run([*IS_RUNNING, "--wait"], ASK_AGAIN_WITHIN)
            if answer.exit_code == TIMED_OUT:
                answer = self.host.run(IS_RUNNING)
            state = answer.stdout.strip()
            if state in BOOTED:
                return state
            if time.monotonic() > deadline:
                raise WholeHostFailed(
                    f"the boot is not complete after {BOOTED_WITHIN:g} s: {unfinished_jobs(self.host)}{self._shortage}"
                )
            time.sleep(ASK_AGAIN_AFTER)

    def files_on_disk(self) -> dict[str, str]:
        """Return a digest of each file on the disk that no package has brought, by path, but not of logs and the like.

        A file of a package that was removed is one of them.
        """
        return self._disk.call(_digests_of_disk)

    def goes_down(self) -> bool:
        """Return whether the host is off, or shutting down."""
        assert self._process is not None
        if self._process.poll() is not None:
            return True
        return self.host.run(IS_RUNNING).stdout.strip() in ("stopping", "")

    def wait_until_off(self) -> bool:
        """Return when the last process of the host has ended: True if it asked to be powered on again.

        Raises:
            WholeHostFailed: it does not end within :data:`OFF_WITHIN`, or was killed.
        """
        assert self._process is not None
        try:
            code = self._process.wait(OFF_WITHIN)
        except subprocess.TimeoutExpired:
            raise WholeHostFailed(f"it has not shut down within {OFF_WITHIN:g} s") from None
        self.host.prefix, self.host.environment = (), None
        self._set_root(os.devnull)
        if code not in (REBOOTS, POWERS_OFF):
            raise WholeHostFailed(f"its init ended with exit code {code}")
        return code == REBOOTS

    def close(self) -> None:
        """End every process of the host at once, and with them its disk and its cgroup; ``host`` stays open."""
        self._end()
        os.close(self._root_fd)
        self._disk.close()
        self._lab_cgroup.remove()

    def _set_root(self, path: str) -> None:
        root = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            os.dup2(root, self._root_fd, inheritable=False)
        finally:
            os.close(root)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(ENDED_WITHIN)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


def _reads_the_network(argv: Sequence[str]) -> bool:
    """Return whether a command asks the kernel about the network alone: the namespaces of the worker do for it.

    An event and the state after it take hundreds of such commands, and nsenter(1) takes as long as each of them.
    """
    return (argv[0] == "ip" and "show" in argv) or argv[0].endswith("tables-nft-save")


def _wait_for_inotify() -> str:
    """Wait until the user may have as many inotify instances more as a host needs.

    Return the shortage as text if it lasts; the host may boot all the same. Return no text without a shortage.
    """
    deadline = time.monotonic() + INOTIFY_WITHIN
    while True:
        with contextlib.ExitStack() as instances:
            try:
                for _ in range(INOTIFY_INSTANCES):
                    instances.callback(os.close, syscalls.inotify_init())
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                failure = error.strerror
            else:
                return ""
        if time.monotonic() > deadline:
            return (
                f"; this machine had no {INOTIFY_INSTANCES} inotify instances left for it ({failure}): raise its "
                "fs.inotify.max_user_instances, or run fewer whole hosts at once"
            )
        time.sleep(ASK_AGAIN_AFTER)


def _make_disk(base: Path, files: Mapping[str, RootFile]) -> None:
    """Make the layers of the host's root on a tmpfs of this mount namespace; no path of the machine has it."""
    root = os.open(base, os.O_PATH | os.O_DIRECTORY)
    try:
        syscalls.mount("tmpfs", LAYERS, "tmpfs", options="mode=755")
        for name in ("base", "upper", "work", "root", *ENGINE_FOLDERS):
            os.mkdir(f"{LAYERS}/{name}")
        syscalls.mount(f"/proc/self/fd/{root}", f"{LAYERS}/base", flags=syscalls.MS_BIND)
    finally:
        os.close(root)
    for path, file in files.items():
        file.write(Path(f"{LAYERS}/upper{path}"))


def _digests_of_disk() -> dict[str, str]:
    upper, engine = Path(LAYERS, "upper"), Path(LAYERS, "docker")
    paths = {f"/{path.relative_to(upper)}": path for path in upper.rglob("*")}
    digests = {
        name: _digest(path)
        for name, path in paths.items()
        if not name.startswith(WRITTEN_BY_THE_WAY) and (path.is_symlink() or not path.is_dir())
    }
    for path in engine.glob(DOCKERS_CONTAINERS):
        digests[f"/var/lib/docker/{path.relative_to(engine)}"] = str(json.loads(path.read_bytes())["RestartPolicy"])
    return digests


def _digest(path: Path) -> str:
    """Return a digest of a file's mode and content, which may hold a secret."""
    status = path.lstat()
    content = b""
    if stat.S_ISLNK(status.st_mode):
        content = os.fsencode(os.readlink(path))
    elif stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
    return hashlib.sha256(b"%o " % status.st_mode + content).hexdigest()


def _show_machines_processes() -> None:
    """Mount a /proc that knows this process: in the host's own it has no number, so /proc/thread-self is missing."""
    syscalls.mount("proc", "/proc", "proc")
