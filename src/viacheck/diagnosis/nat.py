"""Causes in NAT: an uplink that is a port of the agent's bridge, destination NAT, and the source NAT at the uplink."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from viacheck.analysis.agent_network import own_path
from viacheck.analysis.container_facts import nat_follows_start
from viacheck.analysis.local_networks import led_away
from viacheck.analysis.nat_facts import enslaved_uplinks, source_translation, subnet_is_routed
from viacheck.analysis.packet_filter.evaluate import Translation
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.sightings import departures, left_by
from viacheck.diagnosis.cause import EGRESS, Cause
from viacheck.diagnosis.remedy import (
    IPTABLES,
    NO_REMEDY,
    Command,
    Remedy,
    command,
    iptables_of,
    rule_removal,
)
from viacheck.model.check_evidence import PacketsEvidence
from viacheck.model.filter_chains import FilterChain, FilterRule
from viacheck.model.intent import NatAttach
from viacheck.model.measurements import Measurements

NETAVARK = ("inet", "netavark")
"""The family and the name of the table in which netavark keeps its rules."""


def uplink_in_bridge(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find an uplink that is a port of the agent's bridge, so that the bridge is on the LAN."""
    if not isinstance(resolved.intent.agent.attach, NatAttach) or resolved.bridge is None:
        return
    for name in enslaved_uplinks(resolved):
        yield Cause(
            "BRIDGED_UPLINK", "NAT-01",
            f"{name} is a port of {resolved.bridge}: the agent's bridge is on the LAN, and {name}'s own address does "
            "not work",
            Remedy(
                (command("ip", "link", "set", "dev", name, "nomaster"),),
                (command("ip", "link", "set", "dev", name, "master", resolved.bridge),),
            ),
            EGRESS | {"HOST-02", "HOST-03", "ROUTE-04", "ROUTE-05", "ROUTE-06", "EGRESS-04", "EGRESS-07"},
        )  # fmt: skip


