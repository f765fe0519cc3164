"""``viacheck restore`` after runs that were killed together with their watchdog, and its messages when it fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.guarded_host import GuardedHost, guarded_run, locked_by_another, wait_for_end
from viacheck.guard.guard import guard
from viacheck.guard.saved_state import FINISHED, UNFINISHED


@pytest.fixture
def host() -> Iterator[GuardedHost]:
    host = GuardedHost()
    yield host
    host.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "viacheck"


def restore(host: GuardedHost, folder: Path, *words: str) -> tuple[int, str]:
    """Run the command in the host's namespace; returns its exit status and what it said."""
    state = [] if "--state" in words else ["--state", str(folder / UNFINISHED)]
    argv = [sys.executable, "-m", "viacheck.cli.main", "restore", *state, *words]
    process = host.start(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def interrupt(host: GuardedHost, folder: Path, step: int) -> None:
    """Kill a run in the middle of its change, its watchdog first."""
    with guarded_run(host, folder, pause_at=step) as run:
        run.reach(step)
        os.kill(run.watchdog, signal.SIGKILL)
        run.process.kill()
        wait_for_end(run.watchdog, 5, "the watchdog is gone")
    assert (folder / UNFINISHED).exists()


@pytest.mark.parametrize("step", [0, 4, 9])
def test_it_finishes_what_run_and_watchdog_left_undone(host: GuardedHost, folder: Path, step: int) -> None:
    before = host.state()
    interrupt(host, folder, step)
    assert host.state() != before
    status, said = restore(host, folder)
    assert status == 0
    assert said.splitlines()[-1].startswith("the network equals the state saved at ")
    assert "restored route: default via 10.10.50.1 dev wl0 src 10.10.50.10 table 200 proto boot" in said
    assert host.state() == before
    assert not (folder / UNFINISHED).exists()


def test_it_can_be_asked_again_and_again(host: GuardedHost, folder: Path) -> None:
    before = host.state()
    interrupt(host, folder, 4)
    shutil.copy(folder / UNFINISHED, folder / "kept.json")
    assert restore(host, folder)[0] == 0
    status, said = restore(host, folder)
    assert status == 0
    assert said.startswith("nothing to restore; the last run already restored the state saved at ")
    for _again in range(2):
        status, said = restore(host, folder, "--state", str(folder / "kept.json"))
        assert status == 0
        assert said.startswith("the network equals the state saved at ")
    assert host.state() == before


def test_what_others_changed_meanwhile_is_left_alone(host: GuardedHost, folder: Path) -> None:
    interrupt(host, folder, 0)
    host.ip("rule add priority 700 from 10.66.0.0/16 lookup 66")
    status, said = restore(host, folder)
    assert status == 0
    assert "not touched: changed by something else: + rule: priority 700 from 10.66.0.0/16 lookup 66" in said
    assert "10.66.0.0/16" in host.ip("rule show")


def test_a_restore_that_was_itself_interrupted_is_finished(host: GuardedHost, folder: Path) -> None:
    before = host.state()
    interrupt(host, folder, 9)
    # As far as another restore may have come.
    host.ip("address add 10.10.50.9/24 dev wl0")
    host.ip("rule add priority 1000 from 172.17.0.0/16 lookup 200")
    assert restore(host, folder)[0] == 0
    assert host.state() == before


def test_what_cannot_be_put_back_is_told_until_it_is_given_up(host: GuardedHost, folder: Path) -> None:
    interrupt(host, folder, 0)
    host.ip("link del wl0")
    for _again in range(2):
        status, said = restore(host, folder)
        assert status == 1
        assert "the network differs from the state saved at" in said
        assert "  - link: wl0 is missing and is not recreated" in said.splitlines()
    status, said = restore(host, folder, "--forget")
    assert (status, said) == (0, f"{folder / UNFINISHED}: deleted; the network stays as it is\n")
    assert restore(host, folder)[0] == 4


def test_without_a_saved_state_it_says_so(host: GuardedHost, folder: Path) -> None:
    assert restore(host, folder) == (4, f"viacheck restore: {folder / UNFINISHED}: there is no saved state\n")
    other = folder / "other.json"
    assert restore(host, folder, "--state", str(other)) == (4, f"viacheck restore: {other}: there is no saved state\n")


@pytest.mark.parametrize("options", [(), ("--forget",)], ids=["restore", "forget"])
def test_a_path_that_names_another_kind_of_file_is_refused_and_stays(
    host: GuardedHost, folder: Path, options: tuple[str, ...]
) -> None:
    folder.mkdir(mode=0o700)
    fifo, other = folder / "fifo", folder / "other"
    os.mkfifo(fifo)
    other.write_text("a file of somebody\n")
    assert restore(host, folder, "--state", str(fifo), *options) == (
        4, f"viacheck restore: {fifo}: is a FIFO, not a regular file\n",
    )  # fmt: skip
    status, said = restore(host, folder, "--state", str(other), *options)
    assert (status, said.count("\n")) == (4, 1)
    assert said.startswith(f"viacheck restore: {other}: not a saved state")
    assert other.exists()


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "viacheck.saved-state/1"}', '{"schema": "something/2"}', "[1]"])
def test_a_file_that_holds_something_else_is_no_saved_state(host: GuardedHost, folder: Path, text: str) -> None:
    folder.mkdir(mode=0o700)
    (folder / UNFINISHED).write_text(text)
    status, said = restore(host, folder)
    assert status == 4
    assert said.startswith(f"viacheck restore: {folder / UNFINISHED}: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("boot_id", "another", "before this system's last start"),
        ("namespace", 1, "was saved in another network namespace, net:[1]"),
    ],
)
def test_a_state_of_another_place_or_time_is_not_put_back(
    host: GuardedHost, folder: Path, key: str, value: object, words: str
) -> None:
    interrupt(host, folder, 0)
    path = folder / UNFINISHED
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    now = host.state()
    status, said = restore(host, folder)
    assert status == 4
    assert words in said
    assert host.state() == now


def test_while_a_run_goes_on_it_says_whose(host: GuardedHost, folder: Path) -> None:
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder), command="./viacheck --local"):
        host.ip("link set wl0 down")
        status, said = restore(host, folder)
        assert status == 1
        assert f"pid {os.getpid()} (./viacheck --local), since " in said
    assert (folder / FINISHED).exists()


def test_a_held_lock_without_a_state_is_no_reason_to_restore(host: GuardedHost, folder: Path) -> None:
    with locked_by_another(folder):
        assert restore(host, folder)[0] == 4


def test_an_option_that_is_not_known_is_a_usage_error(host: GuardedHost, folder: Path) -> None:
    status, said = restore(host, folder, "--everything")
    assert status == 4
    shown = "('viacheck restore --help' shows what is allowed)"
    assert said == f"viacheck restore: unknown option '--everything' {shown}\n"


def test_it_is_one_of_the_words_of_viacheck(tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    done = subprocess.run(
        [sys.executable, "-m", "viacheck.cli.main", "restore", "--state", str(missing)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (4, f"viacheck restore: {missing}: there is no saved state\n")
