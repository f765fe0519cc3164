"""Causes that only packets can tell: reverse path, MTU, DNS, IPv6, copies."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.agent_rules import FIXED_PRIORITY
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.sightings import answers_seen, departures, left_by
from viacheck.diagnosis.cause import Cause, command, enter_agent
from viacheck.model.measurements import Measurements
from viacheck.model.result import CounterEvidence, PacketsEvidence, PacketSighting, StateEvidence

PROBED = ("icmp", "udp", "tcp")


def strict_reverse_path(resolved: ResolvedIntent, interface: str) -> bool:
    """Whether the interface drops packets whose source it would not answer by (RFC 3704; the larger of all and own)."""
    sysctls = resolved.snapshot.host.sysctls
    return max(int(sysctls.get(f"net/ipv4/conf/{name}/rp_filter", "0")) for name in ("all", interface)) == 1


def reverse_path(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Answers reach the uplink and are dropped there by the strict reverse path check."""
    uplink = resolved.uplink
    dropped = [
        name
        for name in PROBED
        if (packets := measurements.traffic.packets.get(name)) is not None
        and not packets.answered
        and answers_seen(packets, uplink)
    ]
    if not dropped or not strict_reverse_path(resolved, uplink):
        return
    before, after = measurements.traffic.reverse_path_drops
    old = resolved.snapshot.host.sysctls.get(f"net/ipv4/conf/{uplink}/rp_filter", "0")
    knob = f"net.ipv4.conf.{uplink.replace('.', '/')}.rp_filter"
    yield Cause(
        "RP_FILTER_DROP", "EGRESS-03",
        f"answers arrive on {uplink} and are dropped there: the reverse path check is strict, and without the packets' "
        f"mark the way back to their source is not {uplink}",
        remedy=(command("sysctl", "-w", f"{knob}=2"),), undo=(command("sysctl", "-w", f"{knob}={old}"),),
        explains=frozenset({"EGRESS-05", "EGRESS-06"}),
        evidence=(CounterEvidence(name="TcpExt IPReversePathFilter", before=before, after=after),),
    )  # fmt: skip


