"""A file is written whole or not at all, under every way in which a write can fail."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from viacheck.atomic_file import atomic_file, write_file


def _write_half(target: Path) -> None:
    with atomic_file(target) as file:
        file.write(b"half of")
        raise KeyboardInterrupt


def test_a_failed_write_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_file(target, "older")
    with pytest.raises(TypeError):
        write_file(target, None)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        _write_half(target)
    assert target.read_text() == "older"
    assert list(tmp_path.iterdir()) == [target]


def test_a_reader_meets_the_old_content_until_the_new_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_file(target, "older")
    with atomic_file(target) as file:
        file.write(b"newer")
        assert target.read_text() == "older"
    assert target.read_text() == "newer"


def test_the_mode_holds_from_the_first_byte(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    target.write_text("older")
    target.chmod(0o644)
    with atomic_file(target, mode=0o600):
        (temporary,) = (path for path in tmp_path.iterdir() if path != target)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("untouched")
    link.symlink_to(victim)
    write_file(link, "new")
    assert (victim.read_text(), link.read_text(), link.is_symlink()) == ("untouched", "new", False)


@pytest.mark.parametrize("kind", ["fifo", "socket", "link"])
def test_a_special_file_is_refused_and_stays(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    if kind == "link":
        target.symlink_to("/dev/null")
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(target))
        listener.close()
    before = target.lstat()
    with pytest.raises(OSError, match="not a regular file"):
        write_file(target, "new")
    assert target.lstat().st_ino == before.st_ino
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_must_not_be_replaced_stays(tmp_path: Path) -> None:
    target = tmp_path / "site.toml"
    write_file(target, "first", replace=False)
    with pytest.raises(FileExistsError):
        write_file(target, "second", replace=False)
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_name_in_the_current_folder_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_file("report.html", "a lone surrogate: \udcff")
    assert (tmp_path / "report.html").read_bytes() == b"a lone surrogate: \\udcff"
