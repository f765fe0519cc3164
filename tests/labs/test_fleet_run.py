"""A fleet over real sshds in namespaces: hosts that are good, that have faults, that cannot be judged.

By default 21 hosts: each kind of fault and each host that cannot be judged, and few that are like another one. With
``--soak`` the fleet has 50 hosts: 22 more good ones, and every kind of fault twice.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from netns_lab.faults import FAULTS
from netns_lab.lab_specs import parse_labs
from netns_lab.open_lab import open_lab
from netns_lab.services.ssh_host import SSHD, SSHWorld
from reports.fleet_report import HostSummary, outliers, summarise
from reports.report_files import read_outcome
from tests.helpers.front_door import VIACHECK, sub_command
from tests.helpers.one_file import packed_once
from tests.helpers.paths import ROOT
from tests.helpers.terminal import at_a_terminal
from viacheck.bench import fleet_controllers
from viacheck.model.result import RunResult
from viacheck.model.verdict import Verdict

pytestmark = [
    pytest.mark.skipif(not SSHD.exists(), reason="needs the package openssh-server"),
    pytest.mark.skipif(shutil.which("sudo") is None, reason="needs the package sudo"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

SITE_TEMPLATE = """\
schema = 1
[site]
name = {{ inventory_hostname | tojson }}
[agent]
netns = "/run/netns/agent"
[agent.attach]
mode = "nat"
bridge = "docker0"
[uplinks.eth0]
gateway = "10.10.40.1"
{% if agent_uplink == "eth0" %}
[egress]
uplink = "eth0"
{% else %}
[uplinks.{{ agent_uplink }}]
gateway = {{ agent_gateway | tojson }}
[egress]
uplink = {{ agent_uplink | tojson }}
table = 200
table_name = "wlan0rt"
persist = "none"
survives = []
{% endif %}
[host]
default_exit = "eth0"
[probe]
target = "198.51.100.1"
timeout = "1s"
"""
INVENTORY = """\
all:
  vars: {{agent_uplink: wlan0, agent_gateway: 10.10.50.1}}
  hosts: {{{others}}}
  children:
    healthy: {{hosts: {{{healthy}}}}}
    faulty: {{hosts: {{{faulty}}}}}
    broken: {{hosts: {{{broken}}}}}
