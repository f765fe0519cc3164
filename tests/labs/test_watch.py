"""``viacheck watch`` by its front door, on a host made by hand: it finds what is planted, its cause, and no more."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reports.report_files import read_outcome
from tests.helpers.front_door import VIACHECK, sub_command
from tests.helpers.hand_made import AGENT_PATH, SITE, HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from tests.unit.test_site_lab import BRIDGED
from viacheck.flight_recorder.record_file import Entry, read_entries
from viacheck.host.link_monitors import link_monitors
from viacheck.host.namespace import Namespace
from viacheck.installation import ROOT
from viacheck.model.check_evidence import TimelineEvidence
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

FLAP = 0.3
"""Seconds."""
FAR = 0.1
"""Seconds."""
PACKETS = 40
"""Packets that the agent sends during the flap."""
PATIENCE = 120.0
RULE = "rule priority 32765 from 172.17.0.0/16 lookup 200"


@pytest.fixture
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        yield host


class Watcher:
    """``viacheck watch`` on a host, as its operator starts it."""

    def __init__(self, host: HandMadeHost, folder: Path) -> None:
        self.state, self._host, self._output = folder / "state", host, folder / "output"
        self._site = write_site(folder, SITE)
        self.start()

    def start(self) -> None:
        """Start it, or start it again, and wait until it has sent a round of probes."""
        before = self.count("probe")
        options = ["--site", str(self._site), "--for", "10m", "--interval", "1s", "--state-dir", str(self.state)]
        with self._output.open("ab") as output:
            # Python names each module that it loads.
            command = (VIACHECK[0], "-X", "importtime", *VIACHECK[1:], "watch", *options)
            self.process = subprocess.Popen(self._host.inside(*command), stdout=output, stderr=subprocess.STDOUT)
        self.wait_for(lambda: self.count("probe") > before)

    def entries(self) -> list[Entry]:
        """Return its record so far."""
        return list(read_entries(self.state)) if self.state.exists() else []

    def count(self, kind: str) -> int:
        """Return how many lines of a kind its record has."""
        return sum(entry["kind"] == kind for entry in self.entries())

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true, while it runs."""
        deadline, pause = time.monotonic() + PATIENCE, threading.Event()
        while not condition():
            assert self.process.poll() is None, self._output.read_text()
            assert time.monotonic() < deadline, f"{self._output.read_text()}\n{self.entries()}"
            pause.wait(0.02)

    @property
    def wrong(self) -> bool:
        """Whether the way is wrong by the latest line that says so."""
        return bool([entry["wrong"] for entry in self.entries() if entry["kind"] == "way"][-1])

    @property
    def child(self) -> int:
        """The number of the watching process itself: nsenter replaces itself by it."""
        return self.process.pid

    def end(self, number: signal.Signals) -> tuple[int, RunResult, str]:
        """End it by a signal; return its exit status, its result and what it printed."""
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        return status, read_outcome(self.state / "report" / "result.json"), self._output.read_text()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def watcher(host: HandMadeHost, tmp_path: Path) -> Iterator[Watcher]:
    watcher = Watcher(host, tmp_path)
    yield watcher
    watcher.kill()


@contextlib.contextmanager
def sender_of(host: HandMadeHost) -> Iterator[Callable[[], None]]:
    """Return a function that sends one packet from the agent."""
    agent = host.namespace.call(lambda: os.open(f"/proc/{host.pid}/root/run/netns/agent", os.O_RDONLY))
    namespace = Namespace("agent", agent)
    sender = namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def send() -> None:
        with contextlib.suppress(OSError):
            sender.sendto(b"measurement", ("198.51.100.1", 9))

    try:
        yield send
    finally:
        sender.close()
        namespace.close()


