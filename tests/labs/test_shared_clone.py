"""The clone that the events of a whole host share, here of a lab without init: kept while each leaves it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from netns_lab.lab_specs import parse_labs
from viacheck.disruption.controls import EgressNotAsIntended, Event, EventContext
from viacheck.disruption.events import Renamed
from viacheck.disruption.runner import DisruptionRun, HostUnderTest
from viacheck.disruption.shared_clone import SharedClone
from viacheck.host.sysctl import write_sysctl
from viacheck.model.measurements import DisruptionResult
from viacheck.packets.capture import Watch
from viacheck.packets.tokens import TokenSpace
from viacheck.targets.namespace_target import NamespaceTarget

HARMLESS = Renamed("wlan0")
RULE = "from", "172.17.0.0/16", "lookup", "200"


@dataclass(frozen=True)
class Typed:
    """An event that is one command."""

    argv: tuple[str, ...]
    name: str = "typed"
    title: str = "a command is typed"
    touches: tuple[str, ...] = ()

    def apply(self, context: EventContext) -> None:
        """Run the command."""
        context.run(*self.argv)


@dataclass(frozen=True)
class SysctlSet:
    """An event that sets a sysctl of an interface that the packets do not use."""

    target: NamespaceTarget
    name: str = "sysctl"
    title: str = "a sysctl is set"
    touches: tuple[str, ...] = ()

    def apply(self, context: EventContext) -> None:
        """Set it."""
        context.act(
            self.title, lambda: self.target.host.call(lambda: write_sysctl("net/ipv4/conf/eth0/rp_filter", "1"))
        )


class Clones:
    """A shared clone of the lab policy-routing, and every clone that was built for it."""

    def __init__(self) -> None:
        (self._spec,) = parse_labs("policy-routing")
        self.judged = self._spec.open()
        self.built: list[NamespaceTarget] = []
        self.shared = SharedClone(self._clone)

    def _clone(self) -> HostUnderTest:
        target, tokens = self._spec.open(), TokenSpace()
        self.built.append(target)
        watch = Watch(target.host, self.judged.resolved.watchable, tokens)
        return HostUnderTest(target, target.agent, tokens, watch, own=True)

    def carry_out(self, event: Event, *, ends_clone: bool = False) -> DisruptionResult:
        """Carry an event out on the shared clone."""
        return self.shared.carry_out(
            lambda host: DisruptionRun(host, self.judged, event).result(), ends_clone=ends_clone
        )

    def close(self) -> None:
        """End the clone and the lab."""
        self.shared.close()
        self.judged.close()


@pytest.fixture
def clones() -> Iterator[Clones]:
    with contextlib.closing(Clones()) as clones:
        yield clones


def test_events_share_a_clone_that_each_has_left_as_it_was(clones: Clones) -> None:
    for _ in range(2):
        assert clones.carry_out(HARMLESS).survived(30)
    assert len(clones.built) == 1


def test_an_event_that_changes_something_beside_the_egress_ends_the_clone(clones: Clones) -> None:
    assert clones.carry_out(Typed(("ip", "link", "add", "other0", "type", "bridge"))).survived(30)
    assert clones.carry_out(HARMLESS).survived(30)
    assert len(clones.built) == 2
    assert clones.carry_out(SysctlSet(clones.built[-1])).survived(30)
    assert clones.carry_out(HARMLESS).survived(30)
    assert len(clones.built) == 3


def test_no_event_happens_to_a_clone_that_an_event_has_ended(clones: Clones) -> None:
    for ends_clone, built in ((False, 1), (True, 1), (False, 2)):
        assert clones.carry_out(HARMLESS, ends_clone=ends_clone).survived(30)
        assert len(clones.built) == built


def test_rules_of_one_priority_in_another_order_are_no_failure_and_end_the_clone(
    clones: Clones, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = "ip rule add priority 990"
    of_office, of_radio = (f"to 10.10.{network}.0/24 lookup main" for network in (40, 50))
    build = clones._clone

    def with_rules() -> HostUnderTest:
        host = build()
        assert host.target.host.run(["sh", "-ec", f"{add} {of_office}; {add} {of_radio}"]).ok
        return host

    monkeypatch.setattr(clones.shared, "_clone", with_rules)
    assert clones.carry_out(HARMLESS).survived(30)
    again = f"ip rule del priority 990 {of_office}; {add} {of_office}"
    assert clones.carry_out(Typed(("sh", "-ec", again))).survived(30)
    assert len(clones.built) == 1, "nothing is missing, so that no other clone has to show it"
    assert clones.carry_out(HARMLESS).survived(30)
    assert len(clones.built) == 2


def test_what_fails_on_a_used_clone_is_judged_on_a_new_one(clones: Clones) -> None:
    assert clones.carry_out(HARMLESS).survived(30)
    result = clones.carry_out(Typed(("ip", "rule", "del", *RULE)))
    assert not result.survived(30)
    assert len(clones.built) == 2, "the rule was deleted on the used clone, then on a new one"
    assert clones.carry_out(HARMLESS).survived(30), "no event is blamed for another one"
    assert len(clones.built) == 3


def test_a_clone_that_has_broken_meanwhile_is_no_reason_to_blame_an_event(clones: Clones) -> None:
    assert clones.carry_out(HARMLESS).survived(30)
    clones.built[-1].host.run(["ip", "rule", "del", *RULE])
    assert clones.carry_out(HARMLESS).survived(30)
    assert len(clones.built) == 2


def test_a_host_whose_packets_leave_elsewhere_on_a_new_clone_too_is_not_judged(
    clones: Clones, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = clones._clone

    def broken() -> HostUnderTest:
        host = build()
        host.target.host.run(["ip", "rule", "del", *RULE])
        return host

    monkeypatch.setattr(clones.shared, "_clone", broken)
    with pytest.raises(EgressNotAsIntended):
        clones.carry_out(HARMLESS)