def target_redirected(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find destination NAT of this host that sends the probes to another machine, by another way or without an answer.

    A machine that answers as the probe target does, by the intended uplink, is no fault.
    """
    if not isinstance(resolved.intent.agent.attach, NatAttach) or resolved.agent_source is None:
        return
    for protocol in resolved.intent.probe.protocols:
        path = own_path(resolved, protocol)
        if path.destination is None:
            continue
        would_leave = resolved.agent_decision(protocol)
        astray = path.egress != {resolved.uplink} and would_leave.interfaces == {resolved.uplink}
        silent, left = _no_answer(resolved, measurements.traffic.packets.get(protocol))
        if not (astray or silent):
            continue
        rule = next(hop.decides for hop in path.out if hop.stage == "nat")
        ways = " and ".join(left) or (path.egress_text if not silent else "")
        seen = f"leave by {ways}" if ways else f"do not leave, as {path.destination} does not answer ARP"
        yield Cause(
            "TARGET_REDIRECTED", "EGRESS-01" if astray or not left else "EGRESS-03",
            f"destination NAT of this host sends the probes ({protocol}) to {path.destination} in place of "
            f"{resolved.target}: the rule '{rule}'. They {seen}"
            f"{f', and no answer comes from {path.destination}' if silent and ways else ''}",
            also_affects=EGRESS,
            decision="except the agent's packets from that rule; or, if it is meant, name as probe.target a host that "
            "the rule leaves alone",
        )  # fmt: skip
        return


def _no_answer(resolved: ResolvedIntent, packets: PacketsEvidence | None) -> tuple[bool, list[str]]:
    """Return whether probes were sent and no answer was seen anywhere, and the interfaces that they left by."""
    if packets is None:
        return False, []
    answered = packets.answered or any(sighting.role == "answer" for sighting in packets.sightings)
    return not answered, list(left_by(packets, resolved.egress_interfaces))


def source_nat_faulty(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the agent's packets would leave the uplink with a source to which replies cannot come back."""
    if not isinstance(resolved.intent.agent.attach, NatAttach) or resolved.agent_source is None:
        return
    if nat_follows_start(resolved):
        return
    translation = source_translation(resolved)
    if translation.kind == "none" and subnet_is_routed(resolved, measurements.traffic):
        subnet = resolved.agent_subnet or resolved.agent_source
        yield Cause(
            "SUBNET_ROUTED", "NAT-02",
            f"no rule translates the source of {subnet}, and answers to {resolved.agent_source} come back: the network "
            f"beyond {resolved.uplink} routes {subnet} to this host. A router without that route does not answer",
            # Local pings that keep their way are lost at the routers of other uplinks, which need no such route.
            also_affects=frozenset({"EGRESS-02"} if any(led_away(resolved)) else {"EGRESS-02", "ROUTE-06"}),
            decision=f"nothing, if that is meant; each router on the way must keep a route to {subnet}",
        )  # fmt: skip
    elif translation.kind == "none":
        yield _untranslated(resolved, translation)
    elif translation.kind == "unknown" and _leaves_untranslated(resolved, measurements):
        yield _excluded_by_unknown(resolved, translation)
    elif translation.kind == "snat" and translation.address not in resolved.uplink_addresses(resolved.uplink):
        removal = _removal(translation)
        add, delete = _masquerade(resolved)
        remedy = Remedy((*removal.steps, add), (delete, *removal.rollback)) if removal else Remedy()
        rule = translation.rule
        yield Cause(
            "SOURCE_NOT_UPLINK", "NAT-02",
            f"the rule '{rule.text if rule is not None else ''}' gives the agent's packets the source "
            f"{translation.address}, which is not an address of {resolved.uplink}",
            remedy, EGRESS | {"ROUTE-06"},
        )  # fmt: skip


def _untranslated(resolved: ResolvedIntent, translation: Translation) -> Cause:
    """Return the cause of packets that no rule translates: a rule excludes them, or there is no rule."""
    add, delete = _masquerade(resolved)
    remedy = Remedy((add,), (delete,))
    engine = resolved.snapshot.engine
    if engine is not None and engine.podman and engine.container is not None:
        # It makes netavark set every rule of the container again, those of published ports too.
        chains = resolved.snapshot.host.packet_filter.chains
        absent = not any((chain.family, chain.table) == NETAVARK for chain in chains)
        back = (command("nft", "delete", "table", *NETAVARK),) if absent else ()
        remedy = Remedy((command("podman", "network", "reload", engine.container.name),), back)
    sentence = f"no rule translates the source of {resolved.agent_subnet or resolved.agent_source} on {resolved.uplink}"
    chain, rule = translation.chain, translation.rule
    if chain is not None and rule is not None:
        excludes = "keeps conntrack from tracking" if rule.untracks else "excludes"
        from_nat = ", so no NAT applies to them" if rule.untracks else " from source NAT"
        sentence = f"the rule '{rule.text}' of chain {chain.name} {excludes} the agent's packets{from_nat}"
        remedy = _removal(translation)
        if remedy and _translation_without(resolved, chain, rule).kind == "none":
            remedy = Remedy((*remedy.steps, add), (delete, *remedy.rollback))
    return Cause(
        "MASQUERADE_MISSING", "NAT-02",
        f"{sentence}: packets would leave with {resolved.agent_source}, so replies cannot come back",
        remedy, EGRESS | {"ROUTE-06"},
    )  # fmt: skip


def _leaves_untranslated(resolved: ResolvedIntent, measurements: Measurements) -> bool:
    """Return whether all probes of a protocol left by the intended uplink with the agent's own address, unanswered."""
    return any(
        not packets.answered and {sighting.source for sighting in left} == {resolved.agent_source}
        for name, packets in measurements.traffic.packets.items()
        if name in PROTOCOL_NUMBERS and (left := departures(packets, resolved.uplink))
    )


def _excluded_by_unknown(resolved: ResolvedIntent, translation: Translation) -> Cause:
    """Return the cause of packets that were seen to leave untranslated, where the model cannot evaluate a rule."""
    chain, rule = translation.chain, translation.rule
    remedy, by = NO_REMEDY, "a rule that cannot be read"
    if chain is not None and rule is not None:
        by = f"the rule '{rule.text}' of chain {chain.name}, whose conditions the model cannot evaluate"
        if _translation_without(resolved, chain, rule).kind == "masquerade":
            remedy = rule_removal(chain, rule)
    return Cause(
        "MASQUERADE_MISSING", "EGRESS-02",
        f"the agent's packets leave by {resolved.uplink} with {resolved.agent_source}, so replies cannot come back; "
        f"their source NAT depends on {by}",
        remedy, EGRESS | {"ROUTE-06"},
        decision=None if remedy else "have the agent's packets translated there",
    )  # fmt: skip


def _masquerade(resolved: ResolvedIntent) -> tuple[Command, Command]:
    """Return the commands that add Docker's own masquerade rule, and delete it."""
    subnet = resolved.agent_subnet or resolved.agent_source
    rule = ("-s", subnet, "!", "-o", resolved.bridge or "docker0", "-j", "MASQUERADE")
    chains = resolved.snapshot.host.packet_filter.chains
    nat = [chain for chain in chains if (chain.family, chain.table, chain.name) == ("ip", "nat", "POSTROUTING")]
    by_iptables = sorted((chain for chain in nat if chain.backend != "nft"), key=lambda chain: chain.backend)
    table = (iptables_of(by_iptables[0]) if by_iptables else IPTABLES, "-t", "nat")
    return command(*table, "-A", "POSTROUTING", *rule), command(*table, "-D", "POSTROUTING", *rule)


def _removal(translation: Translation) -> Remedy:
    """Return the remedy that deletes the rule that decides; empty without a rule."""
    chain, rule = translation.chain, translation.rule
    if chain is None or rule is None:
        return NO_REMEDY
    return rule_removal(chain, rule)


def _translation_without(resolved: ResolvedIntent, chain: FilterChain, rule: FilterRule) -> Translation:
    """Return the source NAT of the agent's packets once a rule is deleted."""
    packet_filter = resolved.snapshot.host.packet_filter
    shorter = replace(chain, rules=tuple(other for other in chain.rules if not other.is_part_of(rule)))
    chains = tuple(shorter if other is chain else other for other in packet_filter.chains)
    host = replace(resolved.snapshot.host, packet_filter=replace(packet_filter, chains=chains))
    return source_translation(ResolvedIntent(resolved.intent, replace(resolved.snapshot, host=host)))
