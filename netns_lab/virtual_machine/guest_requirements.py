"""The requirements of a virtual machine on this machine: qemu, and the root that it boots."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable

from netns_lab.virtual_machine.guest_root import GuestRoot
from netns_lab.whole_host.base_root import TOOL, BaseRootFailed

QEMU, PACKAGE = "qemu-system-x86_64", "qemu-system-x86"
MACHINE = "x86_64"


def guest_root(root: GuestRoot, progress: Callable[[str], object]) -> GuestRoot:
    """Return the root of a virtual machine, built if it is missing.

    Args:
        root: built or not.
        progress: called with a line before a wait of some minutes.

    Raises:
        BaseRootFailed: something is missing on this machine, or the root cannot be built.
    """
    if (reason := missing_for_guest(root)) is not None:
        raise BaseRootFailed(reason)
    root.base.build(progress)
    return root


def missing_for_guest(root: GuestRoot) -> str | None:
    """Return why no virtual machine can run here, in one line with the remedy, or None when it can."""
    if platform.machine() != MACHINE:
        return f"a virtual machine needs the processor {MACHINE}: its root is Debian's for amd64, and this is another"
    if shutil.which(QEMU) is None:
        return f"a virtual machine needs qemu: apt-get install --no-install-recommends {PACKAGE}"
    if os.geteuid() != 0:
        return "a virtual machine needs root: its files belong to root, and are shared with it as they are"
    if not root.base.built and shutil.which(TOOL) is None:
        return f"a virtual machine needs a root of its own, and what builds it is not installed: apt-get install {TOOL}"
    return None