"""
HEALTHY = [f"good-{number:02}" for number in range(1, 26)]
FEWEST_HEALTHY = 3
OTHER_RECIPE = "by-default-route"
"""A good host whose agent has no uplink of its own."""
KINDS = (
    "rule-missing", "subnet-overlap", "table-empty", "table-wrong-uplink", "forwarding-off", "uplink-down",
    "forward-dropped", "default-exit-wrong",
)  # fmt: skip
FAULTY = {f"{kind}-{number}": kind for kind in KINDS for number in (1, 2)}
FEWER_FAULTY = {name: kind for name, kind in FAULTY.items() if name.endswith("-1") or kind == KINDS[0]}
BROKEN = {
    "down": "ssh: connect to host 127.0.0.1 port 1: Connection refused",
    "hangs": "Connection timed out during banner exchange",
    "no-name": "ssh: Could not resolve hostname none.invalid: ",
    "other-key": "Host key verification failed.",
    "not-let-in": "Permission denied (publickey",
    "no-python": "viacheck: needs Python 3.11 or newer on PATH; python3 is: missing",
    "no-space": "No space left on device",
    "wrong-password": "sudo: 1 incorrect password attempt",
}
"""What each host says that cannot be judged, in the words of OpenSSH, sudo or the host."""
TOOLS = (
    "sh", "mkdir", "mktemp", "rm", "mv", "cat", "head", "tail", "id", "timeout", "dd", "tar", "gzip", "date", "uname",
    "ls", "ip", "nsenter", "sha256sum", "readlink",
)  # fmt: skip
"""All that a host without Python has on its PATH."""
PARALLEL = "4"
"""The probes of more hosts at once would wait for the processors of a small machine."""


@dataclass(frozen=True)
class Fleet:
    """A fleet and the folder of its files."""

    folder: Path
    world: SSHWorld
    healthy: list[str]
    faulty: dict[str, str]
    """Kinds of faults by host."""
    silent: socket.socket
    """Of the host that hangs."""

    @property
    def size(self) -> int:
        """How many hosts it has."""
        return len([*self.healthy, OTHER_RECIPE, *self.faulty, *BROKEN])

    def words(self, *options: str | Path) -> list[str]:
        """The command line of a run over it."""
        return [
            "fleet", "run", "--inventory", f"{self.folder}/hosts.yml", "-P", PARALLEL,
            "--site-template", f"{self.folder}/site.toml.j2", "--ssh-config", str(self.world.config),
            "-k", "HOST or ROUTE or EGRESS-01", *map(str, options),
        ]  # fmt: skip

    def judging(self, *options: str | Path) -> list[str]:
        """The command line of a run in which viacheck itself is sent to the hosts."""
        return self.words("--pack", self.folder / "viacheck.pyz", *options)

    def run(self, *options: str | Path) -> subprocess.CompletedProcess[str]:
        """Judge hosts by viacheck on them."""
        return sub_command(*self.judging(*options))

    def outcome(self, name: str) -> RunResult:
        """The saved result of a host, of the run over all hosts."""
        return read_outcome(self.folder / "report" / "hosts" / name / "result.json")


@contextlib.contextmanager
def silent_server() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "faulty_host" in metafunc.fixturenames:
        metafunc.parametrize("faulty_host", FAULTY if metafunc.config.option.soak else FEWER_FAULTY)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Fleet]:
    soak = pytestconfig.option.soak
    healthy, faulty = (HEALTHY, FAULTY) if soak else (HEALTHY[:FEWEST_HEALTHY], FEWER_FAULTY)
    folder = tmp_path_factory.mktemp("fleet")
    folder.chmod(0o755)
    world = SSHWorld(folder)
    labs = {
        **dict.fromkeys(healthy, "policy-routing"), OTHER_RECIPE: "nat",
        **{name: f"policy-routing+{kind}" for name, kind in faulty.items()},
        **dict.fromkeys(("other-key", "not-let-in", "no-python", "no-space", "wrong-password"), "policy-routing"),
    }  # fmt: skip
    bare = folder / "bare-path"
    bare.mkdir()
    for program in TOOLS:
        (bare / program).symlink_to(str(shutil.which(program)))
    special = {
        "other-key": {"key": "other"}, "not-let-in": {"user_key": "other"}, "no-space": {"cache": "full"},
        "no-python": {"path": str(bare), "cache": "empty"},
    }  # fmt: skip
    with contextlib.ExitStack() as closing:
        for name, spec in labs.items():
            lab = open_lab(parse_labs(spec)[0])
            closing.callback(lab.close)
            if name == "no-space":
                (folder / "full").mkdir()
                lab.host.run("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder / "full"))
            if name == "wrong-password":
                world.add_user(lab, "probe", "right")
                world.entry(name, "User probe")
            world.serve(name, lab, **special.get(name, {}))
        world.entry("down", "HostName 127.0.0.1", "Port 1")
        world.entry("no-name", "HostName none.invalid")
        silent = closing.enter_context(silent_server())
        world.entry("hangs", "HostName 127.0.0.1", f"Port {silent.getsockname()[1]}")
        (folder / "hosts.yml").write_text(
            INVENTORY.format(
                others=f"{OTHER_RECIPE}: {{agent_uplink: eth0}}", healthy=", ".join(f"{name}: " for name in healthy),
                faulty=", ".join(f"{name}: " for name in faulty), broken=", ".join(f"{name}: " for name in BROKEN),
            )
        )  # fmt: skip
        (folder / "site.toml.j2").write_text(SITE_TEMPLATE)
        shutil.copy2(packed_once(tmp_path_factory), folder)
        yield Fleet(folder, world, healthy, faulty, silent)


@pytest.fixture(scope="module")
def first(fleet: Fleet) -> subprocess.CompletedProcess[str]:
    """A run over one host, which has nothing in its cache; the later hosts find what it unpacked."""
    return fleet.run("--limit", HEALTHY[0], "--report-dir", fleet.folder / "report")


@pytest.fixture(scope="module")
def run(fleet: Fleet, first: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The run over the other hosts, with a password of sudo that one host refuses."""
    assert first.returncode == 0, first.stdout + first.stderr
    words = fleet.judging("--report-dir", fleet.folder / "report", "--resume", "--ask-become-pass")
    return subprocess.run(
        [*VIACHECK, *words], input="wrong\n", capture_output=True, text=True, start_new_session=True, timeout=600
    )


