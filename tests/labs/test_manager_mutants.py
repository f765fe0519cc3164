"""Random small changes of managers' healthy files: PERSIST-01 holds exactly when the manager sets rule and route.

A manager starts in a whole host whose interfaces, rules and manager state are as after a boot, without a boot for each
change: so a change takes a second. ``--soak`` tries 160 changes, and CI a fixed sample.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from netns_lab.lab import Lab
from netns_lab.lab_specs import parse_labs
from netns_lab.open_lab import open_lab
from netns_lab.scenarios import WHOLE_HOSTS
from netns_lab.scenarios.managers import LOOPBACK_PROFILE, NETPLAN, RADIO_PROFILE
from netns_lab.scenarios.networkd import LOOPBACK, RADIO
from netns_lab.scenarios.survival import INTERFACES
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from viacheck.analysis.agent_rules import rules_for_agent
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.host import persistence_files
from viacheck.host.snapshot_reader import network_state
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.lint import findings_of

_MISSING = missing_for(BaseRoot(DEFAULT_RELEASE))
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))
UPLINK, GATEWAY = "wlan0", "10.10.50.1"
SAMPLE, SOAK = 5, 40
"""Changes of each manager's files, in CI and with ``--soak``."""
SETTLES_WITHIN = 20.0
"""Seconds: a link whose file is wrong may stay in the state "configuring"."""
AS_AFTER_A_BOOT = """
for priority in $(ip rule show | sed -n 's/^\\([0-9]*\\):.*/\\1/p' | grep -vx -e 0 -e 32766 -e 32767); do
    ip rule del priority $priority
done
ip route flush table 200
for name in eth0 wlan0; do ip address flush dev $name; ip link set $name down; done
rm -rf /run/network/ifstate* /run/systemd/netif/links /run/systemd/netif/state /run/systemd/network /run/NetworkManager
"""


@dataclass(frozen=True)
class ManagerCase:
    """A manager in a whole host: its healthy files, and how it is stopped and started."""

    scenario: str
    files: tuple[str, ...]
    """The files that are changed."""
    units: tuple[str, ...]
    prepare: tuple[tuple[str, ...], ...] = ()
    """Commands that run before the manager starts, as at a boot."""


NETWORKD_UNITS = ("systemd-networkd.service", "systemd-networkd.socket")
CASES = {
    "ifupdown": ManagerCase(
        "policy-routing-ifupdown", (INTERFACES,), ("networking.service",), (("ip", "link", "set", "lo", "down"),)
    ),
    "networkd": ManagerCase("policy-routing-networkd", (LOOPBACK, RADIO), NETWORKD_UNITS),
    "networkmanager": ManagerCase("policy-routing-nm", (LOOPBACK_PROFILE, RADIO_PROFILE), ("NetworkManager.service",)),
    "netplan": ManagerCase("policy-routing-netplan", (NETPLAN,), NETWORKD_UNITS, (("netplan", "generate"),)),
}  # fmt: skip


def mutants(text: str, chooser: random.Random) -> Iterator[tuple[str, str]]:
    """Yield changed texts, each with what was done to which line, without end."""
    lines = text.split("\n")
    # Which device gets a profile without an interface's name is in no file.
    filled = [number for number, line in enumerate(lines) if line.strip() and "interface-name" not in line]
    while True:
        at, change = chooser.choice(filled), chooser.choice(("delete", "repeat", "comment", "digit", "name"))
        line = lines[at]
        digits = [place for place, letter in enumerate(line) if letter.isdigit()]
        if change == "digit" and digits:
            place = chooser.choice(digits)
            new = [line[:place] + str((int(line[place]) + chooser.randrange(1, 10)) % 10) + line[place + 1 :]]
        elif change == "name" and UPLINK in line:
            new = [line.replace(UPLINK, "eth0")]
        elif change in ("digit", "name"):
            continue
        else:
            new = {"delete": [], "repeat": [line, line], "comment": [f"#{line}"]}[change]
        yield f"line {at + 1} ({change}) {line!r} -> {new!r}", "\n".join([*lines[:at], *new, *lines[at + 1 :]])


