"""viacheck in a container beside the agent: it judges the host around it, with the verdicts of a run on the host."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.lab import Lab
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from tests.helpers.front_door import Finished, command, finished
from tests.helpers.hand_made import SITE, write_site
from tests.helpers.one_file import packed_once
from tests.helpers.slim_image import build_image, import_base
from viacheck.host.outer_host import OPTIONS
from viacheck.model.result import RunResult
from viacheck.model.verdict import Verdict

_BASE = BaseRoot(DEFAULT_RELEASE)
_MISSING = missing_requirement() or missing_for(_BASE)
pytestmark = [
    pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING)),
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command"),
]
MANAGED_SITE = (
    SITE.replace('netns = "/run/netns/agent"', 'container = "te-agent"')
    .replace('bridge = "docker0"', 'network = "bridge"')
    .replace('persist = "none"\n', "")
)
"""Whatever manages the uplink must have the rule: the container has to find ifupdown's files, and ifupdown."""
JUDGE = ("--local", "--site", "site.toml", "--report-dir")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A policy-routing host with ifupdown and an engine, on which the agent runs and the image is built."""
    _BASE.build(lambda _line: None)
    with contextlib.closing(open_lab(LabSpec("policy-routing-ifupdown", "engine"))) as lab:
        assert lab.engine is not None
        import_base(lab.engine.client, _BASE.path)
        build_image(lab.engine.client, packed_once(tmp_path_factory))
        yield lab


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_site(tmp_path, MANAGED_SITE).parent


def on_host(lab: Lab, *argv: str) -> list[str]:
    """The command line that runs a command where the engine's process numbers are true, with its docker command."""
    assert lab.engine is not None
    inside = ["nsenter", "--target", str(lab.engine.pid), "--mount", "--pid", "--net"]
    return [*inside, "env", "DOCKER_HOST=unix:///run/docker.sock", *argv]


def docker_run(lab: Lab, folder: Path, *arguments: str, options: tuple[str, ...] = OPTIONS) -> list[str]:
    """The command line by which the host's operator starts the container in a folder."""
    place = ("-v", f"{folder}:{folder}", "-w", str(folder))
    return on_host(lab, "docker", "run", *options, *place, "viacheck", *arguments)


def judge_by_both(lab: Lab, folder: Path, *arguments: str) -> tuple[Finished, Finished]:
    """Judge the host by a run on it and by the container."""
    native = on_host(lab, "env", "-C", str(folder), *command(*JUDGE, "native", *arguments))
    inside = docker_run(lab, folder, *JUDGE, "inside", *arguments)
    return finished(native, folder / "native"), finished(inside, folder / "inside")


def judged(outcome: RunResult) -> dict[tuple[str, str | None], object]:
    """Everything that a result says, without the times that were measured."""
    return {
        (r.check, r.case): (r.verdict, r.expected, r.diagnosis, r.observed.partition("; round trip")[0])
        for r in outcome.results
    }


def test_it_judges_the_host_as_a_run_on_the_host_does(host: Lab, folder: Path) -> None:
    native, inside = judge_by_both(host, folder)
    assert (native.exit_code, inside.exit_code) == (0, 0), native.said + inside.said
    assert judged(inside.outcome) == judged(native.outcome)
    decided = {r.check for r in inside.outcome.results if r.verdict is Verdict.PASS}
    assert {"HOST-01", "HOST-07", "NAT-02", "ROUTE-05", "EGRESS-01", "EGRESS-04", "PERSIST-01", "PERSIST-02"} <= decided
    here, there = (done.outcome.targets[0].snapshot for done in (native, inside))
    assert here is not None
    assert there is not None
    for part in ("hostname", "files", "programs", "manager_answers", "host_resolvers"):
        assert there[part] == here[part], part
    assert any(file["path"] == "/etc/network/interfaces" and file["exists"] for file in there["files"])
    assert {"nothing on this host was changed"} == set(inside.outcome.targets[0].notes)
    assert {path.name for path in (folder / "inside").iterdir()} >= {"report.html", "bundle.tar.gz", "captures"}


