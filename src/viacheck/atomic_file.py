"""Write a file whole or not at all: a reader sees the old content or the new one, also after a crash.

The new content goes to a temporary file in the same folder, which rename(2) or link(2) then gives its final name. This
module needs the standard library only, so that the watchdog and the reports can import it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import IO

from viacheck.private_folder import file_mode_in, open_private_folder
from viacheck.user_file import special_kind

DEFAULT_MODE = 0o666
"""Permissions of a new file before the umask, as open(2) uses them."""


@contextlib.contextmanager
def atomic_file(
    path: str | os.PathLike[str],
    *,
    mode: int = DEFAULT_MODE,
    replace: bool = True,
    private: bool = False,
    durable: bool = True,
) -> Iterator[IO[bytes]]:
    """Open a file for writing, which gets its name when the block ends without an error.

    Args:
        path: the final name. A symbolic link of that name is replaced and not followed. A device, a FIFO or a socket is
            refused, and so is a link to one: /dev/null would be a file after that.
        mode: the permissions, before the umask.
        replace: False refuses a name that exists, even one that appears while the content is written.
        private: the folder must be this user's own and no link; it decides the permissions (0600, or 0640 and its
            group), whatever ``mode`` and the umask are.
        durable: wait until the disk has it. False is for what can be made again: after a crash of the machine it may be
            missing or empty.

    Raises:
        FileExistsError: when the file exists and must not be replaced.
        OSError: when it cannot be written; an older file of that name is unchanged.
    """
    folder, name = os.path.split(os.fspath(path))
    # Every step goes through the folder's descriptor: a folder that is exchanged meanwhile is not written to.
    if private:
        folder_fd = open_private_folder(folder or ".")
        mode, group = file_mode_in(folder_fd)
    else:
        folder_fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_special(name, folder_fd)
        # O_EXCL follows no symbolic link, and the random part keeps an old temporary file from being in the way.
        temporary = f".{name}.{os.urandom(6).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode, dir_fd=folder_fd)
        try:
            with open(descriptor, "wb") as file:
                if private:
                    os.fchown(descriptor, -1, group)
                    os.fchmod(descriptor, mode)
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            if replace:
                os.replace(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
            else:
                os.link(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
                os.unlink(temporary, dir_fd=folder_fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder_fd)
            raise
        if durable:
            _sync_folder(folder_fd)
    except OSError as error:
        # The names within the folder mean nothing to a user.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    finally:
        os.close(folder_fd)


def write_file(
    path: str | os.PathLike[str],
    content: str | bytes,
    *,
    mode: int = DEFAULT_MODE,
    replace: bool = True,
    private: bool = False,
    durable: bool = True,
) -> None:
    """Write a file whole or not at all; text is encoded as UTF-8, a lone surrogate as an escape.

    The arguments are those of :func:`atomic_file`.

    Raises:
        FileExistsError: when the file exists and must not be replaced.
        OSError: when it cannot be written; an older file of that name is unchanged.
    """
    octets = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with atomic_file(path, mode=mode, replace=replace, private=private, durable=durable) as file:
        file.write(octets)


def _refuse_special(name: str, folder_fd: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=folder_fd)
        kind = special_kind(status)
        if kind is not None and not stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EINVAL, f"is {kind}, not a regular file")


def _sync_folder(descriptor: int) -> None:
    """Make the new name survive a crash, on file systems that can do that for a folder."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
