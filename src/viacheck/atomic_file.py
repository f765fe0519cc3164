"""Write a file whole or not at all: a reader sees the old content or the new one, also after a crash.

The new content goes to a temporary file in the same folder, which rename(2) or link(2) then gives its final name. This
module uses the standard library only, so that the watchdog and the reports can import it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import IO

DEFAULT_MODE = 0o666
"""Permissions of a new file before the umask, as open(2) uses them."""


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, mode: int = DEFAULT_MODE, replace: bool = True) -> Iterator[IO[bytes]]:
    """Open a file for writing, which gets its name when the block ends without an error.

    Args:
        path: the final name. A symbolic link of that name is replaced and not followed.
        mode: the permissions, before the umask.
        replace: False refuses a name that exists, even one that appears while the content is written.

    Raises:
        FileExistsError: when the file exists and must not be replaced.
        OSError: when it cannot be written; an older file of that name is unchanged.
    """
    path = os.fspath(path)
    folder, name = os.path.split(path)
    # O_EXCL follows no symbolic link, and the random part keeps an old temporary file from being in the way.
    temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
            os.unlink(temporary)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(folder or ".")


def write_file(
    path: str | os.PathLike[str], content: str | bytes, *, mode: int = DEFAULT_MODE, replace: bool = True
) -> None:
    """Write a file whole or not at all; text is encoded as UTF-8, a lone surrogate as an escape.

    Raises:
        FileExistsError: when the file exists and must not be replaced.
        OSError: when it cannot be written; an older file of that name is unchanged.
    """
    octets = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with atomic_file(path, mode=mode, replace=replace) as file:
        file.write(octets)


def _sync_folder(folder: str) -> None:
    """Make the new name survive a crash, on file systems that can do that for a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
