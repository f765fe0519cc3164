"""Journeys: probes sent by the agent or the host, watched on every interface at once, as plain packet evidence.

Each kind of journey is made once for a target, whatever number of checks look at it: the packets of one exchange answer
where they left, with which source, and whether answers came back.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from viacheck.analysis.dhcp_offers import to_ask_for
from viacheck.model.intent import Protocol, seconds
from viacheck.model.measurements import Offer, SegmentFacts
from viacheck.model.result import FarEndEvidence, FarEndRecord, PacketsEvidence
from viacheck.packets.arp import NO_ADDRESS, InterfaceNotUp
from viacheck.packets.capture import Observation, Watch
from viacheck.packets.dhcp_discover import discover
from viacheck.packets.evidence import numbers_of, packets_evidence
from viacheck.packets.probes import Exchange, Prober, ProbeRequest
from viacheck.packets.segment_tests import Segment
from viacheck.packets.tokens import ProbeProtocol, TokenSpace
from viacheck.targets.base import Target

DEFAULT_TARGET6 = "2001:db8:ffff::1"
ARP_TIMEOUT = 1.0
"""Seconds that a gateway may take to answer ARP on a live network."""
FAR_END_INTERFACE = "lan0"
GATEWAY_PINGS = 4
"""As many as in the guide's own proof."""


