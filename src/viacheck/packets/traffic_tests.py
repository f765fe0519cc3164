"""Traffic tests: probes from the agent and from the host, captured on every interface at once.

Each test runs once per target, however many checks read its result. The packets of one exchange show where they left,
with which source address, and whether answers came back. Every result is a plain value.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from viacheck.analysis.classes import TrafficClass
from viacheck.analysis.dhcp_offers import addresses_to_request, colliding
from viacheck.analysis.local_networks import local_addresses
from viacheck.analysis.macvlan_facts import leased_by_engine
from viacheck.analysis.packet_filter.icmp import ECHO_REQUEST
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS
from viacheck.host.namespace import Namespace
from viacheck.model.check_evidence import FarEndEvidence, FarEndRecord, PacketsEvidence
from viacheck.model.intent import Probe, Source, TransportProtocol
from viacheck.model.intent_values import seconds
from viacheck.model.measurements import (
    AddressFacts,
    AddressHolder,
    DiscoveryResult,
    HostReadings,
    SegmentFacts,
    TrafficMeasurements,
)
from viacheck.packets.address_conflict import AddressConflictTest, Side
from viacheck.packets.arp import InterfaceNotUp
from viacheck.packets.dhcp_discover import DHCPDiscovery
from viacheck.packets.evidence import numbers_of, packets_evidence
from viacheck.packets.gateway_tests import GatewayTests
from viacheck.packets.observation import Observation
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Exchange, Prober
from viacheck.packets.segment_tests import TRIES, SegmentTests
from viacheck.packets.tokens import ProbeProtocol, TokenSpace
from viacheck.packets.watched_exchanges import FAR_END_INTERFACE, ExchangeWatches, WatchedExchange, WatchedSubject

DEFAULT_TARGET6 = "2001:db8:ffff::1"
GATEWAY_PINGS = 4
"""The guide's own proof uses the same number."""
SMALLEST_MTU = 68
"""RFC 791: every link carries this many bytes. A router that reports less is not believed."""


class AgentRestarted(Exception):
    """The agent's container was restarted since its namespace was opened: what was sent there shows nothing."""


class TrafficSubject(WatchedSubject, Protocol):
    """The part of a target that traffic tests need. Each test reads ``agent`` again: a restart replaces it."""

    @property
    def agent(self) -> Namespace | None:
        """The agent's network namespace; None while it cannot be opened."""

    @property
    def host_readings(self) -> HostReadings:
        """What is asked once for all agents of the host."""

    @property
    def resolvers(self) -> tuple[str, ...] | None:
        """The resolvers in the agent's resolv.conf; None when the file cannot be read."""

    def agent_was_restarted(self) -> bool:
        """Return whether the agent's container runs in another namespace by now, or not at all."""


