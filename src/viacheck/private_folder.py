"""Makes and opens the folders that hold reports and captures: own folders, never a link, closed to other users.

A report shows how a network is built, and a run as root writes into folders that another user may have prepared.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile

MODE, GROUP_MODE = 0o700, 0o750
FILE_MODE, GROUP_FILE_MODE = 0o600, 0o640


def make_private_folder(path: str | os.PathLike[str], group: int | None = None) -> None:
    """Make a folder and the folders above it; an existing folder must be this user's own.

    Args:
        path: the folder. Only a new folder gets the mode 0700.
        group: the id of the group that may read the folder.

    Raises:
        OSError: when the folder cannot be made, is a link, or belongs to another user.
    """
    path = os.fspath(path)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, MODE)
    descriptor = open_private_folder(path)
    try:
        if group is not None:
            os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, GROUP_MODE)
    finally:
        os.close(descriptor)


def make_writable_folder(path: str | os.PathLike[str], group: int | None = None) -> None:
    """Make a folder as :func:`make_private_folder` does, and try whether a file can be made in it.

    Raises:
        OSError: when the folder cannot be made or written to, is a link, or belongs to another user.
    """
    make_private_folder(path, group)
    tempfile.TemporaryFile(dir=os.fspath(path)).close()


def open_private_folder(path: str | os.PathLike[str]) -> int:
    """Return a descriptor of a folder of this user's own.

    Raises:
        OSError: when the folder cannot be opened, is a link, or belongs to another user.
    """
    path = os.fspath(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        if os.path.islink(path):
            raise OSError(errno.ELOOP, "is a symbolic link, not a folder", path) from None
        raise
    owner = os.fstat(descriptor).st_uid
    if owner != os.geteuid():
        os.close(descriptor)
        raise OSError(errno.EPERM, f"belongs to another user (uid {owner})", path)
    return descriptor


def file_mode_in(descriptor: int) -> tuple[int, int]:
    """Return the mode and the group of a new file in a folder: a folder that is open to a group has such files."""
    status = os.fstat(descriptor)
    if stat.S_IMODE(status.st_mode) == GROUP_MODE:
        return GROUP_FILE_MODE, status.st_gid
    return FILE_MODE, -1
