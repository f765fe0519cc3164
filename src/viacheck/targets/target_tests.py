"""The tests of one target that go beyond its snapshot, each made once, and the measurements that they add up to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from viacheck.analysis.answers import answers_come_in_by, lost_beyond_host, silent_beyond
from viacheck.analysis.classes import ClassPartition, class_partition
from viacheck.analysis.nat_facts import subnet_is_routed
from viacheck.diagnosis import Cause, diagnose
from viacheck.host.namespace import Namespace
from viacheck.host.packet_filter_reader import read_packet_filter
from viacheck.model.check import Check
from viacheck.model.filter_chains import PacketFilter
from viacheck.model.intent import SideEvent
from viacheck.model.intent_rules import BY_DRIVER
from viacheck.model.intent_values import seconds
from viacheck.model.measurements import (
    EventName,
    KernelDecision,
    Measurements,
    NotReplayed,
    ReplayResult,
    TrafficMeasurements,
)
from viacheck.targets.base import Target, UpstreamFindings

if TYPE_CHECKING:
    from viacheck.disruption.disruption_tests import DisruptionTests
    from viacheck.packets.agent_probes import AgentProbes, PacketWatch
    from viacheck.packets.tokens import TokenSpace
    from viacheck.packets.traffic_tests import TrafficTests


DHCP_CHECK, DNS_CHECK = "MACVLAN-04", "EGRESS-05"
"""The checks whose servers may take seconds to answer."""
PROBES_CHECK = "EGRESS-01"
"""The check of the agent's own probes, which go before its DNS queries."""
DEVICE_CHECK = "FLAP-10"
"""The check that asks for its events only where the intent names one of them."""
EVENTS: Mapping[str, Sequence[EventName]] = {
    "FLAP-01": ("link-flap",), "FLAP-02": ("carrier-loss",), "FLAP-03": ("ifupdown",),
    "FLAP-04": ("container-restart",), "FLAP-05": ("engine-restart",), "FLAP-07": ("dhcp-renew", "address-change"),
    "FLAP-08": ("reboot",), "FLAP-09": ("networkd-restart",), "FLAP-11": ("networkmanager-restart", "netplan-apply"),
}  # fmt: skip
"""The events that checks ask for whatever the intent says, by the check's id."""