class TrafficTests:
    """The traffic tests of one target."""

    def __init__(self, subject: TrafficSubject, captures: Path) -> None:
        """Open nothing yet. ``captures`` is the folder for pcapng files."""
        self._subject = subject
        self._captures = captures
        self._tokens = TokenSpace()
        self._packets: dict[str, PacketsEvidence] = {}
        self._by_source: dict[tuple[str, str], PacketsEvidence] = {}
        self._far_end: dict[str, list[FarEndRecord]] = {}
        self._reverse_path_drops = (0, 0)
        self._closers: list[Callable[[], None]] = []
        self._dns_follows = False
        self._early_dns: Future[WatchedExchange] | None = None

    @property
    def measurements(self) -> TrafficMeasurements:
        """Every measurement that was made by now. Reading this sends nothing."""
        made = vars(self)
        discovery: DiscoveryResult | None = made.get("dhcp_discovery")
        return TrafficMeasurements(
            packets=dict(self._packets),
            by_source=dict(self._by_source),
            silent_gateways=self.gateways.silent,
            routers_in_use=dict(self.gateways.routers_found),
            gateway_macs={name: tuple(macs) for name, macs in self.gateways.heard.items()},
            exit_macs=self.gateways.exit_macs_heard,
            reverse_path_drops=self._reverse_path_drops,
            segment=made.get("segment"),
            address=made.get("address"),
            offers=discovery.offers if discovery is not None else (),
        )

    def measure_for_diagnosis(self) -> TrafficMeasurements:
        """Ask the gateways by ARP and test a bridged agent's segment, as a cause depends on both.

        Return every measurement that was made by now.
        """
        _ = self.gateways.routers_in_use, self.gateways.exit_macs
        if self._subject.resolved.bridged:
            _ = self.segment, self.address
        return self.measurements

    @cached_property
    def _probe(self) -> Probe:
        return self._subject.resolved.intent.probe

    @cached_property
    def _timeout(self) -> float:
        return seconds(self._probe.timeout)

    @cached_property
    def _watches(self) -> ExchangeWatches:
        return self._open_watches()

    def _open_watches(self) -> ExchangeWatches:
        watches = ExchangeWatches(self._subject, self._captures, self._tokens)
        self._closers.append(watches.close)
        return watches

    @property
    def _agent(self) -> Prober:
        agent = self._subject.agent
        assert agent is not None, "checks that need the agent do not run while its namespace cannot be opened"
        return Prober(agent, self._tokens)

    @cached_property
    def _host(self) -> Prober:
        return Prober(self._subject.host, self._tokens)

    def agent(self, protocol: TransportProtocol) -> PacketsEvidence:
        """Send the agent's probes to the probe target; return those of one protocol.

        The probes of all protocols leave, and are waited for, together.
        """
        if protocol not in self._packets:
            before = self._read_reverse_path_drops()
            self._exchange("", self._agent, self._requests_to_target())
            self._reverse_path_drops = (before, self._read_reverse_path_drops())
            # Not before: an answer of a resolver that reverse-path filtering drops would be counted above.
            if self._dns_follows and self.resolvers:
                self._begin_dns()
        return self._packets[protocol]

    def from_source(self, source: Source, protocol: TransportProtocol) -> PacketsEvidence:
        """Send the agent's probes, bound to one of its sources, to the probe target; return those of one protocol."""
        if (source.name, protocol) not in self._by_source:
            address = str(source.address) if source.address is not None else None
            requests = [
                replace(request, source=address, device=source.interface) for request in self._requests_to_target()
            ]
            name = f"source-{source.name}"
            exchanges, observation, capture = self._observe(name, requests, self._agent, measure_loss=True)
            for exchange in exchanges:
                title = f"{exchange.request.protocol} from {source.name}"
                evidence = self._evidence([exchange], observation, title, capture)
                self._by_source[source.name, exchange.request.protocol] = evidence
        return self._by_source[source.name, protocol]

    def host(self, protocol: TransportProtocol) -> PacketsEvidence:
        """Send the host's own probes to the probe target; return those of one protocol."""
        if f"host {protocol}" not in self._packets:
            self._exchange("host ", self._host, self._requests_to_target())
        return self._packets[f"host {protocol}"]

    def _requests_to_target(self) -> list[ProbeRequest]:
        return [
            ProbeRequest(
                protocol=protocol, destination=str(self._probe.target), count=self._probe.count,
                port=None if protocol == "icmp" else self._probe.port,
            )
            for protocol in self._probe.protocols
        ]  # fmt: skip

    def expect_dns(self) -> None:
        """Send the DNS queries as soon as the agent's probes are over, beside what else is tested.

        A silent resolver takes the whole timeout. Only a live host may have one, which is worth captures of their own.
        """
        self._dns_follows = True

    def begin_probes(self) -> None:
        """Send the agent's probes, and what follows them, before a check asks for them.

        An error is left to that check, for which they are sent again.
        """
        if self._subject.agent is not None:
            with contextlib.suppress(Exception):
                self.agent(self._probe.protocols[0])

    def _begin_dns(self) -> None:
        queried: Future[WatchedExchange] = Future()
        self._early_dns = queried

        def query() -> None:
            try:
                queried.set_result(self._query(self._open_watches()))
            except BaseException as error:
                queried.set_exception(error)

        # A run that is interrupted does not wait for a resolver.
        threading.Thread(target=query, name="dns", daemon=True).start()

    def _query(self, watches: ExchangeWatches) -> WatchedExchange:
        requests = [
            ProbeRequest(protocol="dns", destination=self._with_scope_index(resolver), count=self._probe.count)
            for resolver in self.resolvers
        ]
        return watches.observe("dns", requests, self._agent, self._timeout, measure_loss=True)

    @cached_property
    def dns(self) -> Mapping[str, PacketsEvidence]:
        """The agent's queries to every resolver of its resolv.conf, sent together, by resolver."""
        watched = self._early_dns.result() if self._early_dns is not None else self._query(self._watches)
        exchanges, observation, capture = self._kept(watched)
        self._packets["dns"] = self._evidence(exchanges, observation, "dns", capture)
        return {
            resolver: self._evidence([exchange], observation, f"dns to {resolver}", capture)
            for resolver, exchange in zip(self.resolvers, exchanges, strict=True)
        }

    def _with_scope_index(self, address: str) -> str:
        """Return an address whose scope, if it has one, is the index of the agent's interface and not its name."""
        plain, _, scope = address.partition("%")
        agent = self._subject.resolved.snapshot.agent
        link = agent.link(scope) if agent is not None and scope else None
        return f"{plain}%{link.index}" if link is not None else plain

    @cached_property
    def resolvers(self) -> tuple[str, ...]:
        """The resolvers that the agent queries."""
        return self._subject.resolvers or ()

    def full_size(self) -> PacketsEvidence:
        """Send probes of the agent as large as its interface allows; repeat at the MTU that a router reports.

        A bridged agent must reach the size that its parent carries. The title states the sizes that were tried: the
        outcome of path MTU discovery (RFC 1191) decides.
        """
        if "full-size" not in self._packets:
            resolved = self._subject.resolved
            link, parent = resolved.agent_link, resolved.parent_link
            size = link.mtu if link is not None else 1500
            if link is not None and parent is not None:
                size = max(size, parent.mtu)
            packets = self._agent_test("full-size", f"{size} bytes", self._sized(size))
            reported = [
                sighting.mtu or 0
                for sighting in packets.sightings
                if sighting.interface == resolved.bridge and (sighting.mtu or 0) >= SMALLEST_MTU
            ]
            if not packets.answered and reported:
                title = f"{size} bytes refused, then {reported[0]}, the MTU that the router reports"
                self._agent_test("full-size", title, self._sized(reported[0]))
        return self._packets["full-size"]

    def class_witnesses(self, classes: Sequence[TrafficClass]) -> list[PacketsEvidence]:
        """Send one probe of each traffic class; return the evidence of each, in the order of the classes.

        Only classes of pings, UDP and TCP can be sent; the others have no evidence.
        """
        names: dict[int | None, TransportProtocol] = {number: name for name, number in PROTOCOL_NUMBERS.items()}
        sendable = [
            traffic_class
            for traffic_class in classes
            if traffic_class.selector.protocol in names and traffic_class.traffic.message_type in (None, ECHO_REQUEST)
        ]
        requests = [
            ProbeRequest(
                protocol=names[traffic_class.selector.protocol], destination=traffic_class.traffic.destination, count=1,
                port=traffic_class.traffic.dport if names[traffic_class.selector.protocol] != "icmp" else None,
            )
            for traffic_class in sendable
        ]  # fmt: skip
        if not requests:
            return []
        exchanges, observation, capture = self._observe("classes", requests, self._agent)
        return [
            self._evidence([exchange], observation, traffic_class.text, capture)
            for traffic_class, exchange in zip(sendable, exchanges, strict=True)
        ]

    def gateway_pings(self) -> PacketsEvidence:
        """Send four pings from the agent to its gateway, as the guide's own proof does."""
        if "gateway" not in self._packets:
            gateway = self._subject.resolved.lan_gateway
            request = ProbeRequest(protocol="icmp", destination=gateway, count=GATEWAY_PINGS)
            self._agent_test("gateway", f"pings to the gateway {gateway}", request)
        return self._packets["gateway"]

    @cached_property
    def segment(self) -> SegmentFacts:
        """Test whether a second MAC address gets through on the parent's segment; begin the test for a conflict."""
        agent: Prober | None = None
        if self._subject.agent is not None:
            agent = self._agent
            # An answer to an ARP probe may complete the agent's neighbour table: the agent's own packets go first.
            self.agent(self._probe.protocols[0])
            self.gateway_pings()
            if self.resolvers:
                _ = self.dns
        facts = SegmentTests(self._subject.resolved, self._host, agent, self._timeout).measure()
        # A machine with the agent's MAC address diverts the agent's frames when it answers: its test comes last.
        _ = self._conflict_test
        return facts

    @cached_property
    def _conflict_test(self) -> AddressConflictTest | None:
        resolved = self._subject.resolved
        address, mac, link = resolved.bridged_address, resolved.agent_mac, resolved.bridged_link
        if address is None or mac is None or link is None or resolved.parent is None:
            return None
        sides: dict[AddressHolder, Side] = {"parent": Side(self._subject.host, resolved.parent)}
        if self._subject.agent is not None:
            sides["agent"] = Side(self._subject.agent, link.name)
        # A switch with a reflective relay returns the parent's broadcasts to an interface in VEPA mode (IEEE 802.1Qbg).
        apart = link.kind in ("macvlan", "macvtap") and link.mode != "vepa"
        test = AddressConflictTest(address.address, mac, sides, agent_is_apart=apart)
        self._closers.append(test.close)
        return test

    @cached_property
    def address(self) -> AddressFacts | None:
        """Who else holds a bridged agent's address; None: the agent has none, or neither side is up."""
        _ = self.segment
        return self._conflict_test.result() if self._conflict_test is not None else None

    def begin_dhcp_discovery(self) -> None:
        """Send the DHCPDISCOVER messages, if the agent has a pool; their answers may take seconds."""
        _ = self._dhcp_discovery

    @cached_property
    def _dhcp_discovery(self) -> DHCPDiscovery | None:
        resolved = self._subject.resolved
        pool, parent = resolved.agent_pool, resolved.parent
        if pool is None or parent is None or leased_by_engine(resolved):
            return None
        taken = [resolved.lan_gateway, *resolved.uplink_addresses(parent)]
        if resolved.agent_address is not None:
            taken.append(resolved.agent_address)
        try:
            discovery = DHCPDiscovery(
                self._subject.host, parent, addresses_to_request(pool, taken), seconds=seconds(self._probe.dhcp_wait),
                enough=lambda offer: bool(colliding([offer], pool)),
            )  # fmt: skip
        except InterfaceNotUp:
            return None
        self._closers.append(discovery.close)
        return discovery

    @cached_property
    def dhcp_discovery(self) -> DiscoveryResult | None:
        """What DHCP servers on the parent's segment offer, asked for Docker's addresses; None: the parent is not up."""
        return self._dhcp_discovery.result() if self._dhcp_discovery is not None else None

    def _sized(self, octets: int) -> ProbeRequest:
        protocol: ProbeProtocol = "icmp" if "icmp" in self._probe.protocols else "udp"
        # One lost probe must not look like a path that is too narrow.
        return ProbeRequest(
            protocol=protocol, destination=str(self._probe.target), size=octets, count=self._probe.count
        )

    def ipv6(self) -> PacketsEvidence:
        """Send the agent's IPv6 probes."""
        if "ipv6" not in self._packets:
            destination = str(self._probe.target6 or DEFAULT_TARGET6)
            request = ProbeRequest(protocol="icmp", destination=destination, count=self._probe.count)
            self._agent_test("ipv6", "IPv6", request)
        return self._packets["ipv6"]

    def _agent_test(self, name: str, title: str, request: ProbeRequest) -> PacketsEvidence:
        exchanges, observation, capture = self._observe(name, [request], self._agent, measure_loss=True)
        self._packets[name] = self._evidence(exchanges, observation, title, capture)
        return self._packets[name]

    def local_networks(self) -> Mapping[str, tuple[str, bool]]:
        """Ping an address of each network that is local to the host; return address and answer by network.

        The probes to the target go first: whether they leave shows why a ping has no answer.
        """
        self.agent(self._probe.protocols[0])
        addresses = local_addresses(self._subject.resolved)
        requests = [ProbeRequest(protocol="icmp", destination=address, count=TRIES) for address in addresses.values()]
        exchanges = self._agent.send_many(requests, self._timeout)
        self._refuse_restarted(exchanges)
        answers = [exchange.answered > 0 for exchange in exchanges]
        return {name: (addresses[name], answered) for name, answered in zip(addresses, answers, strict=True)}

    @cached_property
    def gateways(self) -> GatewayTests:
        """The questions to gateways by ARP. None is asked until its answer is read."""
        return GatewayTests(self._subject.resolved, self._subject.host_readings, self._host, self._timeout)

    def far_end(self, protocol: TransportProtocol) -> Sequence[FarEndEvidence]:
        """What the gateways saw of the agent's probes; nothing on a live host."""
        records = [record for record in self._far_end.get(protocol, []) if record.protocol == protocol]
        return [FarEndEvidence(records=records)] if records else []

    def _exchange(self, prefix: str, prober: Prober, requests: Sequence[ProbeRequest]) -> None:
        """Send and watch; keep the evidence of each protocol under the prefix and its name."""
        name = (prefix + "-".join(request.protocol for request in requests)).replace(" ", "-")
        exchanges, observation, capture = self._observe(name, requests, prober, measure_loss=True)
        for exchange in exchanges:
            protocol = exchange.request.protocol
            evidence = self._evidence([exchange], observation, protocol, capture)
            self._packets[prefix + protocol] = evidence

    def _evidence(
        self, exchanges: Sequence[Exchange], observation: Observation, title: str, capture: str
    ) -> PacketsEvidence:
        """Return where the probes were seen, as evidence in which a frame on several interfaces counts once."""
        layers = self._subject.resolved.layers
        return packets_evidence(exchanges, observation, title=title, capture=capture, layers=layers)

    def _observe(
        self, name: str, requests: Sequence[ProbeRequest], prober: Prober, *, measure_loss: bool = False
    ) -> tuple[list[Exchange], Observation, str]:
        """Send and watch; keep what the far ends saw, and return the rest."""
        watched = self._watches.observe(name, requests, prober, self._timeout, measure_loss=measure_loss)
        return self._kept(watched, of_agent=prober is not vars(self).get("_host"))

    def _kept(self, watched: WatchedExchange, *, of_agent: bool = True) -> tuple[list[Exchange], Observation, str]:
        if of_agent:
            self._refuse_restarted(watched.exchanges)
        self._record_far_end(watched.exchanges, watched.far)
        return watched.exchanges, watched.observation, watched.capture

    def _refuse_restarted(self, exchanges: Sequence[Exchange]) -> None:
        """Raise AgentRestarted where packets are missing because their namespace has ended."""
        complete = all(exchange.answered >= exchange.sent for exchange in exchanges)
        if not complete and self._subject.agent_was_restarted():
            name = self._subject.resolved.intent.agent.name
            raise AgentRestarted(f"the container {name} was restarted or has stopped since the run began; run it again")

    def _record_far_end(self, exchanges: Sequence[Exchange], observations: Mapping[str, Observation]) -> None:
        for exchange in exchanges:
            numbers = numbers_of([exchange])
            self._far_end.setdefault(exchange.request.protocol, []).extend(
                FarEndRecord(
                    gateway=f"gateway by {gateway}", protocol=frame.protocol, source=frame.source,
                    probe=numbers[frame.number],
                )
                for gateway, observation in observations.items()
                for frame in observation.seen(FAR_END_INTERFACE, "in")
                if frame.number in numbers
            )  # fmt: skip

    def _read_reverse_path_drops(self) -> int:
        """Read TcpExt IPReversePathFilter of the host (proc_net_netstat)."""

        def read() -> int:
            with open("/proc/thread-self/net/netstat") as file:
                names, values = (line.split() for line in file if line.startswith("TcpExt:"))
            return int(values[names.index("IPReversePathFilter")])

        return self._subject.host.call(read)

    def close(self) -> None:
        """Close captures and sockets."""
        for close in self._closers:
            close()
