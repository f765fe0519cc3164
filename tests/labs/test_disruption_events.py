"""Real events in labs, and their effect on the agent's packets as the captures show it."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from fixtures.check_runner import CheckRunner
from netns_lab import nft_rules
from netns_lab.dhcp_server_control import RENEWAL_TIMEOUT
from netns_lab.lab_specs import parse_labs
from netns_lab.nft_rules import SourceNAT
from netns_lab.plan import PACKET_FILTER_TABLE
from netns_lab.scenarios import AGENT_SUBNET
from netns_lab.scenarios.nat import BACKSTOP_METRIC
from tests.helpers.disruptions import carried_out, not_run, through
from viacheck.analysis.disruption_text import disruption_text, figures
from viacheck.disruption.controls import DisruptionTarget, Disturbance, Event, EventContext
from viacheck.disruption.disruption_tests import DisruptionTests
from viacheck.disruption.events import CarrierLoss, DeviceRecreated, LinkFlap, Renamed
from viacheck.host.dhcp_clients import dhcp_clients
from viacheck.installation import CHECKS
from viacheck.model.diff import changes
from viacheck.model.measurements import DisruptionResult, EventName, EventNotRun, EventObstacle, FlowKind
from viacheck.model.verdict import Verdict
from viacheck.targets.namespace_target import NamespaceTarget

IFUPDOWN, LEASED = "policy-routing-ifupdown", "policy-routing-dhcp"
needs_ifupdown = pytest.mark.skipif(shutil.which("ifup") is None, reason="ifupdown is not installed")
needs_dhclient = pytest.mark.skipif(
    None in map(shutil.which, ("ifup", "dhclient")), reason="ifupdown and isc-dhcp-client are not installed"
)
Opened = Callable[..., NamespaceTarget]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Open labs as targets; a function prepares each lab and each of its clones."""
    with contextlib.ExitStack() as closing:

        def open_lab(name: str, prepare: Callable[[NamespaceTarget], None] = lambda _target: None) -> NamespaceTarget:
            (spec,) = parse_labs(name)

            def prepared() -> NamespaceTarget:
                target: NamespaceTarget = spec.open()
                prepare(target)
                return target

            target = prepared()
            target.services = replace(target.services, clone=prepared)
            closing.callback(target.close)
            return target

        yield open_lab


def recreated(target: DisruptionTarget) -> Event:
    assert target.services.control is not None
    return DeviceRecreated("wlan0", ("10.10.50.9/24",), target.services.control)


class AddressChange:
    """wlan0 gets another address, in the order in which a DHCP client changes it."""

    name, title, touches = "address-change", "the address of wlan0 changes", ("wlan0",)

    def apply(self, context: EventContext) -> None:
        """Delete the old address, and add the new one."""
        context.run("ip", "address", "del", "10.10.50.9/24", "dev", "wlan0")
        context.run("ip", "address", "add", "10.10.50.10/24", "dev", "wlan0")


class SlowManager:
    """A program removes a route that no packet takes meanwhile, and sets it again when the event is over."""

    name, title, touches = "slow-manager", "a program sets its routes again", ()
    route = ("unreachable", "default", "table", "200", "metric", str(BACKSTOP_METRIC))

    def __init__(self, target: DisruptionTarget, seconds: float | None) -> None:
        """``seconds`` pass between the event and the route; None: it is not set again."""
        self._target, self._seconds = target, seconds

    def apply(self, context: EventContext) -> None:
        """Remove the route."""
        context.run("ip", "route", "del", *self.route)
        if self._seconds is not None:
            threading.Timer(self._seconds, lambda: self._target.host.run(["ip", "route", "add", *self.route])).start()


def carrier(target: DisruptionTarget) -> Event:
    assert target.services.control is not None
    return CarrierLoss("wlan0", target.services.control)


def at(disruption_result: DisruptionResult, moment: str) -> list[str]:
    """Return the state after a step."""
    return next(state.lines for state in disruption_result.states if moment in state.moment)


def announced(disruption_result: DisruptionResult) -> list[str]:
    """Return the kernel's announcements."""
    return [event.what for event in disruption_result.timeline.events if event.mark == "netlink"]


