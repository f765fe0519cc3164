"""Opens the files that a user names on the command line: regular files only, of bounded size, and without waiting.

An ordinary open of a FIFO waits for a writer, and to open a device or a FIFO may have an effect by itself: a watchdog
starts and later resets the machine, a tape rewinds, a writer goes on. So a path is looked at before it is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

LARGEST = 512 << 20
"""Bytes of a file: the result of a run over a large host is 25 MB."""
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}


def open_file(path: str | os.PathLike[str], largest: int = LARGEST, *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: the file cannot be opened, is not a regular file, or is larger than ``largest`` bytes.
    """
    handle = handle_of(path, follow_links=follow_links)
    try:
        status = os.fstat(handle)
        kind = special_kind(status)
        if kind is not None:
            raise OSError(errno.EINVAL, f"is {kind}, not a regular file", os.fspath(path))
        if status.st_size > largest:
            raise OSError(errno.EFBIG, f"is larger than {largest >> 20} MiB", os.fspath(path))
        return os.fdopen(opened(handle, path), "rb")
    finally:
        os.close(handle)


def handle_of(path: str | os.PathLike[str], *, follow_links: bool = True) -> int:
    """Return a descriptor that names a file and has not opened it (open(2), O_PATH).

    Raises:
        OSError: there is no such file.
    """
    return os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW))


def opened(handle: int, path: str | os.PathLike[str]) -> int:
    """Return a descriptor for reading the regular file that a handle names, whatever has its path by now.

    Raises:
        OSError: the file cannot be opened, or it was replaced where /proc does not show this process.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{handle}", flags)
    except FileNotFoundError:
        # The /proc of another process namespace, as a whole host has it.
        descriptor = os.open(path, flags)
        if not os.path.samestat(os.fstat(descriptor), os.fstat(handle)):
            os.close(descriptor)
            raise OSError(errno.ESTALE, "was replaced while it was opened", os.fspath(path)) from None
        return descriptor
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def read_file(path: str | os.PathLike[str], largest: int = LARGEST, *, follow_links: bool = True) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: as :func:`open_file`.
    """
    with open_file(path, largest, follow_links=follow_links) as file:
        return file.read(largest)


def special_kind(status: os.stat_result) -> str | None:
    """Return the kind of a file that is not regular; None for a regular file."""
    return None if stat.S_ISREG(status.st_mode) else _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")


def special_kind_of(path: str) -> str | None:
    """Return the kind of the file at a path if the file exists and is not regular."""
    try:
        return special_kind(os.stat(path))
    except OSError:
        return None
