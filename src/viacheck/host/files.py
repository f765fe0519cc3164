"""Files and folders of a host, opened in the calling thread's mount namespace.

They are opened directly and not by testinfra, whose three shells for each file take 8 ms (0.05 ms here) and would
record a file's whole text, keys and passwords included, as a command's output.
"""

from __future__ import annotations

import os
import stat

READ_LIMIT = 256 * 1024
"""Bytes of a file that are kept; the files that matter here are a few kilobytes."""
MOST_NAMES = 500
"""Names of one folder that are looked at; a folder with more holds something else."""


def read_file(path: str) -> tuple[bytes, int]:
    """Return the content and the permission bits of a file. A device, such as the /dev/null that masks, is empty.

    Raises:
        OSError: when the file cannot be opened.
    """
    # An ordinary open of a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        content = file.read(READ_LIMIT) if stat.S_ISREG(status.st_mode) else b""
    return content, stat.S_IMODE(status.st_mode)


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