def test_admin_down_keeps_leaking_and_the_kernel_does_not_announce_the_lost_route(opened: Opened) -> None:
    disruption_result = through(DisruptionTests(opened("policy-routing")), "link-flap")
    assert disruption_result.kind is FlowKind.KEEPS_LEAKING, disruption_text(disruption_result)
    assert not disruption_result.survived(60)
    for flow_result in disruption_result.flow_results:
        assert (flow_result.leak_interfaces, flow_result.leak_sources) == (("eth0",), ("10.10.40.9",))
        assert flow_result.leaked > 50
    assert [str(route) for route in disruption_result.routes_lost] == ["default via 10.10.50.1 dev wlan0 table 200"]
    assert not disruption_result.rules_lost
    assert not any("table 200" in line for line in at(disruption_result, " up"))
    assert "link wlan0 down" in announced(disruption_result)
    assert not [text for text in announced(disruption_result) if "default" in text and "200" in text]
    assert not disruption_result.unproven


def test_carrier_loss_leaks_nothing_and_recovers_by_itself(opened: Opened) -> None:
    disruption_result = through(DisruptionTests(opened("policy-routing")), "carrier-loss")
    assert disruption_result.kind is FlowKind.RECOVERS, disruption_text(disruption_result)
    assert disruption_result.survived(30)
    assert disruption_result.leaked == 0
    assert "route default via 10.10.50.1 dev wlan0 table 200" in at(disruption_result, "unplugged")
    assert not disruption_result.unproven


def test_a_clone_without_an_agent_says_why(opened: Opened) -> None:
    target = opened("nat")
    target.services = replace(target.services, clone=parse_labs("nat+agent-gone")[0].open)
    reason = not_run(DisruptionTests(target).through("link-flap"))
    assert reason.obstacle is EventObstacle.NO_CLONE
    assert reason.text.startswith("the agent of the lab's clone cannot be opened: ")


def test_rules_and_routes_have_as_long_as_the_packets_to_come_back(opened: Opened) -> None:
    events = DisruptionTests(opened("policy-routing-hardened"))
    late = events.run(lambda target: SlowManager(target, 0.5))
    assert late.survived(60), disruption_text(late)
    assert late.kind is FlowKind.SEAMLESS
    assert late.watched >= 0.5
    never = events.run(lambda target: SlowManager(target, None))
    assert [str(route) for route in never.routes_lost] == [f"unreachable default metric {BACKSTOP_METRIC} table 200"]


def test_carrier_loss_leaks_where_routes_without_carrier_are_ignored(opened: Opened) -> None:
    def ignore(target: NamespaceTarget) -> None:
        sysctl = "net.ipv4.conf.wlan0.ignore_routes_with_linkdown=1"
        assert target.host.run(["sysctl", "-q", "-w", sysctl]).ok

    disruption_result = through(DisruptionTests(opened("policy-routing", ignore)), "carrier-loss")
    assert disruption_result.kind is FlowKind.LEAKS_THEN_RECOVERS, disruption_text(disruption_result)
    assert disruption_result.leaked > 10


def test_the_backstop_keeps_both_families_in(opened: Opened) -> None:
    disruption_result = through(DisruptionTests(opened("policy-routing-hardened")), "link-flap")
    assert disruption_result.kind is FlowKind.STAYS_SILENT, disruption_text(disruption_result)
    assert {(flow_result.flow, flow_result.family) for flow_result in disruption_result.flow_results} == {
        ("old", 4), ("new", 4), ("old", 6), ("new", 6),
    }  # fmt: skip
    assert disruption_result.leaked == 0
    assert not disruption_result.unproven
    assert "route unreachable default metric 4278198272 table 200" in at(disruption_result, "after")


def test_a_family_that_did_not_leave_as_intended_is_not_judged(opened: Opened) -> None:
    disruption_result = through(DisruptionTests(opened("policy-routing-hardened+ipv6-escapes")), "carrier-loss")
    assert {flow_result.family for flow_result in disruption_result.flow_results} == {4}
    assert len(disruption_result.not_judged) == 2
    assert "IPv6: not judged" in disruption_result.not_judged[0]


def test_a_recreated_device_has_lost_its_routes(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened("policy-routing")).run(recreated)
    assert disruption_result.kind is FlowKind.KEEPS_LEAKING, disruption_text(disruption_result)
    assert disruption_result.unproven == {"wlan0": "it was recreated during the watch"}


