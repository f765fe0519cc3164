"""The image of a lab's containers: Debian's static busybox and a link for each program.

It is made in memory, because a lab cannot pull from a registry.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient

IMAGE = "viacheck-agent:lab"
BUSYBOX = "/bin/busybox"
"""From Debian's package busybox-static: a dynamic busybox would find no libraries in the image."""

DHCP_SCRIPT = """\
#!/bin/sh
case $1 in
deconfig) ip address flush dev "$interface"; ip link set "$interface" up ;;
bound|renew)
    ip address replace "$ip/${mask:-24}" dev "$interface"
    for gateway in $router; do ip route replace default via "$gateway" dev "$interface"; break; done
    ;;
esac
"""
"""udhcpc(8) runs this script with each lease."""

FILES = {
    "etc/passwd": ("root:x:0:0:root:/root:/bin/sh\n", 0o644),
    "etc/group": ("root:x:0:\n", 0o644),
    "usr/share/udhcpc/default.script": (DHCP_SCRIPT, 0o755),
}
FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "usr/share", "usr/share/udhcpc", "var")


def import_image(client: DockerClient, busybox: str = BUSYBOX) -> None:
    """Import the image, made of a static busybox, into an engine that does not have it yet (docker import)."""
    if not client.api.images(IMAGE, quiet=True):
        repository, _, tag = IMAGE.partition(":")
        client.api.import_image_from_data(image_tar(busybox), repository=repository, tag=tag)


def image_tar(busybox: str = BUSYBOX) -> bytes:
    """Return the image's file system as a tar archive.

    Raises:
        OSError: when busybox does not exist.
        subprocess.CalledProcessError: when busybox does not list its programs.
    """
    program = Path(busybox).read_bytes()
    programs = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    programs.remove("busybox")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in FOLDERS:
            tar.addfile(_entry(folder, 0o755, tarfile.DIRTYPE))
        _add(tar, "bin/busybox", program, 0o755)
        for path, (text, mode) in FILES.items():
            _add(tar, path, text.encode(), mode)
        for name in programs:
            link = _entry(f"bin/{name}", 0o777, tarfile.SYMTYPE)
            link.linkname = "busybox"
            tar.addfile(link)
    return archive.getvalue()


def _entry(path: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.mode, entry.type = mode, kind
    return entry


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    entry = _entry(path, mode, tarfile.REGTYPE)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