@contextlib.contextmanager
def traffic(host: HandMadeHost) -> Iterator[None]:
    """Send packets of the agent all the time."""
    stop = threading.Event()

    def send_on() -> None:
        while not stop.wait(0.002):
            send()

    with sender_of(host) as send:
        thread = threading.Thread(target=send_on)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def by_case(outcome: RunResult, check: str = "WATCH-01") -> dict[str | None, CheckResult]:
    return {result.case: result for result in outcome.results if result.check == check}


def test_a_flap_is_found_with_its_cause_and_no_other(host: HandMadeHost, watcher: Watcher) -> None:
    """The recorder is started again, its files are rotated and announcements are lost meanwhile.

    The target is as far away as one on the Internet: it answers a probe after the probe was seen to leave.
    """
    for responders in host.responders:
        responders.answers_after = FAR
    # Another program takes the record's file away.
    for segment in watcher.state.glob("record-*"):
        segment.unlink()
    watcher.wait_for(lambda: watcher.count("count") > 0)
    assert link_monitors(host.namespace) == (), "a twin of this host shows what a flap does: a recorder changes nothing"
    with sender_of(host) as send:
        host.ip("rule del from 172.17.0.0/16 lookup 200")
        for _ in range(PACKETS):
            send()
        threading.Event().wait(FLAP)
        host.ip("rule add from 172.17.0.0/16 lookup 200")
        watcher.wait_for(lambda: watcher.count("way") >= 2 and not watcher.wrong)
    watcher.kill()
    watcher.start()
    os.kill(watcher.child, signal.SIGSTOP)
    aliases = "\n".join(f"link set dev eth0 alias number-{number}" for number in range(3000))
    done = subprocess.run(host.inside("ip", "-batch", "-"), input=aliases, text=True, check=False)
    assert done.returncode == 0
    os.kill(watcher.child, signal.SIGCONT)
    watcher.wait_for(lambda: watcher.count("overrun") > 0)
    rounds = watcher.count("probe")
    watcher.wait_for(lambda: watcher.count("probe") > rounds + 1)
    status, outcome, printed = watcher.end(signal.SIGTERM)

    assert status == 1, printed
    packets = by_case(outcome)
    assert len(packets) == 2, printed
    flap = next(result for case, result in packets.items() if case is not None)
    assert flap.verdict is Verdict.FAIL
    assert flap.diagnosis is not None
    assert f"after: {RULE} gone" in flap.diagnosis.cause
    assert f"right again after: {RULE} there" in flap.observed
    # A busy machine makes the stamps late, and the flap itself long.
    assert 0 < flap.seconds < FLAP + 10
    assert f"{PACKETS} packets of the agent counted elsewhere ({PACKETS} by eth0)" in flap.observed
    assert any(isinstance(evidence, TimelineEvidence) for evidence in flap.evidence)
    (watch,) = by_case(outcome, "WATCH-02").values()
    assert watch.verdict is Verdict.ADVISORY
    assert "the recorder did not run from" in watch.observed
    assert "ENOBUFS" in watch.observed
    assert "by eth0 instead of by wlan0 once" in printed
    assert "goes on: local" in printed

    # The record alone gives the same report, and the bundle has it.
    again = sub_command("watch", "--report", watcher.state, "--report-dir", watcher.state / "again")
    assert again.returncode == 1, again.stderr
    assert read_outcome(watcher.state / "again" / "result.json").results == outcome.results
    with tarfile.open(watcher.state / "report" / "bundle.tar.gz") as bundle:
        assert {"result.json", "report.html", "snapshot.json"} <= set(bundle.getnames())
    modes = {path.stat().st_mode & 0o777 for path in watcher.state.rglob("*") if path.is_file()}
    assert modes == {0o600}


