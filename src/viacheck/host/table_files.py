"""Reads the files that name routing tables (ip-route(8)), without their comments."""

from __future__ import annotations

from viacheck.host.files import names_in, read_text
from viacheck.model.snapshot import HostFile
from viacheck.parsers.comments import without_comments

RT_TABLES = ("/etc/iproute2/rt_tables", "/usr/share/iproute2/rt_tables")
RT_TABLE_FOLDERS = ("/etc/iproute2/rt_tables.d", "/usr/share/iproute2/rt_tables.d")


def table_files() -> tuple[HostFile, ...]:
    """Read the files that name routing tables."""
    paths = list(RT_TABLES)
    for folder in RT_TABLE_FOLDERS:
        paths += [f"{folder}/{name}" for name in names_in(folder) if name.endswith(".conf")]
    return tuple(map(_table_file, paths))


def _table_file(path: str) -> HostFile:
    try:
        text, mode = read_text(path)
    except FileNotFoundError:
        return HostFile(path=path, exists=False)
    except OSError as error:
        return HostFile(path=path, exists=True, error=error.strerror)
    return HostFile.kept(path, text, without_comments(text), mode)
