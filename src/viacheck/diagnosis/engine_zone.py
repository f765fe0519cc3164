"""The cause of an engine that started before firewalld answered: firewalld rejects what its containers send."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.nat_facts import Direction, forwarded_probes
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import EGRESS, Cause
from viacheck.diagnosis.flushed_nat import DOCKER, FIREWALLD, RELOAD_UNITS
from viacheck.diagnosis.remedy import remedy_of
from viacheck.model.filter_chains import FilterMatch
from viacheck.model.measurements import Measurements
from viacheck.persistence.file_edit import new_file

_UNIT = "firewalld.service"
_DROP_IN = f"/etc/systemd/system/{DOCKER}.d/viacheck-firewalld.conf"
# firewalld's unit is started before firewalld answers; the command waits for the answer, and may fail without harm.
_FOLLOWS = f"[Unit]\nAfter={_UNIT}\n\n[Service]\nExecStartPre=-firewall-cmd --state\n"
_ENGINES_CHAINS = "DOCKER"
"""The start of the names of the engine's own chains."""


def engine_without_zone(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that firewalld drops the agent's packets, and that the engine did not put its bridge into a zone.

    The engine makes its zone, and puts its bridges into it, when it starts and firewalld answers.
    """
    engine, chains = resolved.snapshot.engine, resolved.snapshot.host.packet_filter.chains
    bridge = resolved.bridge
    if resolved.agent_source is None or engine is None or engine.podman or bridge is None:
        return
    dropped = next((probe for probe in forwarded_probes(resolved) if probe.passage.allowed is False), None)
    if dropped is None or dropped.direction is not Direction.OUT or dropped.passage.chain is None:
        return
    chain, rule = dropped.passage.chain, dropped.passage.rule
    in_zone = any(
        _names(match, bridge) for each in chains if each.table == FIREWALLD for of in each.rules for match in of.matches
    )
    # An engine that sets no rules ("iptables": false) makes no zone either.
    sets_rules = any(each.name.startswith(_ENGINES_CHAINS) for each in chains)
    if chain.table != FIREWALLD or in_zone or not sets_rules:
        return
    what = f"the rule '{rule.text}'" if rule is not None else "the policy"
    yield Cause(
        "FORWARD_DROPPED", "HOST-04",
        f"{what} of chain {chain.name} of table {chain.table} ({chain.backend}) drops the agent's {dropped.direction}: "
        f"firewalld has {bridge} in no zone of the engine's, because the engine started before firewalld answered. "
        "Restart the engine, and order it after the firewall",
        remedy_of(
            [new_file(resolved.snapshot, _DROP_IN, _FOLLOWS)],
            [*RELOAD_UNITS, ("firewall-cmd", "--state"), ("systemctl", "restart", DOCKER)],
            RELOAD_UNITS,
        ),
        EGRESS | {"ROUTE-06"},
    )  # fmt: skip


def _names(match: FilterMatch, interface: str) -> bool:
    """Return whether a condition is about packets that come in by an interface, as those that select a zone are."""
    return match.field == "iif" and interface in match.values