def test_packets_are_seen_on_a_recreated_device(opened: Opened) -> None:
    class WithRoute:
        """The device is recreated, and its route restored."""

        name, title, touches = "device-recreated", "wlan0 is recreated, and its route restored", ("wlan0",)

        def __init__(self, target: DisruptionTarget) -> None:
            self.event = recreated(target)

        def apply(self, context: EventContext) -> None:
            self.event.apply(context)
            context.run("ip", "route", "add", "default", "via", "10.10.50.1", "dev", "wlan0", "table", "200")

    disruption_result = DisruptionTests(opened("policy-routing")).run(WithRoute)
    assert disruption_result.kind is FlowKind.LEAKS_THEN_RECOVERS, disruption_text(disruption_result)


def test_a_live_rename_is_seamless(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened("policy-routing")).run(lambda _target: Renamed("wlan0"))
    assert disruption_result.kind is FlowKind.SEAMLESS, disruption_text(disruption_result)
    assert disruption_result.survived(0)


def test_an_address_that_changes_takes_the_route_along(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened("policy-routing")).run(lambda _target: AddressChange())
    assert disruption_result.kind is FlowKind.KEEPS_LEAKING, disruption_text(disruption_result)
    assert disruption_result.routes_lost


def test_static_source_nat_keeps_an_old_flows_source(opened: Opened) -> None:
    def translate(target: DisruptionTarget, address: str) -> None:
        nft_rules.remove(target.host, PACKET_FILTER_TABLE)
        nft_rules.apply(target.host, PACKET_FILTER_TABLE, [SourceNAT(source=AGENT_SUBNET, to=address)])

    class Moved:
        """The uplink's address changes, and the operator changes route and translation with it."""

        name, title, touches = "address-change", "the address of wlan0 changes, and SNAT with it", ("wlan0",)

        def __init__(self, target: DisruptionTarget) -> None:
            self.target = target

        def apply(self, context: EventContext) -> None:
            AddressChange().apply(context)
            context.run("ip", "route", "add", "default", "via", "10.10.50.1", "dev", "wlan0", "table", "200")
            context.act("SNAT to 10.10.50.10", lambda: translate(self.target, "10.10.50.10"))

    disruption_result = DisruptionTests(opened("policy-routing", lambda target: translate(target, "10.10.50.9"))).run(
        Moved
    )
    assert disruption_result.kind is FlowKind.NEW_FLOWS_ONLY, figures(disruption_result)
    old = next(flow_result for flow_result in disruption_result.flow_results if flow_result.flow == "old")
    assert old.kind is FlowKind.KEEPS_WRONG_SOURCE


def test_the_lab_that_is_judged_is_not_touched(opened: Opened) -> None:
    target = opened("policy-routing")
    before = target.snapshot
    disruptions = DisruptionTests(target)
    through(disruptions, "link-flap")
    through(disruptions, "carrier-loss")
    assert changes(before, target.read_state()) == []


def test_the_events_of_a_lab_happen_beside_each_other(opened: Opened, tmp_path: Path) -> None:
    both, clones = threading.Barrier(2), count()
    # Neither clone is there before the other one is being built.
    target = opened("policy-routing-hardened", lambda _target: None if next(clones) == 0 else both.wait(60.0) and None)
    checks = frozenset({"FLAP-01", "FLAP-02"})
    results = CheckRunner((str(CHECKS / "test_survival.py"),), checks)(target, tmp_path)
    assert [(result.check, result.verdict) for result in results] == [
        ("FLAP-01", Verdict.ADVISORY), ("FLAP-02", Verdict.PASS),
    ]  # fmt: skip
    assert next(clones) == 3


def test_only_the_events_of_selected_checks_happen(opened: Opened, tmp_path: Path) -> None:
    clones = count()
    target = opened("policy-routing-hardened", lambda _target: next(clones) and None)
    (result,) = CheckRunner((str(CHECKS / "test_survival.py"),), frozenset({"FLAP-02"}))(target, tmp_path)
    assert (result.verdict, next(clones)) == (Verdict.PASS, 2)


def test_a_live_host_has_a_guard_around_the_event(opened: Opened) -> None:
    class Restoring:
        """Restores the route after the event."""

        def __init__(self) -> None:
            self.guarded: list[str] = []

        @contextlib.contextmanager
        def around(self, event: Event) -> Iterator[list[Disturbance]]:
            yield []
            self.guarded += event.touches
            argv = ["ip", "route", "add", "default", "via", "10.10.50.1", "dev", "wlan0", "table", "200"]
            argv += ["proto", "static"]
            assert target.host.run(argv).ok

    target, guard = opened("policy-routing"), Restoring()
    before = target.snapshot
    # A live host has no clone.
    target.services = replace(target.services, clone=None)
    assert DisruptionTests(target, guard).run(lambda _target: LinkFlap("wlan0")).kind is FlowKind.KEEPS_LEAKING
    assert guard.guarded == ["wlan0"]
    assert changes(before, target.read_state()) == []
    assert target.agent is not None