def mtu_trap(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Full-size packets die without a word while small ones pass."""
    packets = measurements.traffic.packets.get("full-size")
    if packets is None or packets.answered:
        return
    host, uplink = resolved.snapshot.host, resolved.uplink
    link, bridge = host.link(uplink), resolved.bridge
    agent, parent = resolved.agent_link, resolved.parent_link
    if agent is not None and parent is not None and agent.mtu < parent.mtu:
        enter, set_mtu = enter_agent(resolved.intent), ("ip", "link", "set", "dev", agent.name, "mtu")
        yield Cause(
            "MTU_TRAP", "EGRESS-06",
            f"the agent's {agent.name} keeps MTU {agent.mtu} while its parent {parent.name} has {parent.mtu}: a "
            "macvlan interface follows its parent down, but not up again",
            remedy=(f"{enter} {command(*set_mtu, parent.mtu)}",), undo=(f"{enter} {command(*set_mtu, agent.mtu)}",),
            evidence=(
                StateEvidence(title="MTU on the way", lines=[f"{one.name}: MTU {one.mtu}" for one in (agent, parent)]),
            ),
        )  # fmt: skip
        return
    remedy: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    sizes = [f"{one.name}: MTU {one.mtu}" for one in (link, host.link(bridge) if bridge else None) if one]
    if link is not None and agent is not None and link.mtu < agent.mtu:
        enter = enter_agent(resolved.intent)
        remedy = (f"{enter} {command('ip', 'link', 'set', 'dev', agent.name, 'mtu', link.mtu)}",)
        undo = (f"{enter} {command('ip', 'link', 'set', 'dev', agent.name, 'mtu', agent.mtu)}",)
    size = agent.mtu if agent is not None else 1500
    yield Cause(
        "MTU_TRAP", "EGRESS-06",
        f"packets of {size} bytes vanish between {bridge or 'the agent'} and {uplink}, and no 'fragmentation needed' "
        "reaches the agent: small exchanges work, large ones hang",
        remedy=remedy, undo=undo, evidence=(StateEvidence(title="MTU on the way", lines=sizes),),
    )  # fmt: skip


def dns_by_another_path(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """The agent's queries are carried on by a resolver on the host, whose packets no agent rule matches."""
    packets = measurements.traffic.packets.get("dns")
    if packets is None:
        return
    others = [way for way in left_by(packets, resolved.egress_interfaces) if way != resolved.uplink]
    foreign = foreign_departures(resolved, packets)
    if not others and not foreign:
        return
    seen = [s for s in departures(packets) if s.interface in (others or [resolved.uplink])]
    sources = sorted({one.source for one in seen})
    ways = sorted({one.interface for one in seen})
    name = resolved.intent.agent.container
    why = "not as the agent's own" if resolved.bridged else "where the agent's rule does not match"
    yield Cause(
        "DNS_OTHER_PATH", "EGRESS-05",
        f"the agent's DNS queries leave by {', '.join(ways)} with source {', '.join(sources)}: a resolver on the "
        f"host carries them on from its own namespace, {why}. Give the agent a resolver "
        f"beyond the uplink ('--dns' when {name or 'the container'} is created)",
    )  # fmt: skip


def foreign_departures(resolved: ResolvedIntent, packets: PacketsEvidence) -> list[PacketSighting]:
    """The probes of a bridged agent that left by its uplink with another MAC or IPv4 address than the agent's own."""
    if not resolved.bridged:
        return []
    return [one for one in departures(packets, resolved.uplink) if not resolved.is_agents_own(one)]


def ipv6_escapes(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """IPv6 packets leave by another uplink, because the rule is for IPv4 only."""
    packets = measurements.traffic.packets.get("ipv6")
    if packets is None or resolved.agent_address6 is None:
        return
    others = [way for way in left_by(packets, resolved.egress_interfaces) if way != resolved.uplink]
    if not others:
        return
    state = resolved.snapshot.host
    subnet = next((a.network for a in state.addresses_of(resolved.bridge or "", 6) if a.scope == "global"), None)
    table = resolved.table
    rule = ("priority", FIXED_PRIORITY, "from", subnet or resolved.agent_address6, "lookup", table)
    remedy = [command("ip", "-6", "rule", "add", *rule)]
    undo = [command("ip", "-6", "rule", "del", *rule)]
    if not any(route.is_default for route in state.table(table, 6)):
        gateway6 = resolved.intent.uplinks[resolved.uplink].gateway6
        default = ("default", "via", gateway6, "dev", resolved.uplink) if gateway6 else ("unreachable", "default")
        remedy.insert(0, command("ip", "-6", "route", "add", *default, "table", table))
        undo.append(command("ip", "-6", "route", "del", *default, "table", table))
    yield Cause(
        "IPV6_ESCAPES", "EGRESS-07",
        f"the agent's IPv6 packets leave by {', '.join(others)}: no IPv6 rule sends {subnet} to table {table}",
        remedy=tuple(remedy), undo=tuple(undo),
    )  # fmt: skip


def copied(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """The same packet leaves by the intended uplink and by another one as well."""
    copies: dict[str, int] = {}
    for name in PROBED:
        packets = measurements.traffic.packets.get(name)
        if packets is None:
            continue
        left = left_by(packets, resolved.egress_interfaces)
        for way, numbers in left.items():
            if way != resolved.uplink and numbers & left.get(resolved.uplink, set()):
                copies[way] = copies.get(way, 0) + len(numbers & left[resolved.uplink])
    for way, count in copies.items():
        yield Cause(
            "PACKETS_COPIED", "EGRESS-01",
            f"{count} probes left by {resolved.uplink} and once more by {way}: something on this host duplicates "
            "packets (nftables 'dup', iptables TEE, or a tc mirror)",
            explains=frozenset({"EGRESS-02", "EGRESS-05"}),
        )  # fmt: skip
