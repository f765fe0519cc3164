"""Egress: packets of the agent and of the host, captured on every interface at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.agent_network import own_path
from viacheck.analysis.answers import unknown_answer_route
from viacheck.analysis.classes import CLASSES_NAMED, ClassPartition, ClassVerdict, classes_text
from viacheck.analysis.coverage import coverage
from viacheck.analysis.loss import answers_text, loss_text, loss_verdict
from viacheck.analysis.paths import probe_traffic
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.sightings import (
    answers_astray,
    answers_seen,
    departures,
    departures_text,
    errors_seen,
    left_by,
)
from viacheck.analysis.sources import source_answers, source_path, source_uplink
from viacheck.analysis.traced_path import Path
from viacheck.model.check_evidence import LossVerdict, PacketsEvidence
from viacheck.model.filter_chains import PacketFilter
from viacheck.model.intent import Source, TransportProtocol
from viacheck.model.intent_values import share

if TYPE_CHECKING:
    from viacheck.packets.traffic_tests import TrafficTests


@check(
    "EGRESS-01",
    "The agent's packets leave by the intended uplink, and by no other",
    guide="NAT, steps 3-5",
    needs="capture",
)
def test_agent_packets_leave_by_the_intended_uplink(
    traffic: TrafficTests, resolved: ResolvedIntent, protocol: TransportProtocol, expect: Expect
) -> None:
    _leaves_by(resolved.uplink, traffic.agent(protocol), own_path(resolved, protocol), "the agent", resolved, expect)


def _leaves_by(
    uplink: str, packets: PacketsEvidence, path: Path, who: str, resolved: ResolvedIntent, expect: Expect
) -> None:
    """Record whether all packets leave by an uplink, and all other flows do by the model."""
    left = left_by(packets, resolved.egress_interfaces)
    if path.depends_on_flow and set(left) == {uplink}:
        # A few flows prove nothing about the others.
        expect.holds(
            False,
            expected=f"every flow of {who} leaves by {uplink}",
            observed=f"{departures_text(left, packets.sent)} this time; other "
            f"{'packets' if path.depends_on_packet else 'flows'} leave by {path.egress_text} ({path.reason})",
            evidence=[packets],
        )
        return
    expect.only_by(uplink, packets, resolved.egress_interfaces, who=who)


@check(
    "EGRESS-02",
    "The agent's packets carry the right source: the uplink's address when NATed, its own address and MAC when bridged",
    guide="NAT, Bridge",
    needs="capture",
)
def test_agent_packets_carry_the_right_source(
    traffic: TrafficTests, resolved: ResolvedIntent, protocol: TransportProtocol, expect: Expect
) -> None:
    packets = traffic.agent(protocol)
    left = left_by(packets, resolved.egress_interfaces)
    if not left:
        expect.not_run("no probe left by any interface (EGRESS-01): they have no source to check")
    seen = [sighting for interface in left for sighting in departures(packets, interface)]
    if resolved.bridged:
        expected = f"the agent's own address {resolved.agent_address} and MAC {resolved.agent_mac}"
        wrong = {
            f"{sighting.source} from {sighting.source_mac} on {sighting.interface}"
            for sighting in seen
            if not resolved.is_agents_own(sighting)
        }
        right = {f"{sighting.source} from {sighting.source_mac}" for sighting in seen}
    else:
        addresses = (resolved.uplink_address(interface) or "none" for interface in left)
        expected = f"the uplink's address: {', '.join(addresses)}"
        wrong = {
            f"{sighting.source} on {sighting.path_interface}"
            for sighting in seen
            if sighting.source not in resolved.uplink_addresses(sighting.path_interface)
        }
        right = {sighting.source for sighting in seen}
    own = {sighting.source for sighting in seen} == {resolved.agent_source}
    # Where the network upstream routes the agent's subnet, its own address is answered.
    record = expect.advises if own and packets.answered and not resolved.bridged else expect.holds
    record(
        not wrong,
        expected=expected,
        observed="; ".join(sorted(wrong)) or ", ".join(sorted(right)),
        evidence=[packets, *traffic.far_end(protocol)],
    )


@check("EGRESS-03", "Answers reach the agent", guide="NAT", needs="capture")
def test_answers_reach_the_agent(
    traffic: TrafficTests, resolved: ResolvedIntent, protocol: TransportProtocol, expect: Expect
) -> None:
    packets = traffic.agent(protocol)
    left = left_by(packets, resolved.egress_interfaces)
    if not left:
        expect.not_run("no probe left by any interface (EGRESS-01): so no answer is possible")
    allowed = resolved.intent.probe.loss_allowed
    expected = f"{packets.sent} of {packets.sent} answers reach the agent (loss allowed: {allowed})"
    on_wire = sorted({number for interface in left for number in answers_seen(packets, interface)})
    observed = f"{packets.answered} of {packets.sent} reached the agent, {len(on_wire)} were seen on {', '.join(left)}"
    figures = answers_text(packets)
    if doubt := unknown_answer_route(resolved, protocol):
        figures = [*figures, f"judged by packets alone: {doubt}"]
    observed = "; ".join([observed, *figures])
    if packets.answered < packets.sent and not on_wire and not expect.has_cause():
        expect.inconclusive(
            f"{observed}: the probe target {resolved.target} may not answer; name a host that does (probe.target)",
            expected=expected,
            evidence=[packets],
        )
    astray = answers_astray(packets, resolved.egress_interfaces)
    if astray and loss_verdict(packets, share(allowed)) is LossVerdict.ALLOWED:
        by = ", ".join(f"{len(probes)} by {name}" for (_, name), probes in astray.items())
        ways = " or ".join(dict.fromkeys(way for way, _ in astray))
        expect.advises(
            False,
            expected=f"{expected}, by {' or '.join(left)}",
            observed=f"the probes left by {ways}, and their answers came in: {by}",
            evidence=[packets],
        )
        return
    arrive = expect.loss_allowed(packets, allowed, expected=expected, observed=observed)
    expect.holds(arrive and not packets.refused, expected=expected, observed=observed, evidence=[packets])


@check(
    "EGRESS-04",
    "The host's own packets still leave by the default exit",
    guide="NAT, host with multiple physical interfaces",
    needs="capture",
    of_host=True,
)
def test_the_hosts_own_packets_keep_the_default_exit(
    traffic: TrafficTests, resolved: ResolvedIntent, protocol: TransportProtocol, expect: Expect
) -> None:
    if resolved.default_exit is None:
        expect.not_run("the host has no default exit (HOST-06); name it in host.default_exit")
    expect.only_by(resolved.default_exit, traffic.host(protocol), resolved.egress_interfaces, who="the host")


@check("EGRESS-05", "The agent's DNS queries leave by the intended uplink", guide="NAT, steps 3-5", needs="capture")
def test_dns_queries_leave_by_the_intended_uplink(
    traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect
) -> None:
    if not traffic.resolvers:
        expect.not_applicable("the agent's resolv.conf names no resolver")
    interfaces, has_ipv6 = resolved.egress_interfaces, resolved.agent_address6 is not None
    left = {resolver: left_by(packets, interfaces) for resolver, packets in traffic.dns.items()}
    # A resolver on this host answers without a query that leaves; an agent without IPv6 cannot query an IPv6 resolver.
    judged = {
        resolver: packets
        for resolver, packets in traffic.dns.items()
        if left[resolver] or not (packets.answered or (":" in resolver and packets.refused and not has_ipv6))
    }
    if not judged:
        expect.not_applicable(f"{_resolver_texts(traffic, interfaces)}: no query leaves")
    if not any(left.values()) and not left_by(traffic.agent(resolved.intent.probe.protocols[0]), interfaces):
        expect.not_run("none of the agent's packets leaves (EGRESS-01)")
    evidence = list(traffic.dns.values())
    foreign = {
        resolver: sorted({query.source for query in departures(packets) if not resolved.is_agents_own(query)})
        for resolver, packets in judged.items()
        if resolved.bridged and ":" not in resolver and list(left[resolver]) == [resolved.uplink]
    }
    elsewhere = [resolver for resolver in judged if set(left[resolver]) - {resolved.uplink}]
    expected = f"all queries to {', '.join(judged)} leave by {resolved.uplink}, none by another interface"
    observed = _resolver_texts(traffic, interfaces)
    if any(foreign.values()) and not elsewhere:
        others = departures(traffic.agent(resolved.intent.probe.protocols[0]), resolved.uplink)
        # EGRESS-02 reports a wrong source of all packets of the agent.
        expect.advises(
            not all(map(resolved.is_agents_own, others)),
            expected=f"the agent's queries leave by {resolved.uplink} with its own address {resolved.agent_address}",
            observed="; ".join(
                f"{resolver} forwards them from this host: they leave by {resolved.uplink} as {', '.join(sources)}"
                for resolver, sources in foreign.items()
                if sources
            ),
            evidence=evidence,
        )
        return
    if not elsewhere:
        for packets in evidence:
            expect.proven_absent(packets, [name for name in interfaces if name != resolved.uplink], expected=expected)
    missing = [
        resolver
        for resolver, packets in judged.items()
        if packets.refused or len(left[resolver].get(resolved.uplink, ())) < packets.sent
    ]
    expect.holds(not elsewhere and not missing, expected=expected, observed=observed, evidence=evidence)


def _resolver_texts(traffic: TrafficTests, interfaces: Sequence[str]) -> str:
    """Return where the queries to each resolver left."""
    return "; ".join(
        f"{resolver}: {_queries_text(packets, left_by(packets, interfaces))}"
        for resolver, packets in traffic.dns.items()
    )


def _queries_text(packets: PacketsEvidence, left: Mapping[str, set[int]]) -> str:
    if not left and packets.refused:
        return f"refused by the agent's own kernel ({', '.join(sorted(set(packets.refused)))})"
    if not left and packets.answered:
        return "answers on this host"
    lost = f" ({loss_text(packets.loss)})" if packets.loss is not None and packets.answered else ""
    return departures_text(left, packets.sent) + lost


@check(
    "EGRESS-06",
    "Full-size packets of the agent get through: no MTU trap between bridge and uplink",
    guide="NAT",
    needs="capture",
)
def test_full_size_packets_get_through(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    small = traffic.agent("icmp" if "icmp" in resolved.intent.probe.protocols else resolved.intent.probe.protocols[0])
    if not small.answered:
        expect.not_run("small packets are not answered either (EGRESS-03)")
    packets = traffic.full_size()
    errors = [sighting.note for sighting in errors_seen(packets) if sighting.note]
    if resolved.bridged and packets.refused:
        expect.advises(
            False,
            expected="packets as large as the parent carries leave the agent",
            observed=f"refused by the agent's own kernel: {', '.join(sorted(set(packets.refused)))} ({packets.title})",
            evidence=[packets],
        )
        return
    expect.holds(
        packets.answered > 0,
        expected="packets as large as the agent's interface allows are answered, or a router reports the path MTU",
        observed="; ".join([f"{packets.answered} of {packets.sent} answered ({packets.title})", *answers_text(packets)])
        + (f"; reported: {errors[0]}" if errors else ""),
        evidence=[packets],
    )


@check(
    "EGRESS-07",
    "The agent's IPv6 packets leave by the intended uplink or not at all",
    guide="NAT, steps 3-5",
    needs="capture",
)
def test_ipv6_packets_leave_by_no_other_uplink(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    if resolved.agent_address6 is None:
        expect.not_applicable("the agent has no global IPv6 address")
    packets = traffic.ipv6()
    left = left_by(packets, resolved.egress_interfaces)
    others = [interface for interface in resolved.egress_interfaces if interface != resolved.uplink]
    expected = f"IPv6 leaves by {resolved.uplink} or not at all"
    escaped = any(interface in left for interface in others)
    if not escaped:
        expect.proven_absent(packets, others, expected=expected)
    expect.holds(
        not escaped,
        expected=expected,
        observed=departures_text(left, packets.sent),
        evidence=[packets],
    )


WITNESSED_CLASSES = 50
"""At most so many traffic classes get a probe of their own."""
PATHS_SHOWN = 10


@check(
    "EGRESS-08",
    "Every class of the agent's traffic leaves by the intended uplink, or by the one that the intent allows for it",
    guide="NAT, steps 3-5",
    needs="capture",
)
def test_every_class_of_traffic_leaves_as_intended(
    traffic: TrafficTests,
    traffic_classes: ClassPartition,
    resolved: ResolvedIntent,
    read_counters: Callable[[], PacketFilter | None],
    expect: Expect,
) -> None:
    astray = traffic_classes.astray()
    expected = f"each of {len(traffic_classes.classes)} classes of traffic leaves by {resolved.uplink}"
    if not astray and (unknown := traffic_classes.unknown):
        reasons = sorted({traffic_class.path.reason for traffic_class in unknown})
        expect.inconclusive(f"{len(unknown)} classes cannot be evaluated: {'; '.join(reasons)}", expected=expected)
    left_out = f"; {traffic_classes.left_out}" if traffic_classes.left_out else ""
    count = Counter(traffic_class.verdict for traffic_class in traffic_classes.classes)
    as_intended = count[ClassVerdict.INTENDED] + count[ClassVerdict.ALLOWED]
    if not astray and not as_intended:
        expect.not_run("no class of the agent's packets leaves this host (EGRESS-01)")
    observed = f"{as_intended} do, {count[ClassVerdict.LOCAL]} stay on local networks"
    blocked = [
        traffic_class for traffic_class in traffic_classes.classes if traffic_class.verdict is ClassVerdict.BLOCKED
    ]
    if blocked:
        observed += f", and this host drops {classes_text(blocked, CLASSES_NAMED)} ({blocked[0].path.reason})"
    witnesses = traffic.class_witnesses(astray[:WITNESSED_CLASSES])
    record = expect.holds if traffic_classes.target_is_astray or resolved.intent.egress.all_traffic else expect.advises
    probes = [probe_traffic(resolved, protocol) for protocol in resolved.intent.probe.protocols]
    probes += [traffic_class.traffic for traffic_class in astray[:WITNESSED_CLASSES]]
    for protocol in resolved.intent.probe.protocols:
        traffic.agent(protocol)
    covered = coverage(traffic_classes, probes, read_counters())
    met = f"; probes meet {covered.covered} of {covered.of} rules and routes that decide on the way"
    if covered.unmoved:
        met += f", but the counter of {' and of '.join(map(repr, covered.unmoved))} did not move"
    record(
        not astray,
        expected=expected,
        observed=(traffic_classes.astray_text or observed) + left_out + met,
        evidence=[*(traffic_class.evidence for traffic_class in astray[:PATHS_SHOWN]), *witnesses, covered],
    )


@check(
    "EGRESS-09",
    "The agent's packets go to the MAC address of the intended gateway",
    guide="NAT, steps 3-5",
    needs="capture",
)
def test_packets_go_to_the_intended_gateway(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    uplink = resolved.uplink
    probes = [traffic.agent(protocol) for protocol in resolved.intent.probe.protocols]
    departed = [sighting for packets in probes for sighting in departures(packets, uplink) if sighting.destination_mac]
    if resolved.is_point_to_point(uplink):
        expect.not_applicable(f"{uplink} is a point-to-point link: its packets have no MAC addresses")
    if not departed:
        expect.not_run(f"no probe left by {uplink} (EGRESS-01)")
    if uplink not in resolved.arp_gateways:
        expect.not_run(f"the site file names no gateway of {uplink} (uplinks.{uplink}.gateway)")
    if resolved.on_link(resolved.target, uplink):
        expect.not_applicable(
            f"the probe target {resolved.target} is in the network of {uplink}, so no gateway is used"
        )
    gateways = traffic.gateways.answers.get(uplink, [])
    if not gateways:
        expect.not_run(f"the MAC address of {uplink}'s gateway is not known: it does not answer ARP (HOST-03)")
    others = sorted({sighting.destination_mac for sighting in departed} - set(gateways))
    expect.holds(
        not others,
        expected=f"{len(departed)} of {len(departed)} probes go to {resolved.lan_gateway} ({', '.join(gateways)})",
        observed=f"they go to {', '.join(others) or ', '.join(gateways)}",
        evidence=probes,
    )


@check(
    "EGRESS-10",
    "The agent's packets from each source that the intent names leave by the uplink of that source, and by no other, "
    "and their answers come back by it",
    guide="NAT, host with multiple physical interfaces",
    needs="capture",
)
def test_each_source_leaves_by_its_uplink(
    traffic: TrafficTests,
    resolved: ResolvedIntent,
    agent_source: Source | None,
    protocol: TransportProtocol | None,
    expect: Expect,
) -> None:
    if agent_source is None or protocol is None:
        expect.not_applicable("the intent names no source of the agent ([[agent.source]])")
    uplink, packets = source_uplink(resolved, agent_source), traffic.from_source(agent_source, protocol)
    path = source_path(resolved, agent_source, protocol)
    who, answers = f"the agent from {agent_source.name}", source_answers(resolved, uplink, packets)
    left = left_by(packets, resolved.egress_interfaces)
    if answers is None or path.depends_on_flow or set(left) != {uplink}:
        _leaves_by(uplink, packets, path, who, resolved, expect)
        return
    expected = f"every probe of {who} leaves by {uplink}, and its answer comes back by it"
    if not answers.seen and not expect.has_cause():
        expect.inconclusive(
            f"{departures_text(left, packets.sent)}, and {answers.text}: the probe target {resolved.target} may not "
            "answer it",
            expected=expected,
            evidence=[packets],
        )
    expect.holds(
        False,
        expected=expected,
        observed=f"{departures_text(left, packets.sent)}, and {answers.text}",
        evidence=[packets],
    )
