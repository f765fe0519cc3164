"""Unpacks the one file to a folder that works as a virtual environment. It is the archive's ``__main__``.

It runs before anything is installed, so it needs the standard library only. The folder gets its final name when it is
complete: a start that is interrupted leaves nothing that a later one would run.
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the process without a traceback; while files are unpacked, main() removes them first.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import compileall
import contextlib
import errno
import os
import platform
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator

USAGE_STATUS, INTERRUPTED_STATUS = 4, 130
PACKAGES = "packages/"
PLATFORMS = "platforms.txt"
"""Names of the archive: the folder of the libraries, and the list of what they are for (``3.11-x86_64``)."""
MINOR_VERSIONS = range(11, 15)


def main(archive: str, cache: str, digest: str) -> None:
    """Unpack the archive to ``cache/digest``, or give a folder that is there already this Python.

    Raises:
        SystemExit: with one line, when the libraries do not fit this Python, or the cache cannot be written.
    """
    os.umask(0o077)
    target = os.path.join(cache, digest)
    try:
        with zipfile.ZipFile(archive) as packed:
            _check_platform(packed.read(PLATFORMS).decode().split())
            os.makedirs(cache, mode=0o700, exist_ok=True)
            if not _is_own_folder(target):
                with _interrupts():
                    _unpack(packed, cache, target)
        _link_python(target)
    except OSError as error:
        _fail(f"{error.filename or cache}: {error.strerror}; XDG_CACHE_HOME names another folder")


def _check_platform(packed_for: list[str]) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}-{platform.machine()}"
    if here not in packed_for:
        _fail(f"this file has no libraries for Python {here}; it has: {', '.join(packed_for)}")


def _is_own_folder(path: str) -> bool:
    """Return whether the folder exists.

    Raises:
        OSError: when it is a link, no folder, or another user's.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(1, "is not a folder of this user", path)
    return True


def _unpack(packed: zipfile.ZipFile, cache: str, target: str) -> None:
    temporary = tempfile.mkdtemp(prefix=".unpacking-", dir=cache)
    try:
        site = os.path.join(temporary, "site-packages")
        for entry in packed.infolist():
            if entry.filename.startswith(PACKAGES) and not entry.is_dir():
                path = os.path.join(site, *entry.filename[len(PACKAGES) :].split("/"))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with packed.open(entry) as source, open(path, "wb") as file:
                    shutil.copyfileobj(source, file)
        for minor in MINOR_VERSIONS:
            folder = os.path.join(temporary, "lib", f"python3.{minor}")
            os.makedirs(folder)
            os.symlink("../../site-packages", os.path.join(folder, "site-packages"))
        os.mkdir(os.path.join(temporary, "bin"))
        _rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary: str, target: str) -> None:
    try:
        os.rename(temporary, target)
    except OSError as error:
        # Another start was faster.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not _is_own_folder(target):
            raise


def _link_python(target: str) -> None:
    """Make the folder the environment of this Python, and compile the packages for it.

    ``bin/python`` comes last: a folder without it is not complete.
    """
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    own = f".{os.getpid()}"
    settings = os.path.join(target, "pyvenv.cfg")
    with open(settings + own, "w") as file:
        file.write(f"home = {os.path.dirname(executable)}\ninclude-system-site-packages = false\n")
    os.replace(settings + own, settings)
    compileall.compile_dir(os.path.join(target, "site-packages"), quiet=2, workers=len(os.sched_getaffinity(0)))
    link = os.path.join(target, "bin", "python")
    os.symlink(executable, link + own)
    os.replace(link + own, link)


def _fail(message: str) -> None:
    sys.stderr.write(f"viacheck: {message}\n")
    sys.exit(USAGE_STATUS)


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt for the time of a block, unless the caller has it ignored.

    Beyond the block it ends the process: the pool of compileall would wait for workers that have got it too.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    try:
        main(*sys.argv)
    except KeyboardInterrupt:
        sys.stderr.write("viacheck: interrupted\n")
        sys.exit(INTERRUPTED_STATUS)
