"""The managers of whole hosts with random small changes of their healthy files, and what the kernel must have then."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from netns_lab.scenarios.managers import LOOPBACK_PROFILE, NETPLAN, RADIO_PROFILE
from netns_lab.scenarios.networkd import LOOPBACK, RADIO
from netns_lab.scenarios.survival import INTERFACES
from viacheck.analysis.agent_rules import rules_for_agent
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.host import persistence_files
from viacheck.host.namespace import Namespace
from viacheck.host.snapshot_reader import network_state
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.lint import findings_of

UPLINK, GATEWAY = "wlan0", "10.10.50.1"
SETTLES_WITHIN = 20.0
"""Seconds: a link whose file is wrong may stay in the state "configuring"."""


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


def settle(case: ManagerCase, run: Callable[..., str]) -> None:
    """Return when the manager has configured its links, or has given up; ``run``: runs a command of the host."""
    if case.units == NETWORKD_UNITS:
        _wait_for_networkd(run)
    elif case.units == CASES["networkmanager"].units:
        run("nm-online", "-s", "-q", "-t", f"{SETTLES_WITHIN:.0f}")


def _wait_for_networkd(run: Callable[..., str]) -> None:
    """Return when no link is on its way, or when a link that cannot be configured stays on it."""
    end = time.monotonic() + SETTLES_WITHIN
    while time.monotonic() < end:
        links = json.loads(run("networkctl", "--json=short", "list") or "{}").get("Interfaces", [])
        states = {link["Name"]: link["AdministrativeState"] for link in links}
        if not {"pending", "initialized", "configuring"} & {states.get(name) for name in ("lo", "eth0", UPLINK)}:
            return
        time.sleep(0.05)


def as_it_is(host: Namespace, resolved: ResolvedIntent) -> ResolvedIntent:
    """Return the host with its present state and files; the agent and its engine are those of ``resolved``."""
    state, _problems = network_state(host)
    # At a boot /run is empty, and no manager has an answer yet.
    kept = [file for file in persistence_files.collect(host) if not file.path.startswith("/run/")]
    tables = [file for file in resolved.snapshot.files if "rt_tables" in file.path]
    snapshot = replace(resolved.snapshot, host=state, files=(*tables, *kept), manager_answers=())
    return ResolvedIntent(resolved.intent, snapshot)


def sets_both(resolved: ResolvedIntent) -> bool:
    """Whether the kernel has the agent's rule, and the table's default route by the gateway and the uplink."""
    routes = [route for route in resolved.table_routes if route.is_default and route.nexthops]
    hops = min(routes, key=lambda route: route.metric).nexthops if routes else ()
    return bool(rules_for_agent(resolved)) and [(hop.interface, hop.gateway) for hop in hops] == [(UPLINK, GATEWAY)]


def disagreement(resolved: ResolvedIntent) -> str | None:
    """Return how the verdict from the files differs from what the kernel has; None if it does not."""
    persistence, outcome = assess_persistence(resolved), sets_both(resolved)
    # A line that fails when it runs again, or leads to a failed ifup, is PERSIST-02's: a boot may succeed with it.
    fails = any(finding.breaks for finding in findings_of(resolved, persistence))
    if outcome is persistence.holds or (fails and not outcome):
        return None
    judged = "; ".join(persistence.missing) or "rule and route are there"
    return f"the files say '{judged}', and the kernel has {'both' if outcome else 'not both'}"