def test_the_flows_of_a_source_are_judged_by_its_own_uplink(opened: Opened) -> None:
    result = carried_out(DisruptionTests(opened("agent-sources")).run(lambda _target: LinkFlap("wlan0")))
    kinds = {(flow.of_source, flow.flow): flow.kind for flow in result.flow_results}
    assert kinds[None, "new"] is kinds["eth0", "new"] is FlowKind.SEAMLESS, "they leave by eth0"
    assert kinds["172.17.0.3", "new"] is FlowKind.KEEPS_LEAKING, "its table lost its route, and main leads to eth0"
    assert result.kind is FlowKind.KEEPS_LEAKING
    assert any(line.startswith("new flows, IPv4 from 172.17.0.3: keeps leaking") for line in figures(result))


def test_without_the_intended_egress_no_event_is_carried_out(opened: Opened) -> None:
    result = not_run(DisruptionTests(opened("policy-routing+rule-missing")).through("link-flap"))
    assert result.obstacle is EventObstacle.EGRESS_NOT_AS_INTENDED
    assert "left by eth0 with source 10.10.40.9" in result.text


def test_an_event_that_does_not_apply_differs_from_an_event_that_is_not_possible(opened: Opened) -> None:
    target = opened("policy-routing")
    disruptions = DisruptionTests(target)
    for result, text in (
        (disruptions.through("container-restart"), "not a container"),
        (disruptions.through("ifupdown"), "was not brought up by ifupdown"),
        (disruptions.through("dhcp-renew"), "the address of wlan0 is fixed and not leased"),
        (disruptions.after_reboot(), "typed by hand"),
    ):
        assert not_run(result).obstacle is EventObstacle.NOT_APPLICABLE
        assert text in not_run(result).text
    target.services = replace(target.services, control=None, clone=None)
    by_hand = not_run(DisruptionTests(target).through("carrier-loss"))
    assert by_hand == EventNotRun(EventObstacle.NOT_POSSIBLE, "the cable of wlan0 must be unplugged by hand")


@needs_ifupdown
def test_ifupdown_with_the_good_stanza_survives_everything(opened: Opened) -> None:
    target = opened(IFUPDOWN)
    disruptions = DisruptionTests(target)
    events: tuple[EventName, ...] = ("link-flap", "carrier-loss", "ifupdown", "device-change", "rename")
    for disruption_result in (
        *(through(disruptions, event) for event in events),
        carried_out(disruptions.after_reboot()),
    ):
        assert disruption_result.survived(30), disruption_text(disruption_result)
        assert disruption_result.leaked == 0
        assert not disruption_result.unproven.keys() - {"wlan0"}


@needs_dhclient
def test_a_lease_hook_follows_the_router_and_the_address(opened: Opened) -> None:
    disruptions = DisruptionTests(opened(LEASED))
    renewed, moved = through(disruptions, "dhcp-renew"), through(disruptions, "address-change")
    assert renewed.survived(30), disruption_text(renewed)
    assert "route default via 10.10.50.2 dev wlan0 table 200" in at(renewed, "after")
    assert moved.survived(30), disruption_text(moved)
    assert "address 10.10.50.9" in at(moved, "before")
    assert "address 10.10.50.29" in at(moved, "after")
    assert not any(result.leaked or result.failed_commands for result in (renewed, moved))


@needs_dhclient
def test_a_route_that_does_not_follow_the_router_is_on_no_wire(opened: Opened) -> None:
    disruption_result = through(DisruptionTests(opened(f"{LEASED}+renewal-ignored")), "dhcp-renew")
    assert disruption_result.kind is FlowKind.STAYS_SILENT, disruption_text(disruption_result)
    assert [str(route) for route in disruption_result.stale_routes] == ["default via 10.10.50.1 dev wlan0 table 200"]
    assert not disruption_result.routes_lost
    assert not disruption_result.survived(60)