def test_it_fails_as_a_run_on_the_host_does(host: Lab, folder: Path) -> None:
    interfaces = host.host.run("cat", "/etc/network/interfaces").stdout
    without = "".join(line for line in interfaces.splitlines(keepends=True) if "ip rule" not in line)
    assert without != interfaces
    host.host.ip("rule", "del", "from", "172.17.0.0/16", "lookup", "200")
    host.host.write("/etc/network/interfaces", without)
    try:
        native, inside = judge_by_both(host, folder, "-k", "HOST-07 or ROUTE-02 or EGRESS-01 or PERSIST")
    finally:
        host.host.write("/etc/network/interfaces", interfaces)
        host.host.ip("rule", "add", "from", "172.17.0.0/16", "lookup", "200")
    assert (native.exit_code, inside.exit_code) == (1, 1), native.said + inside.said
    assert judged(inside.outcome) == judged(native.outcome)
    failed = {r.check for r in inside.outcome.results if r.verdict is Verdict.FAIL}
    assert {"ROUTE-02", "EGRESS-01", "PERSIST-01"} <= failed


def without(*options: str) -> tuple[str, ...]:
    """The options of docker run without some of them, each with its value."""
    pairs = [OPTIONS[:1], *zip(OPTIONS[1::2], OPTIONS[2::2], strict=True)]
    return tuple(word for pair in pairs if not {"=".join(pair), pair[-1]} & set(options) for word in pair)


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        (without("--pid=host"), "the host's processes (--pid host)"),
        (without("--net=host"), "the host's network (--net host)"),
        (without("SYS_PTRACE"), "CAP_SYS_PTRACE (--cap-add SYS_PTRACE)"),
        (
            ("--rm", "--cap-drop", "NET_RAW", "--cap-drop", "SYS_CHROOT"),
            "CAP_NET_ADMIN (--cap-add NET_ADMIN); CAP_NET_RAW (--cap-add NET_RAW); CAP_SYS_CHROOT (--cap-add "
            "SYS_CHROOT); CAP_SYS_PTRACE (--cap-add SYS_PTRACE); CAP_SYS_ADMIN (--cap-add SYS_ADMIN); "
            "the host's processes (--pid host)",
        ),
    ],
)
def test_it_says_at_once_what_is_missing(host: Lab, folder: Path, options: tuple[str, ...], lacking: str) -> None:
    words = docker_run(host, folder, "--local", "--site", "site.toml", options=options)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    refusal, line = done.stderr.strip().removeprefix("ERROR: ").splitlines()
    assert refusal == f"this container cannot judge its host: it lacks {lacking}"
    assert line == (f'run: docker run {" ".join(OPTIONS)} -v "$PWD:$PWD" -w "$PWD" viacheck --local --site site.toml')
    assert not (folder / "viacheck-reports").exists()


def test_a_folder_that_is_not_mounted_and_disruptions_are_refused(host: Lab, folder: Path) -> None:
    words = on_host(host, "docker", "run", *OPTIONS, "viacheck", "--local", "--site", "site.toml")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "it lacks /site.toml, which is not in the container (-v, -w)" in done.stderr
    words = docker_run(host, folder, "--local", "--site", "site.toml", "--allow-disruptive")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "run viacheck.pyz on the host for it" in done.stderr


COMMANDS = (
    "collect --site site.toml",
    "watch --site site.toml",
    "site init -o draft.toml",
    "explain --local --site site.toml --to 203.0.113.9",
)


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_that_reads_the_host_says_so(host: Lab, folder: Path, line: str) -> None:
    done = subprocess.run(
        docker_run(host, folder, *line.split(), options=("--rm",)), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "this container cannot judge its host: it lacks CAP_NET_ADMIN" in done.stderr
    assert f'-w "$PWD" viacheck {line}\n' in done.stderr
    assert [path.name for path in folder.iterdir()] == ["site.toml"]


def test_other_commands_of_the_container(host: Lab, folder: Path) -> None:
    """A draft of the site file names the agent of the host's engine, which no socket was mounted for."""
    words = docker_run(host, folder, "site", "init", "-o", "draft.toml")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    draft = (folder / "draft.toml").read_text()
    assert 'container = "te-agent"' in draft
    assert '"ifupdown"' in draft or "wlan0rt" in draft
