"""Reports are written into own folders only, through their descriptors, and closed to other users."""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path

import pytest

from reports.report_files import write_outcome
from tests.helpers.front_door import viacheck
from tests.helpers.sample_outcomes import healthy
from viacheck.atomic_file import write_file
from viacheck.private_folder import make_private_folder, open_private_folder

STRANGER = 65534
IS_ROOT = os.geteuid() == 0
NEEDS_ROOT = pytest.mark.skipif(not IS_ROOT, reason="only root can give a folder to another user")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_report_is_closed_to_other_users(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    previous = os.umask(0)
    try:
        write_outcome(healthy(), folder)
    finally:
        os.umask(previous)
    assert mode_of(folder) == 0o700
    assert {path.name: mode_of(path) for path in folder.iterdir()} == dict.fromkeys(
        ("result.json", "junit.xml", "report.html"), 0o600
    )


def test_a_group_may_read_the_files_of_a_folder_that_is_open_to_it(tmp_path: Path) -> None:
    group = os.getgroups()[-1] if os.getgroups() else os.getegid()
    folder = tmp_path / "report"
    make_private_folder(folder, group)
    write_file(folder / "file", "text", private=True)
    assert (mode_of(folder), folder.stat().st_gid) == (0o750, group)
    assert (mode_of(folder / "file"), (folder / "file").stat().st_gid) == (0o640, group)


def test_a_planted_link_is_no_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "report"
    link.symlink_to(target)
    for action in (make_private_folder, open_private_folder):
        with pytest.raises(OSError, match="is a symbolic link, not a folder"):
            action(link)
    with pytest.raises(OSError, match="is a symbolic link, not a folder"):
        write_file(link / "file", "text", private=True)
    assert not list(target.iterdir())


@NEEDS_ROOT
def test_the_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    os.chown(folder, STRANGER, -1)
    with pytest.raises(OSError, match=f"belongs to another user .uid {STRANGER}."):
        make_private_folder(folder)
    with pytest.raises(OSError, match="belongs to another user"):
        write_file(folder / "file", "text", private=True)
    assert not list(folder.iterdir())


def test_a_planted_link_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    folder = tmp_path / "report"
    make_private_folder(folder)
    (folder / "result.json").symlink_to(victim)
    write_file(folder / "result.json", "text", private=True)
    assert victim.read_text() == "untouched"
    assert (folder / "result.json").read_text() == "text"
    assert not (folder / "result.json").is_symlink()


@pytest.mark.parametrize("planted", ["report", "captures"])
def test_a_run_refuses_a_planted_link_in_one_line(tmp_path: Path, planted: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    report = tmp_path / "report"
    if planted == "report":
        report.symlink_to(target)
    else:
        report.mkdir()
        (report / "captures").symlink_to(target)
    run = viacheck("--lab", "nat", "-k", "HOST-02", report_dir=report)
    assert run.exit_code == 4, run.said
    (line,) = filter(None, run.stderr.splitlines())
    assert "is a symbolic link, not a folder" in line
    assert not list(target.iterdir())


def test_a_run_opens_its_report_to_a_group(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid())
    report = tmp_path / "report"
    run = viacheck("--lab", "nat", "-k", "HOST-02 or EGRESS-01", "--group", group.gr_name, report_dir=report)
    assert run.exit_code == 0, run.said
    for path in (report, *report.rglob("*")):
        assert mode_of(path) == (0o750 if path.is_dir() else 0o640), path
        assert path.stat().st_gid == group.gr_gid
    assert list(report.glob("captures/*.pcapng"))


def test_an_unknown_group_is_one_line(tmp_path: Path) -> None:
    run = viacheck("--lab", "nat", "--group", "no-such-group", report_dir=tmp_path / "report")
    assert run.exit_code == 4
    assert [line for line in run.stderr.splitlines() if line] == [
        "ERROR: --group: this host has no group 'no-such-group'"
    ]