class TrafficTests:
    """The journeys of one target's packets."""

    def __init__(self, target: Target, captures: Path) -> None:
        """Nothing is opened yet; ``captures`` is the folder for pcapng files."""
        self.target = target
        self._captures = captures
        self._intent = target.intent.probe
        self._timeout = seconds(self._intent.timeout)
        self._tokens = TokenSpace()
        self._made: dict[str, PacketsEvidence] = {}
        self._far_end: dict[str, list[FarEndRecord]] = {}
        self._closers: list[Callable[[], None]] = []
        target.measure = self._measure_for_diagnosis

    def _measure_for_diagnosis(self) -> None:
        """A failure is explained rightly only when it is known who answers, and whether a second MAC gets through."""
        assert self.gateways is not None
        if self.target.resolved.bridged:
            assert self.segment

    @cached_property
    def _watch(self) -> Watch:
        watch = Watch(self.target.host, self.target.resolved.watchable, self._tokens)
        self._closers.append(watch.close)
        return watch

    @cached_property
    def _far_watches(self) -> dict[str, Watch]:
        watches = {
            name: Watch(namespace, [FAR_END_INTERFACE], self._tokens)
            for name, namespace in self.target.gateways.items()
        }
        self._closers += [watch.close for watch in watches.values()]
        return watches

    @cached_property
    def _agent(self) -> Prober:
        assert self.target.agent is not None, "checks that need the agent are left out when it cannot be entered"
        return Prober(self.target.agent, self._tokens)

    @cached_property
    def _host(self) -> Prober:
        return Prober(self.target.host, self._tokens)

    def agent(self, protocol: Protocol) -> PacketsEvidence:
        """The agent's probes of one protocol to the probe target. All protocols are sent, and waited for, together."""
        if protocol not in self._made:
            before = self._reverse_path_drops()
            self._exchange("", self._agent, self._to_target())
            self.target.measurements.reverse_path_drops = (before, self._reverse_path_drops())
        return self._made[protocol]

    def host(self, protocol: Protocol) -> PacketsEvidence:
        """The host's own probes of one protocol to the probe target."""
        if f"host {protocol}" not in self._made:
            self._exchange("host ", self._host, self._to_target())
        return self._made[f"host {protocol}"]

    def _to_target(self) -> list[ProbeRequest]:
        return [
            ProbeRequest(
                protocol=protocol, destination=str(self._intent.target), count=self._intent.count,
                port=None if protocol == "icmp" else self._intent.port,
            )
            for protocol in self._intent.protocols
        ]  # fmt: skip

    def dns(self) -> PacketsEvidence:
        """The agent's queries to the resolvers of its resolv.conf."""
        if "dns" not in self._made:
            resolver = self.resolvers[0]
            self._exchange(
                "", self._agent, [ProbeRequest(protocol="dns", destination=resolver, count=self._intent.count)]
            )
        return self._made["dns"]

    def _query(self, resolver: str) -> ProbeRequest:
        return ProbeRequest(protocol="dns", destination=resolver, count=self._intent.count)

    @cached_property
    def resolvers(self) -> tuple[str, ...]:
        """The IPv4 resolvers that the agent asks."""
        return self.target.resolvers or ()

    def full_size(self) -> PacketsEvidence:
        """Probes of the agent as large as its interface allows; once more at the size that a router names.

        A bridged agent must get through what its parent carries. The title says which sizes were tried: path MTU
        discovery (RFC 1191) is judged by its outcome.
        """
        if "full-size" not in self._made:
            link, parent = self.target.resolved.agent_link, self.target.resolved.parent_link
            size = link.mtu if link is not None else 1500
            if link is not None and parent is not None:
                size = max(size, parent.mtu)
            packets = self._one("full-size", f"{size} bytes", self._sized(size))
            heard = " ".join(one.note for one in packets.sightings if one.interface == self.target.resolved.bridge)
            told = re.search(r"MTU (\d+)", heard)
            if not packets.answered and told:
                smaller = int(told.group(1))
                self._one("full-size", f"{size} bytes refused, then {smaller} as the router said", self._sized(smaller))
        return self._made["full-size"]

    def gateway_pings(self) -> PacketsEvidence:
        """Four pings of the agent to its gateway, as the guide's own proof has them."""
        if "gateway" not in self._made:
            gateway = self.target.resolved.lan_gateway
            request = ProbeRequest(protocol="icmp", destination=gateway, count=GATEWAY_PINGS)
            self._one("gateway", f"pings to the gateway {gateway}", request)
        return self._made["gateway"]

    @cached_property
    def segment(self) -> SegmentFacts:
        """Who holds the agent's address on its parent's segment, and whether a second MAC address gets through."""
        if self.target.agent is not None:
            # An answer to one of these questions may complete the agent's neighbour table: its own packets come first.
            self.agent(self._intent.protocols[0])
            self.gateway_pings()
            if self.resolvers:
                self.dns()
        agent = self._agent if self.target.agent is not None else None
        with ThreadPoolExecutor(1, thread_name_prefix="dhcp") as pool:
            # Nobody answers in a good network, so that both wait: together.
            pool.submit(lambda: self.offers)
            facts = Segment(self.target.resolved, self._host, agent, self._timeout).measure()
        self.target.measurements.segment = facts
        return facts

    @cached_property
    def offers(self) -> list[Offer] | None:
        """What DHCP servers on the parent's segment offer, asked for Docker's addresses; None: they cannot be asked."""
        resolved = self.target.resolved
        pool, parent = resolved.agent_pool, resolved.parent
        if pool is None or parent is None:
            return None
        taken = [resolved.lan_gateway, *resolved.uplink_addresses(parent)]
        if resolved.agent_address is not None:
            taken.append(resolved.agent_address)
        try:
            found = discover(self.target.host, parent, to_ask_for(pool, taken), timeout=self._timeout)
        except InterfaceNotUp:
            return None
        self.target.measurements.offers = tuple(found)
        return found

    def _sized(self, octets: int) -> ProbeRequest:
        protocol: ProbeProtocol = "icmp" if "icmp" in self._intent.protocols else "udp"
        return ProbeRequest(protocol=protocol, destination=str(self._intent.target), size=octets)

    def ipv6(self) -> PacketsEvidence:
        """The agent's IPv6 probes."""
        if "ipv6" not in self._made:
            destination = str(self._intent.target6 or DEFAULT_TARGET6)
            self._one("ipv6", "IPv6", ProbeRequest(protocol="icmp", destination=destination, count=self._intent.count))
        return self._made["ipv6"]

    def _one(self, name: str, title: str, request: ProbeRequest) -> PacketsEvidence:
        exchanges, observation, capture = self._observe(name, [request], self._agent)
        evidence = packets_evidence(exchanges, observation, title=title, capture=capture)
        self._made[name] = self.target.measurements.traffic[name] = evidence
        return evidence

    def local_networks(self) -> Mapping[str, tuple[str, bool]]:
        """By name, an address of each network that is local to the host, and whether it answered the agent."""
        resolved = self.target.resolved
        addresses = {name: str(uplink.gateway) for name, uplink in self.target.intent.uplinks.items()}
        if resolved.bridge is not None and (own := resolved.snapshot.host.addresses_of(resolved.bridge)):
            addresses = {resolved.bridge: own[0].address, **addresses}
        requests = [ProbeRequest(protocol="icmp", destination=address) for address in addresses.values()]
        answers = [exchange.answered == 1 for exchange in self._agent.send_many(requests, self._timeout)]
        return {name: (addresses[name], answered) for name, answered in zip(addresses, answers, strict=True)}

    @cached_property
    def gateways(self) -> Mapping[str, list[str]]:
        """By uplink, the MAC addresses that answered ARP for its gateway."""
        resolved = self.target.resolved
        found: dict[str, list[str]] = {}
        for name, uplink in self.target.intent.uplinks.items():
            sender = resolved.uplink_address(name) or NO_ADDRESS
            timeout = min(ARP_TIMEOUT, self._timeout)
            try:
                answers = self._host.arp_request(name, str(uplink.gateway), sender=sender, timeout=timeout)
            except InterfaceNotUp:
                answers = []
            found[name] = [answer.mac for answer in answers]
        self.target.measurements.silent_gateways = tuple(
            name
            for name, macs in found.items()
            if not macs and (link := resolved.snapshot.host.link(name)) is not None and link.carrier
        )
        return found

    def far_end(self, protocol: Protocol) -> Sequence[FarEndEvidence]:
        """What the gateways saw of the agent's probes; nothing on a live host."""
        records = [one for one in self._far_end.get(protocol, []) if one.protocol == protocol]
        return [FarEndEvidence(records=records)] if records else []

    def _exchange(self, prefix: str, prober: Prober, requests: Sequence[ProbeRequest]) -> None:
        """Send and watch; the evidence of each protocol is kept under the prefix and its name."""
        name = (prefix + "-".join(request.protocol for request in requests)).replace(" ", "-")
        exchanges, observation, capture = self._observe(name, requests, prober)
        for exchange in exchanges:
            protocol = exchange.request.protocol
            evidence = packets_evidence([exchange], observation, title=protocol, capture=capture)
            self._made[prefix + protocol] = evidence
            self.target.measurements.traffic[prefix + protocol] = evidence

    def _observe(
        self, name: str, requests: Sequence[ProbeRequest], prober: Prober
    ) -> tuple[list[Exchange], Observation, str]:
        """Send and watch, here and at the far end, and keep the frames in a file of their own."""
        with contextlib.ExitStack() as watching:
            far = {gateway: watching.enter_context(watch()) for gateway, watch in self._far_watches.items()}
            with self._watch() as here:
                exchanges = prober.send_many(requests, self._timeout)
        for exchange in exchanges:
            numbers = numbers_of([exchange])
            self._far_end.setdefault(exchange.request.protocol, []).extend(
                FarEndRecord(
                    gateway=f"gateway by {gateway}", protocol=frame.protocol, source=frame.source,
                    probe=numbers[frame.number],
                )
                for gateway, period in far.items()
                for frame in period.observation.seen(FAR_END_INTERFACE, "in")
                if frame.number in numbers
            )  # fmt: skip
        file = f"{re.sub(r'[^A-Za-z0-9.+-]+', '-', self.target.id)}-{name}.pcapng"
        here.observation.write_capture(str(self._captures / file), numbers_of(exchanges))
        return exchanges, here.observation, f"{self._captures.name}/{file}"

    def _reverse_path_drops(self) -> int:
        """TcpExt IPReversePathFilter of the host (proc_net_netstat)."""

        def read() -> int:
            with open(f"/proc/self/task/{threading.get_native_id()}/net/netstat") as file:
                names, values = (line.split() for line in file if line.startswith("TcpExt:"))
            return int(values[names.index("IPReversePathFilter")])

        return self.target.host.call(read)

    def close(self) -> None:
        """Close captures and sockets."""
        for close in self._closers:
            close()
