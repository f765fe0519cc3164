"""A fleet over real sshds in namespaces: hosts that are good, that have faults, and that cannot be judged."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reports.report_files import read_outcome
from tests.helpers.front_door import VIACHECK, sub_command
from tests.helpers.hand_made import SITE, HandMadeHost, apply_the_guides_recipe, hand_made_host
from tests.helpers.ssh_host import SSHD, SSHWorld
from viacheck.model.result import Verdict

needs_sudo = pytest.mark.skipif(shutil.which("sudo") is None, reason="needs the package sudo")
HERE = f"3.{sys.version_info.minor}-{platform.machine()}"
pytestmark = [
    pytest.mark.skipif(not SSHD.exists(), reason="needs the package openssh-server"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@dataclass(frozen=True)
class Fleet:
    """A fleet and the folder of its files."""

    folder: Path
    world: SSHWorld

    def words(self, *options: str | Path) -> list[str]:
        """The command line of a run over it."""
        return [
            "fleet", "run", "--inventory", f"{self.folder}/hosts", "--sites", f"{self.folder}/sites",
            "--pack", f"{self.folder}/viacheck.pyz", "--ssh-config", str(self.world.config),
            "-k", "HOST-02 or ROUTE-02 or EGRESS-01", *map(str, options),
        ]  # fmt: skip

    def run(self, *options: str | Path) -> subprocess.CompletedProcess[str]:
        """Run over it."""
        return sub_command(*self.words(*options))


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A server that takes connections and never says a word; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def good() -> Iterator[HandMadeHost]:
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        yield host


@pytest.fixture(scope="module")
def broken() -> Iterator[HandMadeHost]:
    """A host on which no rule was typed."""
    with hand_made_host() as host:
        host.run("sh", "-c", "echo 200 wlan0rt >> /etc/iproute2/rt_tables")
        host.ip("route add default via 10.10.50.1 dev wlan0 table wlan0rt")
        yield host


@pytest.fixture(scope="module")
def fleet(good: HandMadeHost, broken: HandMadeHost, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("fleet")
    world = SSHWorld(folder)
    bare = folder / "bare-path"
    bare.mkdir()
    for program in ("sh", "mkdir", "mktemp", "rm", "cat", "head", "tail", "id", "timeout"):
        (bare / program).symlink_to(f"/usr/bin/{program}")
    world.serve("good", good)
    world.serve("broken", broken)
    world.serve("other-key", good, key="other")
    world.serve("no-python", good, path=str(bare), cache=folder / "empty")
    full = folder / "full"
    good.run("mkdir", str(full))
    good.run("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(full))
    world.serve("no-space", good, cache=full)
    world.entry("down", "HostName 127.0.0.1", "Port 1")
    world.entry("no-name", "HostName none.invalid")
    names = ["good", "broken", "other-key", "no-python", "no-space", "down", "no-name"]
    (folder / "hosts").write_text("\n".join(names) + "\n")
    sites = folder / "sites"
    sites.mkdir()
    for name in [*names, "hangs"]:
        (sites / f"{name}.toml").write_text(SITE.replace("by-hand", name))
    done = sub_command("pack", "--only", HERE, "-o", folder / "viacheck.pyz")
    assert done.returncode == 0, done.stderr
    return Fleet(folder, world)


@pytest.fixture(scope="module")
def run(fleet: Fleet) -> subprocess.CompletedProcess[str]:
    return fleet.run("--report-dir", fleet.folder / "report")


def test_each_host_has_its_own_verdict(fleet: Fleet, run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 1, run.stderr
    outcomes = {
        name: read_outcome(fleet.folder / "report" / "hosts" / name / "result.json") for name in ("good", "broken")
    }
    assert {name: outcome.targets[0].verdict for name, outcome in outcomes.items()} == {
        "good": "pass",
        "broken": "fail",
    }
    assert [(t.id, t.kind) for t in outcomes["good"].targets] == [("remote:good", "remote")]
    codes = {r.diagnosis.code for r in outcomes["broken"].results if r.verdict is Verdict.FAIL and r.diagnosis}
    assert codes == {"RULE_MISSING"}
    assert "RULE_MISSING on 1 host (fail)" in run.stdout
    assert "1 of 7 hosts pass" in run.stdout
    assert (fleet.folder / "report" / "index.html").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("down", "ssh: connect to host 127.0.0.1 port 1: Connection refused"),
        ("other-key", "Host key verification failed."),
        ("no-python", "viacheck: needs Python 3.11 or newer on PATH; python3 is: missing"),
        ("no-space", "No space left on device"),
        ("no-name", "ssh: Could not resolve hostname none.invalid: "),
    ],
)
def test_a_host_that_cannot_be_judged_says_why(
    name: str, words: str, fleet: Fleet, run: subprocess.CompletedProcess[str]
) -> None:
    outcome = read_outcome(fleet.folder / "report" / "hosts" / name / "result.json")
    assert outcome.results == []
    assert words in outcome.targets[0].notes[0]
    assert f"not-run       {name}: Nothing was decided: " in run.stdout


def test_nothing_but_the_cache_stays_on_a_host(fleet: Fleet, run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 1
    cache = fleet.folder / "cache" / "viacheck"
    assert [len(path.name) for path in cache.iterdir()] == [32]
    assert cache.stat().st_mode & 0o777 == 0o700


def test_resuming_judges_only_what_is_missing(fleet: Fleet, run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 1
    before = (fleet.folder / "report" / "hosts" / "good" / "result.json").stat().st_mtime_ns
    again = fleet.run("--report-dir", fleet.folder / "report", "--resume", "--limit", "good,broken,down")
    assert again.returncode == 1
    assert "2 hosts judged before, 1 host to judge" in again.stdout
    assert "[1/1] not-run       down" in again.stdout
    assert (fleet.folder / "report" / "hosts" / "good" / "result.json").stat().st_mtime_ns == before


def test_a_host_that_hangs_ends_with_its_time_limit(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("hangs\n")
    with silent_server() as port:
        fleet.world.entry("hangs", "HostName 127.0.0.1", f"Port {port}")
        done = fleet.run("--inventory", tmp_path / "hosts", "--report-dir", tmp_path / "report", "--host-timeout", "10")
    assert done.returncode == 1
    assert "hangs: Nothing was decided: no result within 10 s" in done.stdout


@pytest.fixture(scope="module")
def by_sudo(fleet: Fleet, broken: HandMadeHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an inventory of a host that an ordinary user reaches, who may use sudo with a password."""
    folder = tmp_path_factory.mktemp("sudo")
    fleet.world.add_user(broken, "probe", "right")
    fleet.world.serve("by-sudo", broken)
    fleet.world.entry("by-sudo", "User probe")
    (folder / "hosts").write_text("by-sudo\n")
    (fleet.folder / "sites" / "by-sudo.toml").write_text(SITE)
    return folder