def test_a_calm_host_has_no_departure(host: HandMadeHost, watcher: Watcher) -> None:
    """Other packets and other changes are not the agent's."""
    with traffic(host):
        host.run("ping", "-q", "-c", "3", "-i", "0.1", "198.51.100.1")
        host.ip("route add 203.0.113.0/24 via 10.10.40.1 dev eth0 table 77")
        host.ip("rule add from 10.99.0.0/16 lookup 77")
        host.ip("link add other type veth peer name end")
        host.ip("link set other up")
        host.ip("link del other")
        rounds = watcher.count("probe")
        watcher.wait_for(lambda: watcher.count("probe") > rounds + 1)
    status, outcome, printed = watcher.end(signal.SIGHUP)
    assert status == 0, printed
    _before, begins, later = printed.partition("viacheck watch: begins")
    assert begins
    loaded = re.findall(r"import time:.*\| +((?:viacheck|reports|netns_lab)\..*)", later)
    assert not loaded, "an upgrade may have replaced a module that is loaded when the watch ends"
    (packets,) = by_case(outcome).values()
    assert packets.verdict is Verdict.PASS, packets.observed
    assert "the agent's packets left by wlan0 only" in printed
    (watch,) = by_case(outcome, "WATCH-02").values()
    if watch.verdict is not Verdict.PASS:
        # A machine that is too busy to run it for seconds is called by its name.
        busy = ("the recorder did not run", "absence was not proven")
        assert all(any(reason in part for reason in busy) for part in watch.observed.split("; ")), watch.observed
    assert sum(entry["left"].get("wlan0", 0) for entry in watcher.entries() if "left" in entry) > 0
    assert any("other" in entry["text"] for entry in watcher.entries() if entry["kind"] == "event")


@pytest.mark.parametrize("step", ["netns del agent", None], ids=["removed", "unmounted"])
def test_an_uplink_that_goes_down_and_an_agent_that_restarts(
    step: str | None, host: HandMadeHost, watcher: Watcher
) -> None:
    with traffic(host):
        host.ip("link set wlan0 down")
        watcher.wait_for(lambda: watcher.wrong)
        host.ip("link set wlan0 up")
        host.ip("route add default via 10.10.50.1 dev wlan0 table 200")
        watcher.wait_for(lambda: not watcher.wrong)
    if step is None:
        # The first half of the removal: the name is that of a plain file for a moment.
        host.run("umount", "--lazy", "/run/netns/agent")
    else:
        host.ip(step)
    watcher.wait_for(lambda: watcher.count("agent") == 1)
    if step is None:
        host.ip("netns del agent")
    host.ip("netns add agent")
    host.run("ip", "netns", "exec", "agent", "sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1")
    for line in (
        "link add veth2 type veth peer name eth0 netns agent", "link set veth2 up master docker0",
        "-n agent address add 172.17.0.2/16 dev eth0", "-n agent link set eth0 up",
        "-n agent route add default via 172.17.0.1",
    ):  # fmt: skip
        host.ip(line)
    watcher.wait_for(lambda: watcher.count("agent") >= 2 and not watcher.wrong)
    rounds = watcher.count("probe")
    watcher.wait_for(lambda: watcher.count("probe") > rounds + 1)
    status, outcome, printed = watcher.end(signal.SIGINT)
    assert status == 1, printed
    first = next(result for case, result in by_case(outcome).items() if case is not None)
    assert "link wlan0 down" in first.diagnosis.cause if first.diagnosis else False, first.observed
    assert "left by eth0" in first.observed
    (watch,) = by_case(outcome, "WATCH-02").values()
    assert "the agent was away" in watch.observed
    latest = [entry for entry in watcher.entries() if entry["kind"] == "probe"][-1]
    assert {seen[2] for seen in latest["seen"]} == {"as-intended"}


