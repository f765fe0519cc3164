"""The initramfs of a virtual machine: busybox, the kernel's modules for its root, and our first process.

The format is that of Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import tempfile
from pathlib import Path

from netns_lab.virtual_machine.guest_root import GuestRoot

INIT = Path(__file__).with_name("init.sh")
MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
"""What the first process needs to reach its root; the root has all other modules."""
_FOLDERS = ("bin", "dev", "lower", "modules", "proc", "sys", "sysroot", "upper")
_COMPRESSED = ".xz"


def build_initramfs(root: GuestRoot) -> bytes:
    """Return the initramfs for the kernel of a root, compressed.

    Raises:
        OSError: a file of the root cannot be read.
        subprocess.CalledProcessError: busybox cannot write the archive.
    """
    busybox = root.path / "usr/bin/busybox"
    with tempfile.TemporaryDirectory(prefix="viacheck-initramfs-") as name:
        folder = Path(name)
        for inner in _FOLDERS:
            (folder / inner).mkdir()
        shutil.copy(busybox, folder / "bin" / "busybox")
        shutil.copy(INIT, folder / "init")
        (folder / "init").chmod(0o755)
        order = modules_in_order(root)
        for module in order:
            _copy_module(module, folder / "modules")
        (folder / "modules/order").write_text("".join(f"{_plain_name(module)}\n" for module in order))
        names = "".join(f"{path.relative_to(folder)}\n" for path in sorted(folder.rglob("*")))
        archive = subprocess.run(
            [busybox, "cpio", "-o", "-H", "newc"], input=names.encode(), cwd=folder, capture_output=True, check=True
        )
    return gzip.compress(archive.stdout, compresslevel=1)


def modules_in_order(root: GuestRoot, wanted: tuple[str, ...] = MODULES) -> list[Path]:
    """Return the files of modules, each after those that it depends on (modules.dep(5)).

    A module that is built into the kernel has no file.
    """
    folder = root.path / "usr/lib/modules" / root.kernel_release
    needs = {
        path: others.split()
        for path, _, others in (line.partition(":") for line in (folder / "modules.dep").read_text().splitlines())
    }
    by_name = {_plain_name(Path(path)).removesuffix(".ko"): path for path in needs}
    ordered: dict[str, None] = {}

    def add(path: str) -> None:
        # modules.dep lists the nearest last.
        for other in reversed(needs[path]):
            if other not in ordered:
                add(other)
        ordered[path] = None

    for name in wanted:
        if name in by_name:
            add(by_name[name])
    return [folder / path for path in ordered]


def _plain_name(module: Path) -> str:
    return module.name.removesuffix(_COMPRESSED)


def _copy_module(module: Path, folder: Path) -> None:
    """Copy a module, decompressed: busybox's insmod does not decompress."""
    content = module.read_bytes()
    if module.name.endswith(_COMPRESSED):
        content = lzma.decompress(content)
    (folder / _plain_name(module)).write_bytes(content)
