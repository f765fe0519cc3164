"""Read a gzipped tar archive from an untrusted source: in memory, nothing extracted, every size bounded.

The reader accepts regular files and folders of the ustar format (POSIX.1-1988, tar(5)). It refuses links, devices,
names that lead outside, extended headers and sparse files, and every archive whose headers do not match its content.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from viacheck.bundle.manifest import (
    CAPTURES,
    FREE_OF_RATIO,
    LARGEST_MEMBER,
    LARGEST_RATIO,
    LARGEST_TOTAL,
    MOST_MEMBERS,
    plain_name,
)

BLOCK = 512
CHUNK = 1 << 16
_GZIP = b"\x1f\x8b"
_KINDS = {
    b"1": "a link", b"2": "a symbolic link", b"3": "a character device", b"4": "a block device", b"6": "a FIFO",
    b"7": "a contiguous file", b"S": "a sparse file", b"x": "an extended header", b"g": "an extended header",
    b"L": "a long name", b"K": "a long link name",
}  # fmt: skip


class ArchiveRefused(Exception):
    """The archive cannot be used; the message gives the reason in one line."""


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file of an archive."""

    name: str
    size: int
    sha256: str
    content: bytes
    """Empty for a capture, of which only the size and the digest are kept."""


def members(stream: BinaryIO) -> dict[str, Member]:
    """Read every member of an archive, in its order.

    Args:
        stream: the archive, gzipped or plain, at its beginning.

    Raises:
        ArchiveRefused: the stream is not an archive that the reader accepts.
        OSError: the stream cannot be read.
    """
    octets = _Octets(stream)
    archive: dict[str, Member] = {}
    while True:
        header = octets.take(BLOCK, "a header")
        if not any(header):
            octets.only_zeros_follow()
            return archive
        name, size, kind = _header(header)
        if kind == b"5":
            if size:
                raise ArchiveRefused(f"member {name!r}: a folder with content")
            continue
        if name in archive:
            raise ArchiveRefused(f"member {name!r} occurs twice")
        if len(archive) >= MOST_MEMBERS:
            raise ArchiveRefused(f"more than {MOST_MEMBERS} members")
        if size > LARGEST_MEMBER:
            raise ArchiveRefused(f"member {name!r} is larger than {LARGEST_MEMBER >> 20} MiB")
        digest, kept = hashlib.sha256(), []
        for chunk in octets.chunks(size, f"member {name!r}"):
            digest.update(chunk)
            if not name.startswith(CAPTURES):
                kept.append(chunk)
        octets.take(-size % BLOCK, f"member {name!r}")
        archive[name] = Member(name, size, digest.hexdigest(), b"".join(kept))


def _header(header: bytes) -> tuple[str, int, bytes]:
    """Return name, size in bytes and type of a member (tar(5), struct posix_header)."""
    checksum = _octal(header[148:156])
    if checksum is None or checksum != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise ArchiveRefused("not a tar archive: the checksum of a header is wrong")
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    raw = header[0:100].split(b"\0")[0]
    shown = (prefix + b"/" + raw if prefix else raw).decode("ascii", "backslashreplace")
    kind = header[156:157]
    if kind in _KINDS or kind not in (b"0", b"\0", b"5"):
        raise ArchiveRefused(f"member {shown!r} is {_KINDS.get(kind, 'of unknown type')}; allowed: regular files")
    name = shown.removeprefix("./").rstrip("/") if kind == b"5" else shown.removeprefix("./")
    if not plain_name(name) and not (kind == b"5" and name in ("", ".")):
        raise ArchiveRefused(f"member {shown!r}: its name is absolute, leads outside or has unusual characters")
    size = _octal(header[124:136])
    if size is None:
        raise ArchiveRefused(f"member {name!r}: its size is not a number")
    return name, size, kind


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    if not digits or any(digit not in b"01234567" for digit in digits):
        return None
    return int(digits, 8)


class _Octets:
    """The unpacked octets of a stream, counted."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._packed = self._unpacked = 0
        self._ready = bytearray()
        self._ended = False
        first = self._read()
        self._inflate = zlib.decompressobj(wbits=31) if first.startswith(_GZIP) else None
        self._waiting = first

    def _read(self) -> bytes:
        chunk = self._stream.read(CHUNK)
        self._packed += len(chunk)
        return chunk

    def take(self, count: int, what: str) -> bytes:
        """Return exactly so many octets.

        Raises:
            ArchiveRefused: fewer octets are left, and as :meth:`_more`.
        """
        while len(self._ready) < count:
            if not self._more():
                raise ArchiveRefused(f"it ends within {what}: cut short, or not a tar archive")
        taken = bytes(self._ready[:count])
        del self._ready[:count]
        return taken

    def chunks(self, count: int, what: str) -> Iterator[bytes]:
        """Yield so many octets in pieces."""
        while count:
            piece = self.take(min(count, CHUNK), what)
            count -= len(piece)
            yield piece

    def only_zeros_follow(self) -> None:
        """Read to the end, which tar fills with zeros.

        Raises:
            ArchiveRefused: other octets follow.
        """
        while True:
            if any(self._ready):
                raise ArchiveRefused("something follows the end of the archive")
            self._ready.clear()
            if not self._more():
                return

    def _more(self) -> bool:
        """Unpack one more piece; return False at the end."""
        if self._ended:
            return False
        if not self._waiting:
            self._waiting = self._read()
        if self._inflate is None:
            piece, self._waiting = self._waiting, b""
            self._ended = not piece
        else:
            piece = self._unpack(self._inflate)
        self._unpacked += len(piece)
        if self._unpacked > LARGEST_TOTAL:
            raise ArchiveRefused(f"more than {LARGEST_TOTAL >> 20} MiB unpacked")
        if self._unpacked > FREE_OF_RATIO and self._unpacked > LARGEST_RATIO * self._packed:
            raise ArchiveRefused(f"it unpacks to more than {LARGEST_RATIO} times its size")
        self._ready += piece
        return not self._ended or bool(piece)

    def _unpack(self, inflate: zlib._Decompress) -> bytes:
        if not self._waiting and not inflate.eof:
            raise ArchiveRefused("it ends within its gzip stream: cut short")
        try:
            piece = inflate.decompress(self._waiting, CHUNK)
        except zlib.error as error:
            raise ArchiveRefused(f"its gzip stream is damaged: {error}") from None
        self._waiting = inflate.unconsumed_tail
        if inflate.eof:
            self._ended = True
            if inflate.unused_data or self._read():
                raise ArchiveRefused("something follows the end of its gzip stream")
        return piece