@pytest.fixture(scope="module")
def hosts(fleet: Fleet, run: subprocess.CompletedProcess[str]) -> dict[str, HostSummary]:
    """The hosts as the report shows them."""
    assert run.returncode == 1, run.stderr
    return {host.name: host for host in summarise(fleet.folder / "report", processes=1)}


def test_the_hosts_have_their_own_verdicts(
    fleet: Fleet, hosts: dict[str, HostSummary], run: subprocess.CompletedProcess[str], pytestconfig: pytest.Config
) -> None:
    expected = {
        **dict.fromkeys([*fleet.healthy, OTHER_RECIPE], "pass"), **dict.fromkeys(fleet.faulty, "fail"),
        **dict.fromkeys(BROKEN, "not-run"),
    }  # fmt: skip
    assert len(expected) == fleet.size == (50 if pytestconfig.option.soak else 21)
    assert {name: host.verdict for name, host in hosts.items()} == expected, run.stdout
    assert f"{len(fleet.healthy) + 1} of {fleet.size} hosts pass" in run.stdout


def test_a_fault_has_its_own_diagnosis(faulty_host: str, fleet: Fleet, hosts: dict[str, HostSummary]) -> None:
    fault = FAULTS[FAULTY[faulty_host]]
    assert hosts[faulty_host].leading == fault.diagnosis
    outcome = fleet.outcome(faulty_host)
    assert [(target.id, target.kind) for target in outcome.targets] == [(f"remote:{faulty_host}", "remote")]
    failed = {result.check for result in outcome.results if result.verdict is Verdict.FAIL}
    assert failed
    assert failed <= fault.breaks


def test_failures_are_grouped_by_diagnosis(run: subprocess.CompletedProcess[str], fleet: Fleet) -> None:
    page = (fleet.folder / "report" / "index.html").read_text()
    for kind in KINDS:
        code, count = FAULTS[kind].diagnosis, list(fleet.faulty.values()).count(kind)
        hosts = "2 hosts" if count == 2 else "1 host"
        assert f"{code} on {hosts} (fail)\n" in run.stdout
        assert f"<code>{code}</code> on {hosts}" in page


def test_the_host_with_another_recipe_is_the_only_outlier(hosts: dict[str, HostSummary]) -> None:
    found = {(host.name, group.fact, group.value) for group in outliers(list(hosts.values())) for host in group.hosts}
    assert found == {(OTHER_RECIPE, "intended uplink", "eth0"), (OTHER_RECIPE, "table", "none")}


@pytest.mark.parametrize("name", BROKEN)
def test_a_host_that_cannot_be_judged_says_why(name: str, fleet: Fleet, run: subprocess.CompletedProcess[str]) -> None:
    outcome = fleet.outcome(name)
    assert outcome.results == []
    assert BROKEN[name] in " ".join(outcome.targets[0].notes)
    assert re.search(rf"^\[\d+/{fleet.size - 1}\] not-run +{name}: Nothing was decided: ", run.stdout, re.MULTILINE)


def test_a_password_is_in_no_file_and_no_output(fleet: Fleet, run: subprocess.CompletedProcess[str]) -> None:
    assert "wrong\n" not in run.stdout + run.stderr
    outcome = fleet.outcome("wrong-password")
    assert not any(word == "wrong" for note in outcome.targets[0].notes for word in note.split())


