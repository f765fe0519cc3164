"""Events made to happen to real labs, with what each does to the agent's packets: seen on the wire, not looked up."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netns_lab import nft_rules
from netns_lab.lab_specs import parse_labs
from netns_lab.nft_rules import SourceNAT
from netns_lab.plan import PACKET_FILTER_TABLE
from netns_lab.scenarios import AGENT_SUBNET
from viacheck.analysis.disruption_text import disruption_text, figures
from viacheck.disruption.controls import Event, EventContext
from viacheck.disruption.disruption_tests import DisruptionTests
from viacheck.disruption.event_registry import EventName, NotApplicable, NotPossible
from viacheck.disruption.events import CarrierLoss, DeviceRecreated, LinkFlap, Renamed
from viacheck.disruption.runner import EgressNotAsIntended
from viacheck.model.diff import changes
from viacheck.model.measurements import DisruptionResult, FlowKind
from viacheck.targets.namespace_target import NamespaceTarget

IFUPDOWN, LEASED = "policy-routing-ifupdown", "policy-routing-dhcp"
needs_ifupdown = pytest.mark.skipif(shutil.which("ifup") is None, reason="ifupdown is not installed")
needs_dhclient = pytest.mark.skipif(
    None in map(shutil.which, ("ifup", "dhclient")), reason="ifupdown and isc-dhcp-client are not installed"
)
Opened = Callable[..., NamespaceTarget]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens labs as targets, and does something to each and to all of its twins."""
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


def recreated(target: NamespaceTarget) -> Event:
    assert target.services.control is not None
    return DeviceRecreated("wlan0", ("10.10.50.9/24",), target.services.control)


class AddressChange:
    """wlan0 gets another address in place of the one that it has, in the order in which a DHCP client does it."""

    name, title, touches = "address-change", "the address of wlan0 changes", ("wlan0",)

    def apply(self, stage: EventContext) -> None:
        """The old one away, the new one set."""
        stage.run("ip", "address", "del", "10.10.50.9/24", "dev", "wlan0")
        stage.run("ip", "address", "add", "10.10.50.10/24", "dev", "wlan0")


def carrier(target: NamespaceTarget) -> Event:
    assert target.services.control is not None
    return CarrierLoss("wlan0", target.services.control)


def at(disruption_result: DisruptionResult, moment: str) -> list[str]:
    """The state after a step."""
    return next(state.lines for state in disruption_result.states if moment in state.moment)


def announced(disruption_result: DisruptionResult) -> list[str]:
    """What the kernel said."""
    return [event.what for event in disruption_result.timeline.events if event.mark == "netlink"]


def test_admin_down_leaks_for_ever_and_the_kernel_does_not_say_that_the_route_went(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened("policy-routing")).through("link-flap")
    assert disruption_result.kind is FlowKind.KEEPS_LEAKING, disruption_text(disruption_result)
    assert not disruption_result.survived(60)
    for flow_result in disruption_result.flow_results:
        assert (flow_result.leak_interfaces, flow_result.leak_sources) == (("eth0",), ("10.10.40.9",))
        assert flow_result.leaked > 50
    assert [str(route) for route in disruption_result.routes_lost] == ["default via 10.10.50.1 dev wlan0 table 200"]
    assert not disruption_result.rules_lost
    assert not any("table 200" in line for line in at(disruption_result, " up"))
    assert "link wlan0 down" in announced(disruption_result)
    assert not [words for words in announced(disruption_result) if "default" in words and "200" in words]
    assert not disruption_result.unproven


def test_carrier_loss_leaks_nothing_and_heals_by_itself(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened("policy-routing")).through("carrier-loss")
    assert disruption_result.kind is FlowKind.RECOVERS, disruption_text(disruption_result)
    assert disruption_result.survived(1)
    assert disruption_result.leaked == 0
    assert "route default via 10.10.50.1 dev wlan0 table 200" in at(disruption_result, "taken out")
    assert not disruption_result.unproven


def test_carrier_loss_leaks_where_routes_without_carrier_are_ignored(opened: Opened) -> None:
    def ignore(target: NamespaceTarget) -> None:
        knob = "net.ipv4.conf.wlan0.ignore_routes_with_linkdown=1"
        assert target.host.run(["sysctl", "-q", "-w", knob]).ok

    disruption_result = DisruptionTests(opened("policy-routing", ignore)).through("carrier-loss")
    assert disruption_result.kind is FlowKind.LEAKS_THEN_RECOVERS, disruption_text(disruption_result)
    assert disruption_result.leaked > 10


def test_the_backstop_keeps_both_families_in(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened("policy-routing-hardened")).through("link-flap")
    assert disruption_result.kind is FlowKind.STAYS_SILENT, disruption_text(disruption_result)
    assert {(flow_result.flow, flow_result.family) for flow_result in disruption_result.flow_results} == {
        ("old", 4), ("new", 4), ("old", 6), ("new", 6),
    }  # fmt: skip
    assert disruption_result.leaked == 0
    assert not disruption_result.unproven
    assert "route unreachable default metric 4278198272 table 200" in at(disruption_result, "after")


