"""ifupdown's files are read as ifupdown reads them; what they lack is named with file, line and the stanza to write."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.persistence_hosts import TYPED, host_file, recorded, resolved
from viacheck.diagnosis.persistence import not_written_down
from viacheck.model.check_evidence import FileEvidence
from viacheck.model.measurements import Measurements
from viacheck.model.policy_rule import Rule
from viacheck.model.snapshot import HostFile
from viacheck.persistence import ifupdown
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.manager_config import PREDEFINED_TABLES

INTERFACES = ifupdown.INTERFACES
LOOPBACK = "auto lo\niface lo inet loopback\n"
RULE = "    post-up ip rule add priority 1000 from 172.17.0.0/16 lookup 200\n"
ROUTE = "    post-up ip route replace default via 10.10.50.1 dev wlan0 table 200\n"
BOTH = f"{LOOPBACK}auto wlan0\niface wlan0 inet dhcp\n{RULE}{ROUTE}"


def test_the_guides_stanza_is_written_down() -> None:
    persistence = assess_persistence(resolved(recorded("ifupdown-guide")))
    assert persistence.manager == "ifupdown"
    assert [str(place) for place in persistence.places] == [f"{INTERFACES}:18", f"{INTERFACES}:19"]
    assert persistence.holds


def test_sourced_files_continued_lines_and_other_stanzas_are_read() -> None:
    persistence = assess_persistence(resolved(recorded("ifupdown-healthy")))
    folder = "/etc/network/interfaces.d"
    assert [str(place) for place in persistence.places] == [f"{folder}/10-rules.conf:5", f"{folder}/radio:4"]
    assert persistence.holds
    assert persistence.ineffective == ()  # radio.dpkg-old is no name that source-directory takes


@pytest.mark.parametrize(
    "line",
    [
        "ip rule add from 172.17.0.0/16 lookup wlan0rt pref 1000",
        "/sbin/ip -4 rule add table 200 from 172.17.0.0/16 prio 1000 || true",
        "/usr/sbin/ip ru a pri 1000 from 172.17/16 200table 5 2>/dev/null || ip rule add from 172.17.0.0/16 table 200",
        "ip rule show | grep -q wlan0rt || ip rule add from 172.17.0.0/16 lookup 0xc8",
        "if ! ip rule | grep -q 172.17; then ip rule add iif docker0 lookup 200; fi",
        "[ -e /run/x ] && ip rule add from 172.16.0.0/12 table wlan0rt >/dev/null 2>&1 # as the agent's",
    ],
)
def test_a_rule_is_found_however_it_is_typed(line: str) -> None:
    text = BOTH.replace(RULE, f"    up {line}\n")
    persistence = assess_persistence(resolved({INTERFACES: text}))
    assert [place.line for place in persistence.places] == [5, 6], persistence.ineffective


@pytest.mark.parametrize(
    ("change", "missing", "reason"),
    [
        ((RULE, ""), "a rule from 172.17.0.0/16 to table 200 (wlan0rt)", None),
        ((ROUTE, ""), "a route default via 10.10.50.1 dev wlan0 in table 200", None),
        (("172.17.0.0/16", "172.18.0.0/16"), "a rule from", "does not select all packets of the agent"),
        (("from 172.17.0.0/16 lookup 200", "from 172.17.0.0/16 lookup 201"), "a rule from", "leads to table 201"),
        (("via 10.10.50.1", "via 10.10.50.2"), "a route default", "leads to 10.10.50.2, not to 10.10.50.1"),
        (("dev wlan0 table", "dev eth0 table"), "a route default", "leads out by eth0"),
        (("post-up ip route", "post-down ip route"), "a route default", "runs when the interface goes down"),
        (("auto wlan0\n", ""), "no auto or allow-hotplug line", None),
        (("iface wlan0 inet dhcp\n" + RULE + ROUTE, "iface wlan0 inet dhcp\niface eth0 inet dhcp\n" + RULE + ROUTE),
         "a route default", "stands under eth0"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(change: tuple[str, str], missing: str, reason: str | None) -> None:
    persistence = assess_persistence(resolved({INTERFACES: BOTH.replace(*change)}))
    assert not persistence.holds
    assert any(missing in sentence for sentence in persistence.missing), persistence.missing
    if reason is not None:
        assert any(reason in why for _place, why in persistence.ineffective), persistence.ineffective


def test_the_stanza_that_lacks_a_line_is_evidence_with_its_place() -> None:
    text = BOTH.replace(RULE, "")
    (cause,) = not_written_down(resolved({INTERFACES: text}), Measurements())
    (file,) = (evidence for evidence in cause.evidence if isinstance(evidence, FileEvidence))
    assert (file.path, file.line) == (INTERFACES, text.splitlines().index("iface wlan0 inet dhcp") + 1)


def test_nothing_manages_the_uplink() -> None:
    case = resolved({INTERFACES: LOOPBACK})
    assert assess_persistence(case).manager is None
    (cause,) = not_written_down(case, Measurements())
    assert (cause.code, cause.reported_by) == ("NOT_PERSISTENT", "PERSIST-01")
    assert "nothing manages wlan0" in cause.sentence


def test_the_intent_names_another_manager() -> None:
    persistence = assess_persistence(resolved({INTERFACES: BOTH}, persist="networkmanager"))
    assert persistence.missing[0] == "NetworkManager does not manage wlan0: its files do not name it"


@pytest.mark.parametrize(
    "text",
    [
        BOTH.replace(RULE, ""),
        BOTH.replace(ROUTE, ""),
        BOTH.replace(RULE, "").replace(ROUTE, ""),
        BOTH.replace("auto wlan0\n", ""),
        BOTH.replace(LOOPBACK, "").replace(RULE, ""),
        BOTH.replace(RULE, "").removesuffix("\n"),
    ],
)
def test_the_remedy_corrects_and_its_rollback_restores(tmp_path: Path, text: str) -> None:
    """The commands are run by a shell, on a copy."""
    copy = tmp_path / "interfaces"
    copy.write_text(text)
    (cause,) = not_written_down(resolved({INTERFACES: text}), Measurements())

    def run(commands: list[str]) -> None:
        for command in commands:
            subprocess.run(["/bin/sh", "-ec", command.replace(INTERFACES, str(copy))], check=True)

    run(cause.remedy.lines)
    mended = assess_persistence(resolved({INTERFACES: copy.read_text()}))
    assert mended.holds, (mended.missing, copy.read_text())
    run(cause.remedy.rollback_lines)
    assert copy.read_text().rstrip("\n") == text.rstrip("\n")


OTHER = "post-up ip rule add from 172.17.0.0/16 table 201"


@pytest.mark.parametrize(
    ("line", "priority", "written"),
    [
        (OTHER, 32764, "post-up ip rule add priority 32764 from 172.17.0.0/16 table 201 2>/dev/null || true"),
        (OTHER, None, "post-up ip rule add priority 1001 from 172.17.0.0/16 table 201 2>/dev/null || true"),
        (f"{OTHER} || true", 32764, "post-up ip rule add priority 32764 from 172.17.0.0/16 table 201"),
        (OTHER, 900, None),
        ("post-up ip rule add from 172.18.0.0/16 table 201", None, None),
        ("post-up ip rule add priority 2000 from 172.17.0.0/16 table 201", 2000, None),
        ("pre-down ip rule add from 172.17.0.0/16 table 201", None, None),
    ],
    ids=["present", "not present", "tolerated", "first now too", "of others", "with priority", "going down"],
)
def test_a_rule_without_priority_gets_one_behind_the_added_rule(
    line: str, priority: int | None, written: str | None
) -> None:
    """The kernel would put it before every rule that is there when its line runs."""
    text = BOTH.replace(RULE, f"    {line}\n")
    present = Rule(family=4, priority=priority or 0, source="172.17.0.0/16", table=201, protocol="boot")
    typed = replace(TYPED, priority=1000)
    host = resolved({INTERFACES: text}, rules=(typed, present) if priority else (typed,))
    (cause,) = not_written_down(host, Measurements())
    added = [row.removeprefix("+    ") for row in cause.remedy.lines[0].splitlines() if row.startswith("+    ")]
    assert any(row.startswith("post-up ip rule add priority 1000 ") for row in added), added
    beside = [row for row in added if "201" in row]
    assert len(beside) == (written is not None)
    assert all(row.startswith(str(written)) for row in beside)
    assert ("adds a rule without a priority" in cause.sentence) == (written is not None)


def test_a_line_that_does_more_than_add_such_a_rule_is_left_to_a_person() -> None:
    text = BOTH.replace(RULE, "    post-up ip rule add from 172.17.0.0/16 table 201; logger added\n")
    (cause,) = not_written_down(resolved({INTERFACES: text}), Measurements())
    assert cause.decision == f"give the rule of {INTERFACES}:5 a priority above 1000"


def test_files_that_source_themselves_is_reported() -> None:
    files = {
        INTERFACES: f"source interfaces.d/*\n{BOTH}",
        "/etc/network/interfaces.d/a": "source /etc/network/interfaces.d/b\n",
        "/etc/network/interfaces.d/b": "source ../network/x /etc/network/interfaces.d/a\n",
    }
    persistence = assess_persistence(resolved(files))
    assert persistence.holds
    assert any("sources itself" in problem.reason for problem in persistence.problems)


def test_a_chain_of_sources_ends() -> None:
    files = {INTERFACES: "source /etc/network/0\n"}
    files |= {f"/etc/network/{number}": f"source /etc/network/{number + 1}\n" for number in range(30)}
    problems = assess_persistence(resolved(files, persist="ifupdown")).problems
    assert [problem.reason for problem in problems] == [f"more than {ifupdown.DEEPEST} files source one another"]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("junk\n" + BOTH, 1, "stands outside every stanza"),
        (LOOPBACK + "    up\n" + BOTH, 3, "has no value"),
        ("iface wlan0\n" + BOTH, 1, "has no family and method"),
        ("iface\n", 1, "iface without a name"),
        (BOTH + "    up ip rule add from 'x\n", 7, "no closing quotation"),
        (BOTH + "    up ip rule add from nonsense lookup 200\n", 7, "is not a prefix"),
        (BOTH + "    up ip rule add priority high from 1.2.3.4 lookup 200\n", 7, "is not a number"),
        (BOTH + "    up ip rule add from\n", 7, "is not a selector of a rule with a value"),
        (BOTH + "    up ip route add via\n", 7, "lacks its value"),
        (BOTH + "    up ip route add dev wlan0\n", 7, "a route without a destination"),
        (BOTH + "    up ip rule add from $NET lookup 200\n", 7, "known only when the command runs"),
    ],
)
def test_a_mistake_is_reported_with_its_line(text: str, line: int, reason: str) -> None:
    problems = assess_persistence(resolved({INTERFACES: text}, persist="ifupdown")).problems
    assert [(p.path, p.line) for p in problems] == [(INTERFACES, line)], problems
    assert reason in problems[0].reason


@pytest.mark.parametrize(
    "text",
    ["", "\0\0", "\\", "iface \\\n\\\n\\", "source\nauto\nmapping\nsource /\n", "source " + "*/" * 400,
     "iface a inherits\n", "iface a b c inherits a\n up ip\n"],
)  # fmt: skip
def test_garbage_is_no_traceback(text: str) -> None:
    assess_persistence(resolved((HostFile(path=INTERFACES, exists=True, text=text),), persist="ifupdown"))


def test_a_file_that_could_not_be_read_is_reported() -> None:
    file = HostFile(path=INTERFACES, exists=True, error="Permission denied")
    assert assess_persistence(resolved((file,), persist="ifupdown")).problems[0].reason == "Permission denied"


def test_scripts_count_only_when_they_may_be_executed() -> None:
    path, script = (
        "/etc/network/if-up.d/agent",
        "#!/bin/sh\nNET=172.17.0.0/16\nip rule add pref 9 from $NET table 200\n",
    )
    for mode, found in ((0o755, True), (0o644, False)):
        files = (host_file(INTERFACES, BOTH.replace(RULE, "")), host_file(path, script, mode))
        assert assess_persistence(resolved(files)).holds is found


def test_a_hook_of_the_dhcp_client_counts_where_the_uplink_has_a_lease() -> None:
    hook = host_file(
        f"{ifupdown.LEASE_HOOKS}/agent",
        'case $reason in BOUND)\n  ip route replace default via "${new_routers%% *}" dev wlan0 table 200\nesac\n',
        0o644,
    )
    leased = BOTH.replace(ROUTE, "")
    fixed = leased.replace("inet dhcp", "inet static\n    address 10.10.50.9/24")
    for text, found in ((leased, True), (fixed, False)):
        assert assess_persistence(resolved((host_file(INTERFACES, text), hook))).holds is found


def test_what_a_distributions_own_hook_makes_of_a_lease_is_no_problem() -> None:
    own = host_file(f"{ifupdown.LEASE_HOOKS}/rfc3442", 'ip route add "0.0.0.0/$length" via "$router"\n', 0o644)
    assert not assess_persistence(resolved((host_file(INTERFACES, BOTH), own))).problems


@pytest.mark.skipif(shutil.which("ifquery") is None, reason="needs ifupdown")
@pytest.mark.parametrize("name", ["ifupdown-guide", "ifupdown-healthy"])
def test_ifquery_reads_the_same(tmp_path: Path, name: str) -> None:
    """Ifupdown's own reader is the second witness: the same hooks, in the same order, for every interface."""
    files = recorded(name)
    for path, text in files.items():
        copy = tmp_path / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text.replace("/etc/network", f"{tmp_path}/etc/network"))
    read = ifupdown.read([host_file(*one) for one in files.items()], PREDEFINED_TABLES.get)
    for interface in ("lo", "wlan0"):
        said = subprocess.run(
            ["ifquery", "-i", str(tmp_path / INTERFACES.lstrip("/")), interface], capture_output=True, text=True
        )
        theirs = re.findall(r"^up: .*?ip .*$", said.stdout, re.M)
        ours = [entry.place for entry in read.entries if entry.interface == interface]
        assert len(ours) == len(theirs), (ours, said)
        for place, line in zip(ours, theirs, strict=True):
            assert place.text.split(None, 1)[1] == " ".join(line.split()[1:])