class TargetTests:
    """The tests of one target. A test runs when a check asks for it, and its result is kept for all other checks."""

    def __init__(
        self,
        target: Target,
        captures: Path,
        run_replay: Callable[[Target], ReplayResult | NotReplayed],
        selected: Collection[str],
        side_events: Sequence[SideEvent] = (),
    ) -> None:
        """Run nothing yet.

        Args:
            target: the target that is tested.
            captures: the folder for pcapng files.
            run_replay: runs the target's network configuration in a lab.
            selected: the ids of the checks that will be judged: tests that take seconds begin early, for those alone.
            side_events: the cases of FLAP-12 among them.
        """
        self.target = target
        self._selected, self._side_events = selected, side_events
        self._captures, self._run_replay = captures, run_replay

    @cached_property
    def traffic(self) -> TrafficTests:
        """The tests that send packets."""
        traffic = self.target.traffic_tests(self._captures)
        if DHCP_CHECK in self._selected and self.target.intent.mode in BY_DRIVER:
            traffic.begin_dhcp_discovery()
        if DNS_CHECK in self._selected and self.target.kind == "local":
            traffic.expect_dns()
            if PROBES_CHECK in self._selected:
                traffic.begin_probes()
        return traffic

    @cached_property
    def classes(self) -> ClassPartition:
        """The classes of the agent's traffic, by the model alone."""
        return class_partition(self.target.resolved)

    @cached_property
    def disruptions(self) -> DisruptionTests:
        """The tests that interrupt the network."""
        disruptions = self.target.disruption_tests()
        asked = [event for check, events in EVENTS.items() if check in self._selected for event in events]
        if DEVICE_CHECK in self._selected and "device-change" in (self.target.intent.egress.survives or ()):
            asked += ["device-change", "rename"]
        disruptions.expect([*asked, *self._side_events])
        return disruptions

    @cached_property
    def replay_result(self) -> ReplayResult | NotReplayed:
        """The result of running the target's network configuration in a lab."""
        return self._run_replay(self.target)

    def replay(self) -> ReplayResult | NotReplayed:
        """Return the result of running the target's network configuration in a lab; it runs at the first call."""
        return self.replay_result

    @property
    def kernel_decisions(self) -> Mapping[str, KernelDecision]:
        """The kernel's decision for the agent's packets by protocol; the routing model's for a bundle."""
        return {protocol: self.target.kernel_decision(protocol) for protocol in self.target.intent.probe.protocols}

    @cached_property
    def _tokens(self) -> TokenSpace:
        from viacheck.packets.tokens import TokenSpace

        return TokenSpace()

    @cached_property
    def agent(self) -> AgentProbes:
        """The agent as the sender of a user's own probes."""
        from viacheck.packets.agent_probes import AgentProbes

        return AgentProbes(self._agent_namespace, self._tokens, seconds(self.target.intent.probe.timeout))

    def _agent_namespace(self) -> Namespace:
        assert self.target.agent is not None, "a check that captures is not run while the agent cannot be opened"
        return self.target.agent

    @cached_property
    def watch(self) -> PacketWatch:
        """The watch over the host's interfaces for a user's own checks."""
        from viacheck.packets.agent_probes import PacketWatch

        assert self.target.host is not None, "a check that captures is not run on a bundle"
        return PacketWatch(self.target.host, self._tokens)

    @property
    def id(self) -> str:
        """The target's id."""
        return self.target.id

    @property
    def measurements(self) -> Measurements:
        """The results so far. Reading them sends nothing."""
        done = vars(self)
        traffic: TrafficTests | None = done.get("traffic")
        disruptions: DisruptionTests | None = done.get("disruptions")
        return Measurements(
            traffic=traffic.measurements if traffic is not None else TrafficMeasurements(),
            disruptions=disruptions.results if disruptions is not None else {},
            replay=done.get("replay_result"),
        )

    def cause_of(self, check: Check) -> Cause | None:
        """Return why a check fails on this target; None when no known cause accounts for it.

        The failure of a check that sends packets may depend on a silent gateway or on the parent's segment: they are
        tested first. A check that sends none is explained by the results so far.
        """
        if check.sends and self.target.missing_capability is None:
            self.traffic.measure_for_diagnosis()
        cause = diagnose(check.id, self.target.resolved, self.measurements)
        name = self.target.agent_name
        return cause.of_agent(name) if cause is not None and name is not None else cause

    def subnet_is_routed(self) -> bool:
        """Return whether answers to the agent's own, untranslated address come back; send its probes to see it."""
        target = self.target
        if target.host is not None and target.agent is not None and target.missing_capability is None:
            for protocol in target.intent.probe.protocols:
                self.traffic.agent(protocol)
        return subnet_is_routed(target.resolved, self.measurements.traffic)

    def read_counters(self) -> PacketFilter | None:
        """Return the host's packet filter with its counters as it is now; None where the host cannot be entered."""
        return read_packet_filter(self.target.host) if self.target.host is not None else None

    def close(self) -> None:
        """Close captures and sockets, the lab that events share, and wait for the end of what has begun."""
        if "disruptions" in vars(self):
            self.disruptions.close()
        if "traffic" in vars(self):
            resolved, measured = self.target.resolved, self.traffic.measurements
            findings = UpstreamFindings(
                gateway_answers=self.traffic.gateways.neighbours,
                subnet_routed=subnet_is_routed(resolved, measured),
                answers_by=answers_come_in_by(resolved, measured),
                silent_beyond=silent_beyond(resolved, measured),
                answers_lost=lost_beyond_host(resolved, measured),
                address_claimed_by=[claim.mac for claim in measured.address.claims] if measured.address else [],
            )
            self.target.note_upstream(findings)
            self.traffic.close()