def test_the_lab_of_a_site_file_can_be_watched(tmp_path: Path) -> None:
    attach = 'network = "lan0"\nsubnet = "192.168.7.0/24"\ngateway = "192.168.7.30"'
    site = BRIDGED.format(mode="macvlan", attach=attach).replace("[agent", "[agents.one")
    (tmp_path / "site.toml").write_text(site.replace("[egress]", "[agents.one.egress]"))
    lab = ("--lab", "blank", "--site", tmp_path / "site.toml", "--agent", "one")
    done = sub_command("watch", *lab, "--for", "2s", "--interval", "1s", "--state-dir", tmp_path / "s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a shell on the lab's host: nsenter --net=" in done.stdout
    assert "the agent's packets left by" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--report", "nowhere"), "nowhere: holds no record of viacheck watch"),
        (("--lab", "nat"), "--lab needs --state-dir DIR for its record"),
        (("--lab", "nat", "--agent", "x"), "--agent goes with --lab blank: every other lab has one agent"),
        (("--lab", "blank"), "--lab blank needs --site FILE: the lab is built from the site file"),
        (("--lab", "nat", "--report", "x"), "--report excludes --site and --lab: the record says what was watched"),
        (("--lab", "nat", "--report-dir", ""), "argument --report-dir: '' names no folder"),
        (("--lab", "nat", "--for", "1w"), "invalid time '1w'; allowed: 100ms to 400d, a number with its unit: 30s, 5m"),
        (("--lab", "nat", "--for", "401d"), "invalid time '401d'; allowed: 100ms to 400d, "),
        (("--lab", "nat", "--for", "0s"), "invalid time '0s'; allowed: 100ms to 400d, "),
        (("--lab", "nat", "--interval", "90d"), "invalid time '90d'; allowed: 100ms to 1h, "),
        (
            ("--lab", "nat", "--state-dir", "s", "--report-dir", "/proc/x"),
            "--report-dir: /proc/x: No such file or directory; name a directory that can be written",
        ),
        (("--lab", "nat", "--disk", "0"), "invalid size '0'; allowed: 1 to 4096"),
        ((), "needs --site FILE, --lab LAB or --report DIR"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = sub_command("watch", *arguments, cwd=tmp_path)
    assert done.returncode == 4
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_record_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    words = ["--lab", "nat", "--for", "1s", "--interval", "1s", "--state-dir", str(tmp_path / "s")]
    assert sub_command("watch", *words).returncode == 0
    segment = tmp_path / "s" / "record-00000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'{"t"', b"XXXX", 1))
    damaged = sub_command("watch", "--report", tmp_path / "s")
    assert damaged.returncode == 1, damaged.stderr
    assert "\n1. WATCH-02\n   record-00000001.jsonl: line 1 cannot be read" in damaged.stdout
    segment.unlink()
    segment.symlink_to("/etc/passwd")
    planted = sub_command("watch", "--report", tmp_path / "s")
    assert (planted.returncode, planted.stderr) == (
        4, f"viacheck watch: {segment}: cannot be read: is a symbolic link, not a regular file\n",
    )  # fmt: skip


def test_a_full_disk_lets_no_watch_begin(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=16k none "$1" && shift && exec "$@"'
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(tmp_path)]
    words = [*private, *VIACHECK, "watch", "--lab", "nat", "--for", "1s", "--state-dir", str(tmp_path / "state")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (4, "viacheck watch: cannot begin to watch: No space left on device\n")


def test_an_agent_that_is_not_there_is_no_result_and_systemd_tries_again(tmp_path: Path) -> None:
    site = write_site(tmp_path, SITE.replace(AGENT_PATH, "/run/netns/nope"))
    words = ["unshare", "--net", *VIACHECK, "watch", "--site", str(site), "--state-dir", str(tmp_path / "state")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    missing = "agent.netns: /run/netns/nope: No such file or directory; a watch begins when its agent is there\n"
    assert (done.returncode, done.stderr) == (4, f"viacheck watch: {missing}")
    unit = (ROOT / "docs" / "watch.md").read_text()
    assert "\n    Restart=on-failure\n" in unit
    assert "\n    RestartPreventExitStatus=1\n" in unit
    assert "SuccessExitStatus" not in unit
