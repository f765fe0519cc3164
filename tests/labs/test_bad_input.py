"""What a person may get wrong, each with its exit status and the one line that says it, and names that mean harm."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from tests.helpers.front_door import Finished, command, finished, viacheck
from tests.helpers.hand_made import SITE, HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.toml_text import toml_text
from viacheck.model.verdict import Verdict

USAGE_ERROR = 4


def refused(done: Finished) -> list[str]:
    """The lines that a refused run says, and that it says nothing else."""
    assert done.exit_code == USAGE_ERROR, done.said
    assert done.stdout == ""
    assert not done.report_dir.exists() or not any(done.report_dir.rglob("*.json"))
    first, *more = done.stderr.strip().splitlines()
    return [first.removeprefix("ERROR: "), *more]


# --- site.toml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        ("schema = = 1\n", "not TOML: Invalid value (at line 1, column 10)"),
        ("", "schema: missing; allowed: 1"),
        (SITE.replace("schema = 1", "schema = 2"), "schema: found 2; allowed: 1"),
        (SITE.replace("schema = 1", "schema = true"), "schema: found true; allowed: 1"),
        (
            SITE.replace("table = 200", 'table = "200"'),
            "egress.table: found '200'; allowed: a whole number from 1 to 4294967295, other than 252 to 255",
        ),
        (SITE.replace("table = 200", "table = 254"), "egress.table: found 254; tables 252 to 255 are the kernel's own"),
        (
            SITE.replace('gateway = "10.10.50.1"', 'gatway = "10.10.50.1"'),
            "uplinks.wlan0.gatway: unknown key, did you mean 'gateway'?; allowed here: address, gateway, gateway6",
        ),
        (SITE.replace("[uplinks.eth0]", "[uplinks.'eth 0']"), "uplinks.\"eth 0\": found 'eth 0'; an interface name"),
        (SITE.replace("[egress]", "[egres]"), "egres: unknown key, did you mean 'egress'?"),
        (SITE.replace('uplink = "wlan0"', 'uplink = "wlan1"'), "egress.uplink: 'wlan1' is not a configured uplink"),
        (SITE.replace("10.10.40.1", "10.10.40.300"), "uplinks.eth0.gateway: found '10.10.40.300'; allowed: an IPv4"),
        (
            SITE.replace('bridge = "docker0"', 'bridge = "docker0"\nsubnet = "172.17.0.1/16"'),
            "agent.attach.subnet: found '172.17.0.1/16'; allowed: an IPv4 subnet without host bits",
        ),
    ],
    ids=[
        "missing", "not TOML", "empty", "other schema", "boolean", "text for a number", "the kernel's table",
        "unknown key", "interface name", "unknown part", "no such uplink", "no address", "host bits",
    ],
)  # fmt: skip
def test_a_site_file_that_cannot_be_used(text: str | None, said: str, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    if text is not None:
        site.write_text(text)
    lines = refused(viacheck("--local", "--site", str(site), report_dir=tmp_path / "report"))
    assert [line for line in lines if line.startswith(f"{site}: {said}")], lines


def test_an_address_outside_its_subnet(tmp_path: Path) -> None:
    attach = 'mode = "macvlan"\nnetwork = "macvlan0"\nparent = "eth0"\nsubnet = "10.10.40.0/24"\ngateway = "10.10.41.1"'
    text = SITE.replace('mode = "nat"\nbridge = "docker0"', attach)
    lines = refused(viacheck("--local", "--site", str(write_site(tmp_path, text)), report_dir=tmp_path / "report"))
    wanted = "agent.attach.gateway: 10.10.41.1 is outside the subnet; allowed: an address in 10.10.40.0/24"
    assert f"{tmp_path / 'site.toml'}: {wanted}" in lines


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = SITE.replace("schema = 1", "schema = 2").replace("table = 200", "table = 0").replace("[host]", "[hots]")
    site = write_site(tmp_path, text)
    lines = refused(viacheck("--local", "--site", str(site), report_dir=tmp_path / "report"))
    assert len(lines) == 3
    assert all(line.startswith(f"{site}: ") for line in lines)


@pytest.mark.parametrize("name", ["esc\x1b]0;owned\x07", "rtl\u202eeht", "fig\u2007sp"])
def test_a_mistake_about_a_hostile_name_steers_no_terminal(name: str, tmp_path: Path) -> None:
    text = SITE.replace('uplink = "wlan0"', f"uplink = {toml_text(name)}") + f"[{toml_text(name)}]\nx = 1\n"
    done = viacheck("--local", "--site", str(write_site(tmp_path, text)), report_dir=tmp_path / "report")
    assert refused(done)
    assert [c for c in done.stderr if not c.isprintable() and c != "\n"] == []


# --- what to judge


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--lab", "polcy-routing"),
            "--lab: unknown lab 'polcy-routing'; did you mean policy-routing or policy-routing-",
        ),
        (("--lab", "policy-routing+rule-mising"), "--lab: unknown fault 'rule-mising'; did you mean rule-missing or "),
        (
            ("--lab", "nat+rule-missing"),
            "--lab: fault 'rule-missing' does not belong to lab 'nat'; it goes with policy-routing",
        ),
        (("--lab", "docker:nat"), "--lab: unknown flavour 'docker' in 'docker:nat'; allowed: netns, engine, host"),
        (("--lab", ""), "--lab: names no lab; '--lab list' prints them all"),
        (("--lab", "\x1b[31mred"), "--lab: unknown lab '\\x1b[31mred'; allowed: "),
        (("--local", "--lab", "nat", "--site", "x"), "--local and --lab exclude each other"),
        (("--local",), "--local needs --site FILE ('viacheck site init' writes a draft)"),
        (("--site", "x"), "--site goes with --local, --bundle or --lab blank"),
        (("--lab", "blank"), "--lab blank needs --site FILE: the lab is built from the site file"),
        (("--local", "--site", "x", "--events", "link-flap"), "--events goes with --allow-disruptive"),
        (("--local", "--site", "x", "--survives", "none"), "--survives goes with --allow-disruptive on this host, or"),
        (("--yes",), "--yes goes with --allow-disruptive"),
        (("--lab", "nat", "--flap-management"), "--flap-management goes with --allow-disruptive"),
        (("--lab", "nat", "--allow-disruptive"), "--allow-disruptive goes with --local: it interrupts this"),
        (("--local", "--site", "x", "--reboot"), "--reboot goes with --local --twin"),
        (("--twin", "x", "--reboot"), "--reboot goes with --local --twin"),
    ],
    ids=[
        "lab", "fault", "fault of another lab", "flavour", "no lab", "escape", "local and lab", "local without site",
        "site without local", "blank without site", "events without consent", "demand without consent",
        "yes without consent", "flap without consent",
        "consent without local", "reboot without twin", "reboot of a bundle",
    ],
)  # fmt: skip
def test_a_selection_that_names_nothing(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (line,) = refused(viacheck(*arguments, report_dir=tmp_path / "report"))
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--events", "link-flp"), "--events: 'link-flp' is no event of a live host; did you mean link-flap?"),
        (("--events", "reboot"), "--events: 'reboot' is no event of a live host; allowed: link-flap, ifupdown, "),
        (("--survives", "link-flp"), "--survives: 'link-flp' is no event; did you mean link-flap?"),
        (("--survives", "reboot"), "--survives: 'reboot' is no event of a live host; allowed: link-flap, ifupdown, "),
        (("-n", "2"), "--allow-disruptive excludes -n: one process interrupts a host, event by event"),
    ],
    ids=["mistyped", "not on a live host", "mistyped demand", "demand on a live host", "workers"],
)
def test_an_interruption_that_cannot_be(more: tuple[str, ...], said: str, tmp_path: Path) -> None:
    site = write_site(tmp_path, "allow_disruptive = true\n" + SITE)
    words = ("--local", "--site", str(site), "--allow-disruptive", *more)
    (line,) = refused(viacheck(*words, report_dir=tmp_path / "report"))
    assert line.startswith(said)


def test_a_choice_of_checks_that_chooses_none_decides_nothing(tmp_path: Path) -> None:
    assert viacheck("--lab", "nat", "-k", "NOSUCH-99", report_dir=tmp_path / "report").exit_code == 1


# --- where the report goes


def test_a_file_stands_in_the_way_of_the_report(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        (line,) = refused(viacheck("--lab", "nat", report_dir=place))
        assert line == f"--report-dir: {tmp_path / 'file'}: Not a directory; name a directory that can be written"


def test_an_empty_name_of_the_report_is_not_the_default(tmp_path: Path) -> None:
    (line,) = refused(finished(command("--lab", "nat", "--report-dir", ""), tmp_path))
    assert line == "--report-dir: '' names no folder"


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_a_report_directory_that_is_mounted_read_only(workers: tuple[str, ...], tmp_path: Path) -> None:
    place = tmp_path / "report"
    script = 'mount -t tmpfs none "$1" && mount -o remount,ro "$1" && shift && exec "$@"'
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(tmp_path)]
    argv = [*private, *command("--lab", "nat", *workers, "--report-dir", str(place))]
    (line,) = refused(finished(argv, place))
    assert line == f"--report-dir: {place}: Read-only file system; name a directory that can be written"


def test_a_report_that_does_not_fit_on_the_disk_is_still_told(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=16k none "$1" && shift && exec "$@"'
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(tmp_path)]
    place = tmp_path / "report"
    # The captures do not fit either.
    argv = [*private, *command("--lab", "policy-routing", "-k", "HOST-0 or EGRESS-0", "--report-dir", str(place))]
    done = finished(argv, place)
    assert done.exit_code == 1
    assert "PASS  lab:policy-routing" in done.stdout
    assert "internal error" not in done.stdout
    assert f"the report could not be written: {place}/result.json: No space left on device\n" in done.stdout
    assert "\nreport: " not in done.stdout


# --- what is not there on the host: verdicts, no usage errors


def only(outcome: RunResult, check: str) -> CheckResult:
    (result,) = (result for result in outcome.results if result.check == check)
    return result


@pytest.fixture(scope="module")
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as made:
        apply_the_guides_recipe(made)
        yield made


def test_an_uplink_that_does_not_exist_is_a_verdict(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, SITE.replace("wlan0]", "wlan9]").replace('"wlan0"', '"wlan9"'))
    done = host.viacheck(site=site, report_dir=tmp_path / "report")
    assert done.exit_code == 1
    result = only(done.outcome, "HOST-02")
    assert result.diagnosis is not None
    assert result.diagnosis.code == "UPLINK_MISSING"
    assert result.diagnosis.cause.startswith("wlan9 does not exist; the host has ")
    assert "wlan0" in result.diagnosis.cause
    first = done.stdout.partition("Fix first\n")[2].splitlines()[0]
    assert first.startswith("1. UPLINK_MISSING (HOST-02)")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/run/netns/nobody", "/run/netns/nobody: No such file or directory"),
        ("/etc/hostname", "/etc/hostname: is not a network namespace"),
        ("/proc/self/ns/mnt", "/proc/self/ns/mnt: is not a network namespace"),
    ],
)
def test_a_path_that_is_no_namespace_is_a_verdict(host: HandMadeHost, path: str, reason: str, tmp_path: Path) -> None:
    site = write_site(tmp_path, SITE.replace("/run/netns/agent", path))
    done = host.viacheck(site=site, report_dir=tmp_path / "report")
    assert done.exit_code == 1
    result = only(done.outcome, "HOST-07")
    assert (result.verdict, result.observed) == (Verdict.FAIL, reason)
    assert result.diagnosis is not None
    assert result.diagnosis.code == "AGENT_NOT_RUNNING"
    assert {r.verdict for r in done.outcome.results if r.check == "EGRESS-01"} == {Verdict.NOT_RUN}


def test_a_directory_as_a_namespace_is_a_mistake_of_the_site_file(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, SITE.replace("/run/netns/agent", "/run"))
    (line,) = refused(host.viacheck(site=site, report_dir=tmp_path / "report"))
    assert line == f"{site}: agent.netns: /run is a directory, not a network namespace"


def _refusing_socket(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
    return f"unix://{path}"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (_refusing_socket, "nothing listens there; is the engine running?"),
        (lambda path: f"unix://{path}", "the socket does not exist; is the engine installed?"),
        (lambda _path: "tcp://127.0.0.1:1", "nothing listens there; is the engine running?"),
        (lambda _path: "nonsense://x", ""),
    ],
    ids=["refused", "missing", "tcp", "nonsense"],
)
def test_an_engine_that_cannot_be_asked_is_a_verdict(
    host: HandMadeHost, address: Callable[[Path], str], reason: str, tmp_path: Path
) -> None:
    site = write_site(tmp_path, SITE.replace('netns = "/run/netns/agent"', 'container = "te-agent"'))
    url = address(tmp_path / "docker.sock")
    host.ip("link set lo up")
    done = host.viacheck(site=site, report_dir=tmp_path / "report", env={"DOCKER_HOST": url})
    assert done.exit_code == 1
    result = only(done.outcome, "HOST-01")
    assert result.verdict is Verdict.FAIL
    assert result.diagnosis is not None
    assert result.diagnosis.code == "ENGINE_UNREACHABLE"
    assert reason in result.observed
    assert only(done.outcome, "ROUTE-02").verdict is Verdict.PASS
    assert {r.verdict for r in done.outcome.results if r.check == "EGRESS-01"} == {Verdict.NOT_RUN}
    assert done.stdout.count("ENGINE_UNREACHABLE") == 1


# --- names that mean harm

HOSTILE_PAIRS = [
    ("<b>&\"'x", "fig\u2007sp"),
    ("esc\x1b[31m", "rtl\u202eeht"),
    ("$(id)", "-n"),
    ("nel\x85x\u2028", "\u00fcn\u00efc\u00f6d\u00e9"),
    ("a\\b;`id`", "zw\u200bx"),
]


@pytest.mark.parametrize(("first", "second"), HOSTILE_PAIRS, ids=ascii)
def test_hostile_interface_names_are_judged_and_shown_harmlessly(first: str, second: str, tmp_path: Path) -> None:
    text = SITE
    for name, hostile in (("eth0", first), ("wlan0", second)):
        text = text.replace(f"[uplinks.{name}]", f"[uplinks.{toml_text(hostile)}]")
        text = text.replace(f'"{name}"', toml_text(hostile))
    with hand_made_host({first: "10.10.40", second: "10.10.50"}) as host:
        apply_the_guides_recipe(host, second)
        site = write_site(tmp_path, text)
        done = host.viacheck(site=site, report_dir=tmp_path / "pass")
        host.ip("rule del from 172.17.0.0/16")
        failing = host.viacheck(site=site, report_dir=tmp_path / "fail")
    assert done.exit_code == 0, done.said
    verdicts = {(r.check, r.case): r.verdict for r in done.outcome.results}
    assert {verdicts["EGRESS-01", protocol] for protocol in ("icmp", "udp", "tcp")} == {Verdict.PASS}
    assert failing.exit_code == 1, failing.said
    assert _code(failing.outcome, "ROUTE-02") == "RULE_MISSING"
    for one in (done, failing):
        _is_harmless(one)


def _code(outcome: RunResult, check: str) -> str | None:
    diagnosis = only(outcome, check).diagnosis
    return diagnosis.code if diagnosis else None


def _is_harmless(done: Finished) -> None:
    """Nothing that a terminal or a browser would obey is in what a person is shown."""
    page = (done.report_dir / "report.html").read_text()
    junit = (done.report_dir / "junit.xml").read_text()
    for text in (done.stdout, done.stderr, page, junit):
        assert [c for c in text if not c.isprintable() and c not in "\n\t"] == []
    assert "<b>&" not in page
    assert "<script" not in page
    assert Xml.fromstring(junit).tag == "testsuites"


def test_an_interface_whose_name_is_no_text_cannot_be_watched_and_that_is_said(tmp_path: Path) -> None:
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        argv = host.inside("ip", "link", "add", "name", os.fsdecode(b"\xff\xfe"), "type", "bridge")
        subprocess.run(argv, check=True)
        done = host.viacheck(site=write_site(tmp_path), report_dir=tmp_path / "report")
    assert done.exit_code == 1
    assert not any(r.verdict.decided for r in done.outcome.results)
    assert "is not UTF-8, so that it cannot be watched" in " ".join(done.stdout.split())
    _is_harmless(done)


def test_a_hostile_name_of_site_and_namespace(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>\"'&"
    text = SITE.replace('"by-hand"', toml_text(name)).replace("/run/netns/agent", "/run/netns/<i>")
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        host.run("ln", "-s", "/run/netns/agent", "/run/netns/<i>")
        done = host.viacheck(site=write_site(tmp_path, text), report_dir=tmp_path / "report")
    assert done.exit_code == 0, done.said
    page = (done.report_dir / "report.html").read_text()
    assert "<img" not in page
    assert "<i>" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    _is_harmless(done)


@pytest.mark.parametrize("container", ["<b>x</b>", "\x1b[2J", "te agent", "../../etc/passwd", "-v"])
def test_a_container_name_that_docker_would_not_give_is_refused(container: str, tmp_path: Path) -> None:
    text = SITE.replace('netns = "/run/netns/agent"', f"container = {toml_text(container)}")
    site = write_site(tmp_path, text)
    done = viacheck("--local", "--site", str(site), report_dir=tmp_path / "report")
    (line,) = refused(done)
    assert line.startswith(f"{site}: agent.container: found ")
    assert [c for c in done.stderr if not c.isprintable() and c != "\n"] == []
