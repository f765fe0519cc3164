"""Starts qemu: a machine with a root that it cannot write to, two shared folders and two streams, and no network card.

qemu ends with this process, SIGKILL included, and its guest with it.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from netns_lab.virtual_machine.guest_kernel import PARAMETER
from netns_lab.virtual_machine.guest_requirements import QEMU
from netns_lab.virtual_machine.guest_root import GuestRoot
from netns_lab.virtual_machine.initramfs import build_initramfs

KVM = Path("/dev/kvm")
MEMORY_MB = 1536
FIRST_LINE_WITHIN = {"kvm": 10.0, "tcg": 120.0}
"""Seconds for the kernel's first line, by processor. With KVM it takes a tenth of a second, where KVM works: a machine
that is a virtual one itself may have the device all the same."""
ENDED_WITHIN = 10.0
ROOT, SHARE, REPORT = "root", "share", "report"
"""The names by which the guest mounts its folders."""
_CHUNK = 1 << 16
_LAST_LINES = 5


class GuestFailed(Exception):
    """The virtual machine did not start, or did not end in time; the message says how far it came."""


@dataclass(frozen=True, slots=True)
class GuestFolders:
    """What a guest has of this machine."""

    share: Path
    """The program to run, and its exit status."""
    report: Path
    """The report of the run."""


class VirtualMachine:
    """A virtual machine of a root. It runs once, until it switches itself off.

    Attributes:
        processor: how its processor is made: ``kvm`` or ``tcg`` (an emulated one).
    """

    def __init__(self, root: GuestRoot, folders: GuestFolders) -> None:
        """Take the root, which is built, and the folders; nothing is started yet."""
        self.root, self.folders = root, folders
        self.processor = "kvm" if os.access(KVM, os.R_OK | os.W_OK) else "tcg"

    def run(self, on_output: Callable[[bytes], object], within: float) -> None:
        """Run the machine until it is off.

        Args:
            on_output: called with what the guest's program prints.
            within: seconds for everything.

        Raises:
            GuestFailed: qemu ends with an error, the machine does not start, or is not off in time.
        """
        initramfs = self.folders.share / "initramfs"
        try:
            initramfs.write_bytes(build_initramfs(self.root))
        except (OSError, subprocess.CalledProcessError) as error:
            raise GuestFailed(f"the initramfs cannot be made: {error}") from error
        if self.processor == "kvm" and not self._run_once(initramfs, on_output, within):
            self.processor = "tcg"
        if self.processor == "tcg" and not self._run_once(initramfs, on_output, within):
            raise GuestFailed(f"the kernel printed nothing within {FIRST_LINE_WITHIN['tcg']:g} s")

    def _run_once(self, initramfs: Path, on_output: Callable[[bytes], object], within: float) -> bool:
        """Run the machine; return False, with the machine ended, where the kernel prints nothing."""
        console, guest_console = socket.socketpair()
        output, guest_output = socket.socketpair()
        process = subprocess.Popen(
            self._command(initramfs, guest_console.fileno(), guest_output.fileno()), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(guest_console.fileno(), guest_output.fileno()), preexec_fn=_ignore_interrupts,
        )  # fmt: skip
        try:
            guest_console.close()
            guest_output.close()
            printed = _follow(console, output, on_output, FIRST_LINE_WITHIN[self.processor], within)
            if printed is None:
                return False
            return self._ended(process, printed)
        finally:
            process.kill()
            process.communicate()
            console.close()
            output.close()

    def _ended(self, process: subprocess.Popen[bytes], console: bytes) -> bool:
        try:
            said, _ = process.communicate(timeout=ENDED_WITHIN)
        except subprocess.TimeoutExpired:
            raise GuestFailed(f"the virtual machine was not off in time; {_last_lines(console)}") from None
        if process.returncode != 0:
            raise GuestFailed(f"{QEMU} ended with exit code {process.returncode}: {_last_lines(said)}")
        return True

    def _command(self, initramfs: Path, console: int, output: int) -> list[str]:
        processor = ["-cpu", "host"] if self.processor == "kvm" else ["-cpu", "max"]
        words = f"console=ttyS0 panic=-1 {PARAMETER}={self.processor}"
        return [
            "setpriv", "--pdeathsig", "KILL", QEMU, "-nodefaults", "-no-reboot", "-display", "none",
            "-machine", f"q35,accel={self.processor}", *processor, "-m", str(MEMORY_MB),
            "-smp", str(len(os.sched_getaffinity(0))),
            "-kernel", str(self.root.kernel), "-initrd", str(initramfs), "-append", words,
            *_folder(ROOT, self.root.path, "passthrough,readonly=on"), *_folder(SHARE, self.folders.share, "none"),
            *_folder(REPORT, self.folders.report, "none"),
            "-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=output,fd={output}",
            "-device", "virtserialport,chardev=output,name=viacheck",
        ]  # fmt: skip


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to this process, which ends the machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _folder(tag: str, path: Path, security: str) -> list[str]:
    # A comma ends a value of qemu's options unless it is doubled.
    place = str(path).replace(",", ",,")
    shared = f"local,id={tag},path={place},multidevs=remap,security_model={security}"
    return ["-fsdev", shared, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _follow(
    console: socket.socket, output: socket.socket, on_output: Callable[[bytes], object], first: float, within: float
) -> bytes | None:
    """Pass the guest's output on until qemu closes its streams or the time is over.

    Args:
        console: what the kernel prints.
        output: what the guest's program prints.
        on_output: called with each part of it.
        first: seconds for the kernel's first line.
        within: seconds for everything.

    Returns:
        What the kernel printed; None if it printed nothing within the bound.
    """
    printed, begin = bytearray(), time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(console, selectors.EVENT_READ)
        selector.register(output, selectors.EVENT_READ)
        while selector.get_map():
            bound = within if printed else first
            ready = selector.select(max(0.0, begin + bound - time.monotonic()))
            if not ready:
                return bytes(printed) if printed else None
            for key, _events in ready:
                part = os.read(key.fd, _CHUNK)
                if not part:
                    selector.unregister(key.fileobj)
                elif key.fileobj is console:
                    printed += part
                else:
                    on_output(part)
    return bytes(printed)


def _last_lines(text: bytes) -> str:
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return f"its last lines: {' / '.join(lines[-_LAST_LINES:])}" if lines else "it printed nothing"
