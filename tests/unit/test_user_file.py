"""A file that a user names must be a regular file: a FIFO, a device or a directory is one line, exit status 4."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.front_door import sub_command
from viacheck.host import files
from viacheck.host.namespace import NotANamespace, open_netns
from viacheck.user_file import open_file, read_file, special_kind_of

SITE = """schema = 1
site.name = "special"
agent = {{ netns = "{}", attach = {{ mode = "nat", bridge = "docker0" }} }}
uplinks = {{ wlan0 = {{ gateway = "10.10.50.1" }} }}
egress.uplink = "wlan0"
"""
COMMANDS = {
    "--site": ("run", "--local", "--site"),
    "--bundle": ("run", "--bundle"),
    "--twin": ("run", "--twin"),
    "--apply": ("run", "--lab", "nat", "--apply"),
    "report": ("report",),
    "diff": ("diff", "fifo"),
    "collect": ("collect", "--site"),
    "explain": ("explain", "--to", "192.0.2.1", "--bundle"),
}


def special_files(folder: Path) -> dict[str, Path]:
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    return {
        "a FIFO": folder / "fifo", "a directory": folder, "a device": Path("/dev/zero"), "a socket": folder / "socket",
    }  # fmt: skip


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    for kind, path in special_files(tmp_path).items():
        assert special_kind_of(str(path)) == kind
        with pytest.raises(OSError, match=f"is {kind}, not a regular file"):
            open_file(path)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "absent")
    assert special_kind_of(str(tmp_path / "absent")) is None


def _read_file(path: Path) -> None:
    assert files.read_file(str(path))[0] == b""


def _read_text_in(path: Path) -> None:
    assert files.read_text_in(str(path.parent), f"/{path.name}") == ""


def _open_netns(path: Path) -> None:
    with pytest.raises(NotANamespace, match="is not a network namespace"):
        open_netns(str(path))


def _open_file(path: Path) -> None:
    with pytest.raises(OSError, match="is a FIFO"):
        open_file(path)


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("read", [_open_file, _read_file, _read_text_in, _open_netns])
def test_a_file_that_is_not_regular_is_not_opened(tmp_path: Path, read: Callable[[Path], None]) -> None:
    # A writer of a FIFO goes on when the FIFO is opened for reading, as a device's driver does what an open means.
    fifo = special_files(tmp_path)["a FIFO"]
    writer = subprocess.Popen(["sh", "-c", 'exec >"$1"', "sh", fifo])
    try:
        end = time.monotonic() + 10
        while not _sleeps(writer.pid):
            assert time.monotonic() < end
            time.sleep(0.01)
        read(fifo)
        assert _sleeps(writer.pid)
    finally:
        writer.kill()
        writer.wait()


def test_links_of_a_container_lead_to_its_own_files(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "run").mkdir(parents=True)
    (root / "run/resolv.conf").write_text("own")
    outside.write_text("the host's")
    for name, target in (("absolute", "/run/resolv.conf"), ("relative", "../../../run/resolv.conf")):
        (root / name).symlink_to(target)
        assert files.read_text_in(str(root), f"/{name}") == "own"
    (root / "etc").symlink_to(tmp_path)
    for path in ("/etc/outside", f"{outside}", "/../outside"):
        with pytest.raises(OSError, match="openat2"):
            files.read_text_in(str(root), path)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"12345")
    assert read_file(path, largest=5) == b"12345"
    with pytest.raises(OSError, match="is larger than"):
        read_file(path, largest=4)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_a_fifo_in_one_line(tmp_path: Path, name: str) -> None:
    path = special_files(tmp_path)["a FIFO"]
    done = sub_command(*COMMANDS[name], path, cwd=tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert "is a FIFO, not a regular file" in lines[0]


@pytest.mark.parametrize("kind", ["a FIFO", "a directory", "a device"])
def test_the_agents_namespace_is_no_special_file(tmp_path: Path, kind: str) -> None:
    site = tmp_path / "site.toml"
    site.write_text(SITE.format(special_files(tmp_path)[kind]))
    done = sub_command("run", "--local", "--site", site, cwd=tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert len(done.stderr.split("\n\n")[0].splitlines()) == 1, done.stderr
    assert f"is {kind}, not a network namespace" in done.stderr
