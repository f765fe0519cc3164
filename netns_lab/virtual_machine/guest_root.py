"""The root of a virtual machine: the base root of a whole host, with Debian's kernel and the programs of its labs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from netns_lab.whole_host.base_root import DEFAULT_RELEASE, BaseRoot

PACKAGES = (
    "hostapd",  # the access point
    "iw",  # moves a radio to a network namespace
    "linux-image-amd64",  # the cloud kernel has no mac80211_hwsim
    "python3",
    "tiny-initramfs",  # a kernel needs a program that makes its initramfs: this one takes a second, and is not used
    "wireguard-tools",
    "wpasupplicant",  # the station
)


@dataclass(frozen=True, slots=True)
class GuestRoot:
    """The root of a virtual machine in the cache, built or not."""

    release: str = DEFAULT_RELEASE

    @property
    def base(self) -> BaseRoot:
        """Return the root in the cache: that of a whole host with more packages."""
        return BaseRoot(self.release, PACKAGES)

    @property
    def path(self) -> Path:
        """Return the root itself, never written to."""
        return self.base.path

    @property
    def kernel_release(self) -> str:
        """Return the release of the kernel, as ``uname -r`` prints it there."""
        return sorted(path.name for path in (self.path / "usr/lib/modules").iterdir())[-1]

    @property
    def kernel(self) -> Path:
        """Return the compressed kernel, as a boot loader takes it."""
        return self.path / "boot" / f"vmlinuz-{self.kernel_release}"

    @property
    def python(self) -> str:
        """Return the version of the root's own Python without its last number, such as ``3.11``."""
        return (self.path / "usr/bin/python3").readlink().name.removeprefix("python")