@needs_dhclient
def test_masquerade_follows_the_address_for_an_old_flow_and_static_source_nat_does_not(opened: Opened) -> None:
    kinds = {}
    for lab in (LEASED, f"{LEASED}+old-flow-translated"):
        disruption_result = through(DisruptionTests(opened(lab)), "address-change")
        kinds[lab] = {flow_result.flow: flow_result.kind for flow_result in disruption_result.flow_results}
    assert kinds[LEASED] == {"old": FlowKind.RECOVERS, "new": FlowKind.RECOVERS}
    assert kinds[f"{LEASED}+old-flow-translated"] == {"old": FlowKind.KEEPS_WRONG_SOURCE, "new": FlowKind.RECOVERS}


@needs_dhclient
def test_a_lease_without_a_client_is_known_at_once(opened: Opened) -> None:
    disruption_result = through(DisruptionTests(opened(f"{LEASED}+no-dhcp-client")), "address-change")
    assert disruption_result.failure == "no client can renew the lease of wlan0"
    assert disruption_result.ended < RENEWAL_TIMEOUT


@needs_dhclient
def test_nothing_is_left_of_a_dhcp_client_when_its_lab_ends(opened: Opened) -> None:
    with contextlib.ExitStack() as closing:
        target = parse_labs(LEASED)[0].open()
        closing.callback(target.close)
        pid_file = target.host.run(["cat", "/run/dhclient.wlan0.pid"])
        assert pid_file.ok
        clients = dhcp_clients(target.host)
        assert clients
    numbers = [re.findall(r"\d+", client)[0] for client in clients]
    assert not [number for number in numbers if Path("/proc", number).exists()]


def test_an_agents_own_client_follows_router_and_address(opened: Opened) -> None:
    disruptions = DisruptionTests(opened("pipework-dhcp"))
    for disruption_result in (through(disruptions, "dhcp-renew"), through(disruptions, "address-change")):
        assert disruption_result.survived(30), disruption_text(disruption_result)
    stale = through(DisruptionTests(opened("pipework-dhcp+client-keeps-router")), "dhcp-renew")
    assert stale.kind is FlowKind.STAYS_SILENT, disruption_text(stale)


@needs_ifupdown
def test_the_guides_stanza_accumulates_rules_and_leaks(opened: Opened) -> None:
    disruption_result = through(DisruptionTests(opened(f"{IFUPDOWN}+guide-stanza")), "ifupdown")
    counts = [len(state.rules) for state in disruption_result.states if state.moment.startswith(("before", "ifup "))]
    assert counts == [1, 2, 3, 4]
    assert len({rule.priority for rule in disruption_result.states[-1].rules}) == 4
    assert disruption_result.leaked > 10
    assert not disruption_result.survived(60)


@needs_ifupdown
def test_rules_typed_by_hand_are_gone_after_a_reboot(opened: Opened) -> None:
    disruption_result = carried_out(DisruptionTests(opened(f"{IFUPDOWN}+no-post-up")).after_reboot())
    assert disruption_result.kind is FlowKind.KEEPS_LEAKING, disruption_text(disruption_result)
    assert [rule.priority for rule in disruption_result.rules_lost] == [1000]


def test_the_timeline_is_small_and_counts_the_omitted_probes(opened: Opened) -> None:
    disruption_result = through(DisruptionTests(opened("policy-routing")), "link-flap")
    timeline = disruption_result.timeline
    assert len(timeline.events) < 400
    assert timeline.lanes == ["event", "state", "kernel", "wlan0", "eth0"]
    assert {event.lane for event in timeline.events} == set(timeline.lanes)
    assert [event.time for event in timeline.events] == sorted(event.time for event in timeline.events)
    assert len(timeline.figures) == 2
    for flow_result in disruption_result.flow_results:
        flow = flow_result.flow, flow_result.family
        marks = [mark for mark in timeline.events if (mark.flow, mark.family) == flow]
        assert sum(mark.probes for mark in marks) == flow_result.sent
        assert sum(mark.probes for mark in marks if mark.mark == "leak") == flow_result.leaked > len(marks)


def test_the_timeline_names_every_watched_egress_interface(opened: Opened) -> None:
    timeline = through(DisruptionTests(opened("policy-routing")), "carrier-loss").timeline
    assert (timeline.ways, timeline.unproven) == (["wlan0", "eth0"], {})
    assert "eth0" not in {event.lane for event in timeline.events}
