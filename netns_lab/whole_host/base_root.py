"""The base root of a release: a small Debian that mmdebstrap makes once, and that every whole host is an overlay on.

It lies in the user's cache, named by its release and a digest of everything that decides its content. It is built aside
and renamed when it is whole, under a lock, so that no run ever sees half a root.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from netns_lab.whole_host.apt_sources import sources_for, transport_settings
from viacheck.private_folder import make_private_folder

RELEASES = ("bookworm", "trixie", "forky")
DEFAULT_RELEASE = RELEASES[0]
PACKAGES = (
    "busybox-static", "dbus", "docker.io", "ifupdown", "iproute2", "mount", "netplan.io", "network-manager",
    "nftables", "patch", "procps", "systemd", "systemd-sysv", "udev",
)  # fmt: skip
OF_RELEASE = {
    "bookworm": (),
    "trixie": (
        "docker-cli", "aardvark-dns", "catatonit", "crun", "netavark", "passt", "podman", "slirp4netns", "ufw",
        "uidmap",
    ),
    "forky": ("docker-cli", "firewalld", "iptables-persistent"),
}  # fmt: skip
"""More packages of a release: the command docker, which bookworm has in docker.io, podman 5 with its networks, and the
programs of packet filters, of which Debian installs ufw and netfilter-persistent on no host together."""
_FIREWALLS = {
    "firewalld": "firewalld.service", "iptables-persistent": "netfilter-persistent.service", "ufw": "ufw.service",
}  # fmt: skip
"""By package, the unit that it enables."""
_NOTHING_SAVED = "iptables-persistent iptables-persistent/autosave_v4 boolean false"
TOOL = "mmdebstrap"
LOG_LINES = 3
_NOT_UNPACKED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")
_RECIPE = 1
"""Raise it when a root of the same packages must be built again."""


class BaseRootFailed(Exception):
    """The root could not be built; the message has the last lines of mmdebstrap."""


@dataclass(frozen=True, slots=True)
class BaseRoot:
    """The base root of a release in the cache, built or not."""

    release: str
    more_packages: tuple[str, ...] = ()
    """What a root of its own has besides the packages of every whole host."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages that the root is built with, besides the essential ones."""
        return (*PACKAGES, *OF_RELEASE[self.release], *self.more_packages)

    @property
    def folder(self) -> Path:
        """Return the folder of this root, with its record beside it."""
        key = json.dumps([self.release, self.packages, _NOT_UNPACKED, _RECIPE])
        return cache_folder() / f"{self.release}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    @property
    def path(self) -> Path:
        """Return the root itself: the lower layer of an overlay, never written to."""
        return self.folder / "root"

    @property
    def built(self) -> bool:
        """Return whether the root is there, and its packages are those that it was built with."""
        try:
            return (self.folder / "digest").read_text() == _digest(self.path)
        except OSError:
            return False

    def build(self, progress: Callable[[str], object]) -> None:
        """Build the root unless it is there already; a build by another process is waited for.

        Args:
            progress: called with a line before a wait of about a minute.

        Raises:
            BaseRootFailed: mmdebstrap failed, or the cache cannot be written.
        """
        if self.built:
            return
        try:
            make_private_folder(cache_folder())
            with _locked(lambda: progress("waiting for the build of another base root")):
                if not self.built:
                    progress(f"building the {self.release} base root in {self.folder} (once, about a minute)")
                    self._build()
        except OSError as error:
            raise BaseRootFailed(f"{error.filename or self.folder}: {error.strerror}") from None

    def _build(self) -> None:
        aside = self.folder.with_suffix(".building")
        # A killed build left it; the lock is ours, so no other build works in it.
        _remove(aside)
        aside.mkdir()
        try:
            (aside / "apt.conf").write_text(transport_settings())
            result = subprocess.run(self._command(aside), stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if result.returncode != 0:
                lines = result.stderr.decode(errors="replace").strip().splitlines()[-LOG_LINES:]
                raise BaseRootFailed(
                    f"{TOOL} {self.release} ended with exit code {result.returncode}: {' / '.join(lines)}"
                )
            (aside / "digest").write_text(_digest(aside / "root"))
            _remove(self.folder)
            aside.rename(self.folder)
        finally:
            _remove(aside)

    @property
    def _firewall_hooks(self) -> list[str]:
        """Return the hooks that keep the programs of packet filters at rest until a lab enables one."""
        units = [unit for package, unit in _FIREWALLS.items() if package in self.packages]
        if not units:
            return []
        return [
            # The answer is yes by default: it would save the rules of the machine that builds.
            f"--essential-hook=echo '{_NOTHING_SAVED}' | chroot \"$1\" debconf-set-selections",
            f'--customize-hook=systemctl --quiet --root="$1" disable {" ".join(units)}',
        ]

    def _command(self, aside: Path) -> list[str]:
        # Everything that mmdebstrap starts, and all its mounts, end with this process.
        contained = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        no_sources = 'rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/apt.conf.d/99mmdebstrap'
        return [
            *contained, "--mount-proc", TOOL, "--quiet", "--mode=root", "--variant=essential",
            "--aptopt=APT::Install-Recommends \"false\"", f"--aptopt={aside / 'apt.conf'}", "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _NOT_UNPACKED),
            f"--include={','.join(self.packages)}", f"--customize-hook={no_sources}", *self._firewall_hooks,
            self.release, str(aside / "root"), *(source.line for source in sources_for(self.release)),
        ]  # fmt: skip


def cache_folder() -> Path:
    """Return the folder of all base roots (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path is invalid by the specification.
    cache = Path(home) if os.path.isabs(home) else Path("~/.cache").expanduser()
    return cache / "viacheck" / "roots"


def remove_all() -> list[Path]:
    """Remove every base root, once no build is under way; return the folders that were removed.

    Raises:
        OSError: a folder cannot be removed.
    """
    if not cache_folder().is_dir():
        return []
    with _locked(lambda: None):
        folders = sorted(path for path in cache_folder().iterdir() if path.is_dir())
        for folder in folders:
            _remove(folder)
    return folders


def _digest(root: Path) -> str:
    """Return a digest of the packages and of what was done to them after they were unpacked."""
    return hashlib.sha256((root / "var/lib/dpkg/status").read_bytes()).hexdigest()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(waits: Callable[[], object]) -> Iterator[None]:
    """Hold the lock of the cache; the kernel releases it with the process that holds it (flock(2))."""
    with open(cache_folder() / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
