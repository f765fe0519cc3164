"""Files and folders of a host, opened in the calling thread's mount namespace.

They are opened directly and not by testinfra, whose three shells for each file take 8 ms (0.05 ms here) and would
record a file's whole text, keys and passwords included, as a command's output.
"""

from __future__ import annotations

import errno
import os
import stat

from viacheck.host import syscalls
from viacheck.user_file import handle_of, opened, special_kind

READ_LIMIT = 256 * 1024
"""Bytes of a file that are kept; the files that matter here are a few kilobytes."""
MOST_NAMES = 500
"""Names of one folder that are looked at; a folder with more holds something else."""


def read_file(path: str) -> tuple[bytes, int]:
    """Return the content and the permission bits of a file. A device, such as the /dev/null that masks, is empty.

    Raises:
        OSError: when the file cannot be opened.
    """
    return _content(handle_of(path), path)


def read_text_in(root: str, path: str) -> str:
    """Return the text of a file of a container, whose links lead nowhere else than to files of the container.

    Args:
        root: the container's root folder, as this process sees it: /proc/123/root.
        path: the absolute path in the container.

    Raises:
        OSError: when the file cannot be opened.
    """
    content, _mode = _content(syscalls.open_in_root(root, path), path)
    return content.decode("utf-8", errors="replace")


def _content(handle: int, path: str) -> tuple[bytes, int]:
    """Return the content and the permission bits of a file, and close its handle."""
    try:
        status = os.fstat(handle)
        content = b""
        if special_kind(status) is None:
            with open(opened(handle, path), "rb") as file:
                content = file.read(READ_LIMIT)
        elif stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return content, stat.S_IMODE(status.st_mode)
    finally:
        os.close(handle)


def read_text(path: str) -> tuple[str, int]:
    """Return the text and the permission bits of a file; octets that are not UTF-8 are replaced.

    Raises:
        OSError: when the file cannot be opened.
    """
    content, mode = read_file(path)
    return content.decode("utf-8", errors="replace"), mode


def names_in(folder: str, *, hidden: bool = False) -> list[str]:
    """Return the names in a folder, sorted; empty where the folder is missing or closed to this process.

    Most hosts have one network manager of the four, and an ordinary user may not look into NetworkManager's folder.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(name for name in names if hidden or not name.startswith("."))[:MOST_NAMES]
