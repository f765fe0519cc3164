"""A folder of this machine, shown in the file system of a lab's whole host."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from viacheck.host.namespace import Namespace

_OPEN_TREE, _MOVE_MOUNT = 428, 429
"""System calls of open_tree(2) and move_mount(2); their numbers are the same on every processor."""
_CLONE, _CLOEXEC = 1, os.O_CLOEXEC
_FROM_DESCRIPTOR = 4
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def bind_into(init: int, folder: Path, path: str) -> None:
    """Mount a folder at a path of the host, which is made: mount(2) cannot cross from one mount namespace to another.

    Args:
        init: the host's first process, whose mounts every process of the host sees.
        folder: of this machine.
        path: on the host.
    """
    tree = _checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(folder), _CLONE | _CLOEXEC))

    def mount() -> None:
        os.makedirs(path, exist_ok=True)
        _checked(_libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(path), _FROM_DESCRIPTOR))

    spaces = (os.open(f"/proc/{init}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "mnt"))
    host = Namespace("init", *spaces)
    try:
        host.call(mount)
    finally:
        host.close()
        os.close(tree)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
