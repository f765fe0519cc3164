"""The record: lines of JSON in a folder of segments, whose oldest go when the record would grow beyond its limit.

A line is written by one write(2) to a file opened with O_APPEND, so that a killed recorder leaves at most one line cut
short. Each line has its number, from 1 at the recorder's start, so that lines that go missing between two others are
noticed. A segment that another program renames, truncates or deletes (logrotate) costs no line that
comes later: the next line begins a new segment.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viacheck.private_folder import FILE_MODE, make_private_folder, open_private_folder
from viacheck.user_file import open_file

SEGMENTS = 16
"""Segments of a full record: the oldest sixteenth goes at a time."""
LOCK = "lock"
LONGEST_LINE = 1 << 16
"""Octets of a line; a longer line is not ours."""
_NUMBER = "line"
_SEGMENT = re.compile(r"record-(\d{8})\.jsonl")

Entry = dict[str, Any]
"""One line: ``t`` (nanoseconds since the epoch), ``kind``, and what belongs to the kind."""


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A line in its place."""

    segment: str
    """The file's name."""
    number: int
    """In its segment, from 1; 0: the segment is missing, and perhaps those up to the next one."""
    entry: Entry | None
    """None: the line cannot be read, or is missing."""
    cut_short: bool = False
    """It has no end, as a recorder leaves its last line that is killed while it writes."""
    missing: int = 0
    """So many lines are missing before this place."""


class RecordInUse(Exception):
    """Another recorder writes to this folder."""


class RecordFile:
    """A record that is written to. Only one process at a time may hold it."""

    def __init__(self, folder: Path, most_octets: int) -> None:
        """Open the record, and make its folder if it is missing.

        Args:
            folder: it must be this user's own and no link.
            most_octets: the limit of all segments together.

        Raises:
            OSError: the folder cannot be used.
            RecordInUse: another recorder holds it.
        """
        make_private_folder(folder)
        self.folder = folder
        self._segment_octets = max(most_octets // SEGMENTS, 1)
        self._folder_fd = open_private_folder(folder)
        self._descriptor: int | None = None
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._lock = os.open(LOCK, flags, FILE_MODE, dir_fd=self._folder_fd)
        except BaseException:
            os.close(self._folder_fd)
            raise
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            os.close(self._folder_fd)
            raise RecordInUse(f"{folder}: another recorder writes to it") from None
        self._number = max(_numbers(folder), default=0)
        self._lines = 0

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line, and begin a new segment where the present one is full, or no longer in its place.

        Raises:
            OSError: the line cannot be written.
        """
        numbered = {**entry, _NUMBER: self._lines + 1}
        line = json.dumps(numbered, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
        if self._descriptor is None or not self._in_place(len(line)):
            self._begin_segment()
        assert self._descriptor is not None
        if os.write(self._descriptor, line) < len(line):
            # The disk is full. The next line must not continue this one.
            os.close(self._descriptor)
            self._descriptor = None
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        self._lines += 1

    def _in_place(self, octets: int) -> bool:
        """Return whether the present segment has room, and still has its name."""
        assert self._descriptor is not None
        status = os.fstat(self._descriptor)
        if status.st_size + octets > self._segment_octets:
            return False
        try:
            named = os.stat(_name(self._number), dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == (status.st_dev, status.st_ino)

    def _begin_segment(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        # A name that appeared meanwhile is not ours.
        self._number = max(self._number, *_numbers(self.folder), 0) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(_name(self._number), flags, FILE_MODE, dir_fd=self._folder_fd)
        for number in sorted(_numbers(self.folder))[:-SEGMENTS]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_name(number), dir_fd=self._folder_fd)

    def clear(self) -> None:
        """Remove the lines of an earlier recording."""
        for number in _numbers(self.folder):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_name(number), dir_fd=self._folder_fd)

    def sync(self) -> None:
        """Make what was written survive a loss of power."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the record, and let another recorder hold it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        os.close(self._lock)
        os.close(self._folder_fd)


def read_entries(folder: Path) -> Iterator[Entry]:
    """Yield the lines of a record that can be read, in order.

    Raises:
        OSError: the folder or a segment cannot be read.
    """
    return (line.entry for line in read_lines(folder) if line.entry is not None)


def read_lines(folder: Path) -> Iterator[RecordLine]:
    """Yield every line of a record in order, those that cannot be read or are missing too.

    Raises:
        OSError: the folder or a segment cannot be read.
    """
    expected: int | None = None
    next_line: int | None = None
    for number in sorted(_numbers(folder)):
        if expected not in (None, number):
            yield RecordLine(_name(expected), 0, None)
            next_line = None
        expected = number + 1
        for line in _lines_of(folder, _name(number)):
            written_as = line.entry.pop(_NUMBER, None) if line.entry is not None else None
            if not isinstance(written_as, int):
                # Damage that is named for itself.
                next_line = None
            else:
                if next_line is not None and written_as > next_line:
                    yield RecordLine(line.segment, line.number, None, missing=written_as - next_line)
                next_line = written_as + 1
            yield line


def _lines_of(folder: Path, name: str) -> Iterator[RecordLine]:
    with open_file(folder / name, follow_links=False) as segment:
        number = 0
        while line := segment.readline(LONGEST_LINE):
            number += 1
            end = line
            while len(end) == LONGEST_LINE and not end.endswith(b"\n"):
                end = segment.readline(LONGEST_LINE)
            entry = _entry(line)
            yield RecordLine(name, number, entry, cut_short=entry is None and not end.endswith(b"\n"))


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    is_ours = isinstance(entry, dict) and type(entry.get("t")) is int and isinstance(entry.get("kind"), str)
    return entry if is_ours else None


def _numbers(folder: Path) -> list[int]:
    return [int(match[1]) for name in os.listdir(folder) if (match := _SEGMENT.fullmatch(name))]


def _name(number: int) -> str:
    return f"record-{number:08}.jsonl"
