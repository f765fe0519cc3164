"""What cannot run twice is found in the very lines, told with its code, and mended by commands that a shell runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.helpers.persistence_hosts import SUBNET, recorded, resolved
from viacheck.diagnosis import diagnose
from viacheck.diagnosis.persistence import cannot_run_twice
from viacheck.model.measurements import Measurements, NotReplayed, ReplayResult
from viacheck.model.policy_rule import Rule
from viacheck.model.snapshot import HostFile
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.config_writer import recipe_for
from viacheck.persistence.idempotence import assess_idempotence
from viacheck.persistence.lint import findings_of

INTERFACES = "/etc/network/interfaces"
BACKSTOP = "    up ip route replace unreachable default metric 4278198272 table 200\n"
ROUTE = "    up ip route replace default via 10.10.50.1 dev wlan0 table 200\n"
ADD = "ip rule add priority 1000 from 172.17.0.0/16 lookup 200"


def stanza(*lines: str, method: str = "dhcp") -> dict[str, str]:
    body = "".join(f"    {line}\n" for line in lines)
    return {INTERFACES: f"auto wlan0\niface wlan0 inet {method}\n{body}"}


def codes(files: dict[str, str], **more: HostFile) -> list[tuple[str, bool]]:
    case = resolved(files, **more)  # type: ignore[arg-type]
    return [(finding.code, finding.breaks) for finding in findings_of(case, assess_persistence(case))]


def test_the_guides_own_stanza() -> None:
    assert codes(recorded("ifupdown-guide")) == [
        ("RULES_ACCUMULATE", True), ("NOT_IDEMPOTENT", False), ("FAIL_OPEN", False),
    ]  # fmt: skip
    cause = diagnose("PERSIST-02", resolved(recorded("ifupdown-guide")), Measurements())
    assert cause is not None
    assert cause.code == "RULES_ACCUMULATE"
    assert f"{INTERFACES}:18: no fixed priority" in cause.sentence


def test_the_recipe_without_the_holes() -> None:
    assert codes(recorded("ifupdown-healthy")) == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"up {ADD}"], [("NOT_IDEMPOTENT", True)]),
        ([f"up {ADD} || true"], []),
        ([f"up {ADD}; true"], []),
        ([f"up ip rule del priority 1000 || true; {ADD}"], []),
        ([f"up ip rule del from {SUBNET} table wlan0rt 2>/dev/null || true", f"up {ADD}"], []),
        ([f"up {ADD}", "down ip rule del prio 1000"], []),
        (["up ip rule del priority 1000 || true", f"up {ADD}", f"up {ADD}"], [("NOT_IDEMPOTENT", True)]),
        (["up ip rule del priority 1000 || true", f"up {ADD}", f"up {ADD} || true"], []),
        (["up ip rule del priority 1000", f"up {ADD}"], [("NOT_IDEMPOTENT", True)]),
        ([f"up {ADD}", "up ip rule del prio 1000"], [("NOT_IDEMPOTENT", True)]),
        (["up ip rule del priority 999 || true", f"up {ADD}"], [("NOT_IDEMPOTENT", True)]),
        ([f"up ip rule | grep -q {SUBNET} || {ADD}"], []),
        ([f"up ip rule add from {SUBNET} lookup 200 || true"], [("RULES_ACCUMULATE", True)]),
        ([f"up ip rule del from {SUBNET} || true; ip rule add from {SUBNET} lookup 200"], [("NOT_IDEMPOTENT", False)]),
    ],
)
def test_rules(lines: list[str], expected: list[tuple[str, bool]]) -> None:
    assert codes(stanza(*lines, ROUTE.strip(), BACKSTOP.strip())) == expected


@pytest.mark.parametrize(
    ("route", "method", "expected"),
    [
        ("up ip route add default via 10.10.50.1 table 200", "static", [("NOT_IDEMPOTENT", False)]),
        ("up ip route add default via 10.10.50.1 table 200", "manual",
         [("NOT_IDEMPOTENT", True), ("ROUTE_NOT_RESTORED", False)]),
        ("up ip route add default via 10.10.50.1 table 200 || true", "manual", [("ROUTE_NOT_RESTORED", False)]),
        ("up ip addr add 10.10.50.9/24 dev wlan0; ip route replace default via 10.10.50.1 table 200", "manual", []),
        ("up ip route replace default via $new_routers dev wlan0 table 200", "dhcp", [("ROUTE_NOT_RESTORED", True)]),
        ("up ip route replace default via ${new_routers} dev $IFACE table 200", "static",
         [("ROUTE_NOT_RESTORED", True)]),
        ("pre-up ip route replace default via 10.10.50.1 dev wlan0 table 200", "dhcp", [("ROUTE_NOT_RESTORED", True)]),
    ],
)  # fmt: skip
def test_routes(route: str, method: str, expected: list[tuple[str, bool]]) -> None:
    assert codes(stanza(f"up {ADD} || true", route, BACKSTOP.strip(), method=method)) == expected


def test_a_name_that_is_not_registered() -> None:
    files = stanza("up ip rule add prio 9 from 172.17.0.0/16 lookup wlan0rt || true", ROUTE.strip(), BACKSTOP.strip())
    nothing = HostFile(path="/etc/iproute2/rt_tables", exists=True, text="254 main\n")
    assert codes(files, tables=nothing) == [("TABLE_NAME_MISSING", True)]
    assert assess_persistence(resolved(files, tables=nothing)).holds


def test_networkd_purges_what_is_not_its_own() -> None:
    files = recorded("ifupdown-healthy") | {
        "/etc/systemd/network/eth0.network": "[Match]\nName=eth0\n[Network]\nDHCP=yes\n",
        "/run/systemd/netif/links/11": "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/eth0.network\n",
    }
    case = resolved(files)
    (cause,) = cannot_run_twice(case, Measurements())
    assert cause.code == "FOREIGN_RULES_PURGED"
    assert cause.remedy.rollback_lines == ["rm /etc/systemd/networkd.conf.d/viacheck.conf"]
    for name, said in (("networkd.conf", "yes"), ("networkd.conf.d/viacheck.conf", "no")):
        files[f"/etc/systemd/{name}"] = f"[Network]\nManageForeignRoutingPolicyRules={said}\n"
    assert codes(files) == []


def test_networkd_that_manages_no_link_purges_nothing() -> None:
    files = recorded("ifupdown-healthy") | {"/run/systemd/netif/links/11": "ADMIN_STATE=unmanaged\n"}
    assert codes(files) == []


def test_an_interfaces_file_that_ifup_stops_reading() -> None:
    files = stanza(f"up {ADD} || true", ROUTE.strip(), BACKSTOP.strip(), "up")
    assert codes(files) == [("NOT_IDEMPOTENT", True)]


def test_remedies_make_the_guides_stanza_idempotent_and_roll_back(tmp_path: Path) -> None:
    """Each cause's commands are run by a shell on a copy, one after the other, until nothing is found."""
    files = recorded("ifupdown-guide")
    copy = tmp_path / "interfaces"
    copy.write_text(files[INTERFACES])
    for _round in range(4):
        before = copy.read_text()
        found = list(cannot_run_twice(resolved({INTERFACES: before}), Measurements()))
        if not found:
            break
        for commands, expected in (
            (found[0].remedy.lines, None),
            (found[0].remedy.rollback_lines, before),
            (found[0].remedy.lines, None),
        ):
            for command in commands:
                subprocess.run(["/bin/sh", "-ec", command.replace(INTERFACES, str(copy))], check=True)
            assert expected in (None, copy.read_text())
    assert codes({INTERFACES: copy.read_text()}) == []
    assert copy.read_text().count("CANARY-psk") == 1