@dataclass
class Bench:
    """A whole host in which one manager after another is started."""

    lab: Lab
    resolved: ResolvedIntent
    """The host after its first boot; its agent and its bridge stay."""

    def run(self, *argv: str) -> str:
        """Run a command on the host; return its output."""
        return self.lab.host.namespace.run(argv, 60).stdout

    def started(self, case: ManagerCase, changed: dict[str, str]) -> ResolvedIntent:
        """Return the host once the manager has started from its files, of which some are changed."""
        for other in CASES.values():
            self.run("systemctl", "stop", *other.units)
            self.run("rm", "-f", *WHOLE_HOSTS[other.scenario]().files)
        for path, text in (WHOLE_HOSTS[case.scenario]().files | changed).items():
            self.run("mkdir", "-p", path.rpartition("/")[0])
            self.lab.host.write(path, text)
            self.run("chmod", "600" if path.endswith((".yaml", ".nmconnection")) else "644", path)
        self.run("sh", "-c", AS_AFTER_A_BOOT)
        for command in case.prepare:
            self.run(*command)
        self.run("systemctl", "reset-failed", case.units[0])
        self.run("systemctl", "start", case.units[0])
        if case.units == NETWORKD_UNITS:
            self.wait_for_networkd()
        elif case.units == CASES["networkmanager"].units:
            self.run("nm-online", "-s", "-q", "-t", f"{SETTLES_WITHIN:.0f}")
        state, _problems = network_state(self.lab.host.namespace)
        # At a boot /run is empty, and no manager has an answer yet.
        kept = [
            file for file in persistence_files.collect(self.lab.host.namespace) if not file.path.startswith("/run/")
        ]
        tables = [file for file in self.resolved.snapshot.files if "rt_tables" in file.path]
        snapshot = replace(self.resolved.snapshot, host=state, files=(*tables, *kept), manager_answers=())
        return ResolvedIntent(self.resolved.intent, snapshot)

    def wait_for_networkd(self) -> None:
        """Return when no link is on its way, or when a link that cannot be configured stays on it."""
        end = time.monotonic() + SETTLES_WITHIN
        while time.monotonic() < end:
            links = json.loads(self.run("networkctl", "--json=short", "list") or "{}").get("Interfaces", [])
            states = {link["Name"]: link["AdministrativeState"] for link in links}
            if not {"pending", "initialized", "configuring"} & {states.get(name) for name in ("lo", "eth0", UPLINK)}:
                return
            time.sleep(0.05)


def sets_both(resolved: ResolvedIntent) -> bool:
    """Whether the kernel has the agent's rule, and the table's default route by the gateway and the uplink."""
    routes = [route for route in resolved.table_routes if route.is_default and route.nexthops]
    hops = min(routes, key=lambda route: route.metric).nexthops if routes else ()
    return bool(rules_for_agent(resolved)) and [(hop.interface, hop.gateway) for hop in hops] == [(UPLINK, GATEWAY)]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    BaseRoot(DEFAULT_RELEASE).build(lambda _line: None)
    (spec,) = parse_labs("host:policy-routing-nm")
    lab = open_lab(spec)
    try:
        lab.host.run("systemctl", "enable", "systemd-networkd.service")
        target = spec.target_of(lab, ends_lab=False)
        yield Bench(lab, target.resolved)
        target.close()
    finally:
        lab.close()


@pytest.mark.parametrize("manager", CASES)
def test_the_verdict_from_the_files_is_what_the_manager_does(
    bench: Bench, manager: str, pytestconfig: pytest.Config
) -> None:
    case, chooser = CASES[manager], random.Random(manager)
    healthy = WHOLE_HOSTS[case.scenario]().files
    resolved = bench.started(case, {})
    assert assess_persistence(resolved).holds
    assert sets_both(resolved), "the healthy files"
    changes = [mutants(healthy[path], chooser) for path in case.files]
    wrong, outcomes = [], set()
    for _number in range(SOAK if pytestconfig.option.soak else SAMPLE):
        at = chooser.randrange(len(changes))
        what, text = next(changes[at])
        resolved = bench.started(case, {case.files[at]: text})
        persistence, outcome = assess_persistence(resolved), sets_both(resolved)
        outcomes.add(outcome)
        # A line that fails when it runs again, or leads to a failed ifup, is PERSIST-02's: a boot may succeed with it.
        fails = any(finding.breaks for finding in findings_of(resolved, persistence))
        if outcome is not persistence.holds and not (fails and not outcome):
            judged = "; ".join(persistence.missing) or "rule and route are there"
            kernel = "both" if outcome else "not both"
            wrong.append(f"{case.files[at]} {what}: the files say '{judged}', and the kernel has {kernel}")
    assert not wrong, "\n".join(wrong)
    assert outcomes == {True, False}, "changes of both kinds were tried"