def test_a_family_that_was_astray_to_begin_with_is_not_judged(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened("policy-routing-hardened+ipv6-escapes")).through("carrier-loss")
    assert {flow_result.family for flow_result in disruption_result.flow_results} == {4}
    assert len(disruption_result.not_judged) == 2
    assert "IPv6: not judged" in disruption_result.not_judged[0]


def test_a_device_that_is_made_anew_has_lost_its_routes(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened("policy-routing")).run(recreated)
    assert disruption_result.kind is FlowKind.KEEPS_LEAKING, disruption_text(disruption_result)
    assert disruption_result.unproven == {"wlan0": "it was recreated during the watch"}


def test_packets_are_seen_on_a_device_that_was_made_anew(opened: Opened) -> None:
    class WithRoute:
        """The device made anew, and the route set again by somebody who watches."""

        name, title, touches = "device-recreated", "wlan0 is made anew, and its route set again", ("wlan0",)

        def __init__(self, target: NamespaceTarget) -> None:
            self.event = recreated(target)

        def apply(self, stage: EventContext) -> None:
            self.event.apply(stage)
            stage.run("ip", "route", "add", "default", "via", "10.10.50.1", "dev", "wlan0", "table", "200")

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


def test_static_source_nat_keeps_an_old_flows_source_for_ever(opened: Opened) -> None:
    def translate(target: NamespaceTarget, address: str) -> None:
        nft_rules.remove(target.host, PACKET_FILTER_TABLE)
        nft_rules.apply(target.host, PACKET_FILTER_TABLE, [SourceNAT(source=AGENT_SUBNET, to=address)])

    class Moved:
        """The uplink's address changes, and the operator changes route and translation with it."""

        name, title, touches = "address-change", "the address of wlan0 changes, and SNAT with it", ("wlan0",)

        def __init__(self, target: NamespaceTarget) -> None:
            self.target = target

        def apply(self, stage: EventContext) -> None:
            AddressChange().apply(stage)
            stage.run("ip", "route", "add", "default", "via", "10.10.50.1", "dev", "wlan0", "table", "200")
            stage.act("SNAT to 10.10.50.10", lambda: translate(self.target, "10.10.50.10"))

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
    disruptions.through("link-flap")
    disruptions.through("carrier-loss")
    assert changes(before, target.read_state()) == []


def test_a_live_host_has_a_guard_around_the_event(opened: Opened) -> None:
    class Restoring:
        """Puts the route back, as whoever saved it would."""

        def __init__(self) -> None:
            self.guarded: list[str] = []

        @contextlib.contextmanager
        def around(self, event: Event) -> Iterator[None]:
            yield
            self.guarded += event.touches
            words = ["ip", "route", "add", "default", "via", "10.10.50.1", "dev", "wlan0", "table", "200"]
            words += ["proto", "static"]
            assert target.host.run(words).ok

    target, guard = opened("policy-routing"), Restoring()
    before = target.snapshot
    # As on a live host, there is no other one like it.
    target.services = replace(target.services, clone=None)
    assert DisruptionTests(target, guard).run(lambda _target: LinkFlap("wlan0")).kind is FlowKind.KEEPS_LEAKING
    assert guard.guarded == ["wlan0"]
    assert changes(before, target.read_state()) == []
    assert target.agent is not None


def test_an_event_on_what_does_not_work_is_no_trial(opened: Opened) -> None:
    with pytest.raises(EgressNotAsIntended, match=r"left by eth0 with source 10\.10\.40\.9"):
        DisruptionTests(opened("policy-routing+rule-missing")).through("link-flap")


def test_what_does_not_belong_to_a_host_is_told_apart_from_what_cannot_be_made(opened: Opened) -> None:
    target = opened("policy-routing")
    with pytest.raises(NotApplicable, match="no container"):
        DisruptionTests(target).through("container-restart")
    with pytest.raises(NotApplicable, match="was not brought up by ifupdown"):
        DisruptionTests(target).through("ifupdown")
    with pytest.raises(NotApplicable, match="the address of wlan0 is fixed, not leased"):
        DisruptionTests(target).through("dhcp-renew")
    with pytest.raises(NotApplicable, match="typed by hand"):
        DisruptionTests(target).after_reboot()
    target.services = replace(target.services, control=None, clone=None)
    with pytest.raises(NotPossible, match="by hand"):
        DisruptionTests(target).through("carrier-loss")


@needs_ifupdown
def test_ifupdown_with_the_good_stanza_survives_everything(opened: Opened) -> None:
    target = opened(IFUPDOWN)
    disruptions = DisruptionTests(target)
    events: tuple[EventName, ...] = ("link-flap", "carrier-loss", "ifupdown", "device-change", "rename")
    for disruption_result in (*map(disruptions.through, events), disruptions.after_reboot()):
        assert disruption_result.survived(1), disruption_text(disruption_result)
        assert disruption_result.leaked == 0
        assert not disruption_result.unproven.keys() - {"wlan0"}


