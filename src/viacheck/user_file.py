"""Opens the files that a user names on the command line: regular files only, of bounded size, and without waiting.

An ordinary open of a FIFO waits for a writer, and reading a device may never end or may change the device.
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
}


def open_file(path: str | os.PathLike[str], largest: int = LARGEST, *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: the file cannot be opened, is not a regular file, or is larger than ``largest`` bytes.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags if follow_links else flags | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        kind = special_kind(status)
        if kind is not None:
            raise OSError(errno.EINVAL, f"is {kind}, not a regular file", os.fspath(path))
        if status.st_size > largest:
            raise OSError(errno.EFBIG, f"is larger than {largest >> 20} MiB", os.fspath(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


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