def test_the_recipe_takes_what_runs_now() -> None:
    rules = (
        Rule(family=4, priority=880, source=SUBNET, table=254, suppress_prefixlength=0),
        Rule(family=4, priority=900, source=SUBNET, table=200),
    )
    found = recipe_for(resolved({}, rules=rules))
    assert found is not None
    assert (found.priority, found.local_priority) == (900, 880)
    by_interface = recipe_for(resolved({}, rules=(Rule(family=4, priority=850, iif="docker0", table=200), *rules)))
    assert by_interface is not None
    assert by_interface.priority == 900, "that of the rule for the subnet"
    typed = recipe_for(resolved({}))
    assert typed is not None
    assert (typed.priority, typed.local_priority) == (1000, None)


def test_a_proof_decides_where_it_was_made() -> None:
    case = resolved(recorded("ifupdown-healthy"))
    findings = findings_of(case, assess_persistence(case))
    assert assess_idempotence(findings, NotReplayed("nobody runs it")).holds
    assert "read, not run: nobody runs it" in assess_idempotence(findings, NotReplayed("nobody runs it")).observed
    assert not assess_idempotence(findings, ReplayResult(False, "after three times there are three rules")).holds
    guide = findings_of(case_of_guide := resolved(recorded("ifupdown-guide")), assess_persistence(case_of_guide))
    assert not assess_idempotence(guide, ReplayResult(True, "nothing was left over")).holds