@needs_dhclient
def test_a_lease_hook_follows_the_router_and_the_address(opened: Opened) -> None:
    disruptions = DisruptionTests(opened(LEASED))
    renewed, moved = disruptions.through("dhcp-renew"), disruptions.through("address-change")
    assert renewed.survived(1), disruption_text(renewed)
    assert "route default via 10.10.50.2 dev wlan0 table 200" in at(renewed, "after")
    assert moved.survived(1), disruption_text(moved)
    assert "address 10.10.50.9" in at(moved, "before")
    assert "address 10.10.50.29" in at(moved, "after")
    assert not any(
        disruption_result.leaked or disruption_result.failed_commands for disruption_result in (renewed, moved)
    )


@needs_dhclient
def test_a_route_that_does_not_follow_the_router_is_on_no_wire(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened(f"{LEASED}+renewal-ignored")).through("dhcp-renew")
    assert disruption_result.kind is FlowKind.STAYS_SILENT, disruption_text(disruption_result)
    assert [str(route) for route in disruption_result.stale_routes] == ["default via 10.10.50.1 dev wlan0 table 200"]
    assert not disruption_result.routes_lost
    assert not disruption_result.survived(60)


@needs_dhclient
def test_masquerade_translates_an_old_flow_anew_and_static_source_nat_does_not(opened: Opened) -> None:
    kinds = {}
    for lab in (LEASED, f"{LEASED}+old-flow-translated"):
        disruption_result = DisruptionTests(opened(lab)).through("address-change")
        kinds[lab] = {flow_result.flow: flow_result.kind for flow_result in disruption_result.flow_results}
    assert kinds[LEASED] == {"old": FlowKind.RECOVERS, "new": FlowKind.RECOVERS}
    assert kinds[f"{LEASED}+old-flow-translated"] == {"old": FlowKind.KEEPS_WRONG_SOURCE, "new": FlowKind.RECOVERS}


@needs_dhclient
def test_nothing_is_left_of_a_dhcp_client_when_its_lab_ends(opened: Opened) -> None:
    with contextlib.ExitStack() as closing:
        target = parse_labs(LEASED)[0].open()
        closing.callback(target.close)
        pid_file = target.host.run(["cat", "/run/dhclient.wlan0.pid"])
        assert pid_file.ok
        clients = processes("dhclient", "wlan0")
        assert clients
    assert not processes("dhclient", "wlan0") & clients


def processes(*words: str) -> set[int]:
    """The machine's processes whose command lines have these words."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().split(b"\0")
            if all(any(word.encode() in part for part in line) for word in words):
                found.add(int(path.parent.name))
    return found


def test_an_agents_own_client_follows_router_and_address(opened: Opened) -> None:
    disruptions = DisruptionTests(opened("pipework-dhcp"))
    for disruption_result in (disruptions.through("dhcp-renew"), disruptions.through("address-change")):
        assert disruption_result.survived(1), disruption_text(disruption_result)
    stale = DisruptionTests(opened("pipework-dhcp+client-keeps-router")).through("dhcp-renew")
    assert stale.kind is FlowKind.STAYS_SILENT, disruption_text(stale)


@needs_ifupdown
def test_the_guides_stanza_piles_up_rules_and_leaks(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened(f"{IFUPDOWN}+guide-stanza")).through("ifupdown")
    counts = [len(state.rules) for state in disruption_result.states if state.moment.startswith(("before", "ifup "))]
    assert counts == [1, 2, 3, 4]
    assert len({rule.priority for rule in disruption_result.states[-1].rules}) == 4
    assert disruption_result.leaked > 10
    assert not disruption_result.survived(60)


@needs_ifupdown
def test_what_is_typed_by_hand_is_gone_after_a_reboot(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened(f"{IFUPDOWN}+no-post-up")).after_reboot()
    assert disruption_result.kind is FlowKind.KEEPS_LEAKING, disruption_text(disruption_result)
    assert [rule.priority for rule in disruption_result.rules_lost] == [1000]


def test_the_timeline_is_small_and_says_how_much_it_leaves_out(opened: Opened) -> None:
    disruption_result = DisruptionTests(opened("policy-routing")).through("link-flap")
    timeline = disruption_result.timeline
    assert len(timeline.events) < 400
    assert timeline.lanes == ["event", "state", "kernel", "wlan0", "eth0"]
    assert {event.lane for event in timeline.events} == set(timeline.lanes)
    assert [event.time for event in timeline.events] == sorted(event.time for event in timeline.events)
    assert len(timeline.figures) == 2
    for one in disruption_result.flow_results:
        marks = [mark for mark in timeline.events if (mark.flow, mark.family) == (one.flow, one.family)]
        assert sum(mark.probes for mark in marks) == one.sent
        assert sum(mark.probes for mark in marks if mark.mark == "leak") == one.leaked > len(marks)


def test_the_timeline_names_every_way_out_that_was_watched(opened: Opened) -> None:
    timeline = DisruptionTests(opened("policy-routing")).through("carrier-loss").timeline
    assert (timeline.ways, timeline.unproven) == (["wlan0", "eth0"], {})
    assert "eth0" not in {event.lane for event in timeline.events}