@needs_sudo
def test_sudo_that_asks_is_named(fleet: Fleet, by_sudo: Path) -> None:
    done = fleet.run("--inventory", by_sudo / "hosts", "--report-dir", by_sudo / "asks")
    assert done.returncode == 1
    assert "by-sudo: Nothing was decided: sudo: a password is required." in done.stdout


@needs_sudo
@pytest.mark.parametrize(("password", "verdict"), [("right", "fail"), ("wrong", "not-run")])
def test_the_password_of_sudo_is_asked_for_once(password: str, verdict: str, fleet: Fleet, by_sudo: Path) -> None:
    words = fleet.words("--inventory", by_sudo / "hosts", "--report-dir", by_sudo / password, "--ask-become-pass")
    done = subprocess.run(
        [*VIACHECK, *words], input=f"{password}\n", capture_output=True, text=True, start_new_session=True, timeout=120
    )
    assert f"[1/1] {verdict:<13} by-sudo: " in done.stdout, done.stdout + done.stderr
    if verdict == "not-run":
        assert "incorrect password attempt" in done.stdout


def test_an_interrupted_run_ends_soon_and_reports_what_was_judged(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("good\nhangs\n")
    with silent_server() as port:
        fleet.world.entry("hangs", "HostName 127.0.0.1", f"Port {port}")
        argv = [*VIACHECK, *fleet.words("--inventory", tmp_path / "hosts", "--report-dir", tmp_path / "report")]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, preexec_fn=_default_signals)
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("[1/2] pass          good: "), first
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        rest, _ = process.communicate(timeout=60)
        took = time.monotonic() - began
    assert process.returncode == 130
    assert took < 3, rest
    assert "[2/2] not-run       hangs: Nothing was decided: interrupted while this host was judged." in rest
    assert "This run was interrupted by SIGINT" in rest
    assert "1 of 2 hosts pass" in rest


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--limit", "x*"), "viacheck fleet run: --limit: no host of {folder}/hosts matches 'x*'\n"),
        (("--resume",), "viacheck fleet run: --resume: needs the --report-dir of the run that it continues\n"),
        (("--pack", "/dev/null"), "viacheck fleet run: --pack: /dev/null: is a device, not a regular file\n"),
        (("-P", "0"), "viacheck fleet run: argument -P/--parallel: '0' is not a number from 1 to 500\n"),
    ],
)
def test_a_wrong_option_is_one_line(options: tuple[str, ...], line: str, fleet: Fleet) -> None:
    done = fleet.run(*options)
    assert (done.returncode, done.stderr) == (4, line.format(folder=fleet.folder))