def test_nothing_but_the_cache_stays_on_a_host(fleet: Fleet, run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 1
    cache = fleet.folder / "cache" / "viacheck"
    assert [len(path.name) for path in cache.iterdir()] == [32]
    assert cache.stat().st_mode & 0o777 == 0o700
    assert list(fleet.world.temporary.iterdir()) == []


def test_resuming_judges_only_what_is_missing(fleet: Fleet, run: subprocess.CompletedProcess[str]) -> None:
    assert f"1 host judged before, {fleet.size - 1} hosts to judge" in run.stdout
    result = fleet.folder / "report" / "hosts" / HEALTHY[0] / "result.json"
    before = result.stat().st_mtime_ns
    limit = f"{HEALTHY[0]},{next(iter(FAULTY))},down"
    again = fleet.run("--report-dir", fleet.folder / "report", "--resume", "--limit", limit)
    assert again.returncode == 1
    assert "2 hosts judged before, 1 host to judge" in again.stdout
    assert "[1/1] not-run       down" in again.stdout
    assert result.stat().st_mtime_ns == before


def test_only_the_collect_script_runs_on_a_host(
    fleet: Fleet, run: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert run.returncode == 1
    limit = f"{HEALTHY[0]},rule-missing-1,no-python,down"
    done = sub_command(*fleet.words("--collect-only", "--limit", limit, "--report-dir", tmp_path))
    assert done.returncode == 1, done.stderr
    outcomes = {path.parent.name: read_outcome(path) for path in tmp_path.glob("hosts/*/result.json")}
    assert {name: outcome.targets[0].verdict for name, outcome in outcomes.items()} == {
        HEALTHY[0]: "pass", "rule-missing-1": "fail", "no-python": "pass", "down": "inconclusive",
    }  # fmt: skip
    assert [host.name for host in summarise(tmp_path, processes=1) if host.leading == "RULE_MISSING"] == [
        "rule-missing-1"
    ]
    target = outcomes["no-python"].targets[0]
    assert (target.id, target.kind) == ("remote:no-python", "remote")
    assert target.notes[0].startswith("judged from bundle.tar.gz, ")
    assert (tmp_path / "hosts" / "no-python" / "bundle.tar.gz").stat().st_mode & 0o777 == 0o600
    assert list(fleet.world.temporary.iterdir()) == []


def test_the_role_of_ansible_ends_in_the_report(
    fleet: Fleet, first: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert first.returncode == 0
    names = [HEALTHY[0], "rule-missing-1"]
    # sshd accepts the name of another host by the alias in ssh_config alone, so Ansible must use this file.
    hosts = "".join(
        f"    {name}:\n      ansible_ssh_args: -F {fleet.world.config}\n      viacheck_folder: {tmp_path}/on-{name}\n"
        for name in names
    )
    variables = "agent_uplink: wlan0, agent_gateway: 10.10.50.1, viacheck_options: [-k, ROUTE or EGRESS-01]"
    (tmp_path / "inventory.yml").write_text(f"all:\n  vars: {{{variables}}}\n  hosts:\n{hosts}")
    commands = Path(sys.executable).parent
    done = subprocess.run(
        [
            commands / "ansible-playbook", "-i", "inventory.yml", ROOT / "contrib" / "ansible" / "playbook.yml",
            "-e", f"viacheck_pack={fleet.folder}/viacheck.pyz viacheck_results={tmp_path}/results",
            "-e", f"viacheck_site_template={fleet.folder}/site.toml.j2 ansible_become=false",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(tmp_path), "ANSIBLE_PIPELINING": "1",
             "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
             "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "1 of 2 hosts pass" in done.stdout
    assert "RULE_MISSING on 1 host (fail)" in done.stdout
    assert (tmp_path / "results" / "index.html").exists()
    assert {host.name: host.verdict for host in summarise(tmp_path / "results", processes=1)} == {
        HEALTHY[0]: "pass", "rule-missing-1": "fail",
    }  # fmt: skip


def test_the_bench_judges_every_host_in_each_way(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "cache").symlink_to(fleet.folder / "cache")
    packed = (fleet.folder / "viacheck.pyz").read_bytes()
    own, memory, loop, ansible = fleet_controllers.compare(2, packed, tmp_path, None).judged().figures
    assert own.median is not None
    assert loop.ratio is not None
    assert memory.reached
    assert memory.ratio is None
    assert ansible.remark == "not measured: needs ansible-core and a checkout"


def test_a_terminal_shows_a_bar_and_keeps_a_line_for_each_host(fleet: Fleet, tmp_path: Path) -> None:
    words = fleet.judging("--limit", "down,no-name", "--report-dir", tmp_path)
    status, written = at_a_terminal([*VIACHECK, *words])
    assert status == 1
    assert re.search(r"━+.*2/2.* hosts .*0:00:0", written), written
    assert sorted(re.findall(r"\[([12]/2)\] (?:\x1b\[\S+m)?not-run", written)) == ["1/2", "2/2"], written


def test_a_host_that_hangs_ends_with_its_time_limit(fleet: Fleet, tmp_path: Path) -> None:
    done = fleet.run("--limit", "hangs", "--report-dir", tmp_path, "--host-timeout", "10")
    assert done.returncode == 1
    assert "hangs: Nothing was decided: no result within 10 s" in done.stdout


def test_sudo_that_asks_is_named(fleet: Fleet, tmp_path: Path) -> None:
    done = fleet.run("--limit", "wrong-password", "--report-dir", tmp_path)
    assert done.returncode == 1
    assert "wrong-password: Nothing was decided: sudo: a password is required." in done.stdout


def test_the_right_password_of_sudo_is_asked_for_once(fleet: Fleet, tmp_path: Path) -> None:
    words = fleet.judging("--limit", f"wrong-password,{HEALTHY[0]}", "--report-dir", tmp_path, "--ask-become-pass")
    done = subprocess.run(
        [*VIACHECK, *words], input="right\n", capture_output=True, text=True, start_new_session=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 hosts pass" in done.stdout


def test_an_interrupted_run_ends_soon_and_reports_what_was_judged(
    fleet: Fleet, first: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert first.returncode == 0
    fleet.silent.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            # The connections of earlier runs.
            fleet.silent.accept()[0].close()
    fleet.silent.settimeout(60)
    # One after the other: the second host is reached when the first was judged, however long that takes.
    argv = [*VIACHECK, *fleet.judging("--limit", f"{HEALTHY[0]},hangs", "--report-dir", tmp_path, "-P", "1")]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, preexec_fn=_default_signals)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(f"[1/2] pass          {HEALTHY[0]}: "), line
    connection, _address = fleet.silent.accept()
    process.send_signal(signal.SIGINT)
    # The host that hangs would take much longer: it has time until the limit of each host.
    with connection:
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "[2/2] not-run       hangs: Nothing was decided: interrupted while this host was judged." in rest
    assert "This run was interrupted by SIGINT" in rest
    assert "1 of 2 hosts pass" in rest


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--limit", "x*"), "viacheck fleet run: --limit: no host of {folder}/hosts.yml matches 'x*'\n"),
        (("--resume",), "viacheck fleet run: --resume: needs the --report-dir of the run that it continues\n"),
        (("--pack", "/dev/null"), "viacheck fleet run: --pack: /dev/null: is a device, not a regular file\n"),
        (
            ("--collect-only",),
            "viacheck fleet run: --pack: with --collect-only nothing but the collect script is run on a host\n",
        ),
        (("-P", "0"), "viacheck fleet run: argument -P/--parallel: '0' is not a number from 1 to 500\n"),
    ],
)
def test_a_wrong_option_is_one_line(options: tuple[str, ...], line: str, fleet: Fleet) -> None:
    done = fleet.run(*options)
    assert (done.returncode, done.stderr) == (4, line.format(folder=fleet.folder))
