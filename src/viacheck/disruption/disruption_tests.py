"""Trials: an event is made to happen while the agent's packets are watched, once for each event and target.

A lab that is judged is never touched by this: each event happens to another lab, built just like it and thrown away.
On a live host a guard stands around the event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from viacheck.disruption.controls import Event, EventContext, Guard, NoGuard
from viacheck.disruption.event_registry import EventName, NotApplicable, NotPossible, event_for
from viacheck.disruption.runner import DisruptionRun, EgressNotAsIntended, HostUnderTest
from viacheck.model.measurements import DisruptionResult
from viacheck.packets.capture import Watch
from viacheck.packets.tokens import TokenSpace
from viacheck.targets.namespace_target import NamespaceTarget


class DisruptionTests:
    """The trials of one target."""

    def __init__(self, target: NamespaceTarget, guard: Guard | None = None) -> None:
        """Nothing happens yet; ``guard`` is what puts a live host back."""
        self.target = target
        self._guard: Guard = guard or NoGuard()
        self.results: dict[str, DisruptionResult] = {}
        self._made: dict[str, DisruptionResult | Exception] = {}

    def through(self, name: EventName) -> DisruptionResult:
        """What becomes of the agent's packets through an event of the intent's.

        Raises:
            NotApplicable: when the event does not belong to this target.
            NotPossible: when it cannot be made here.
            WayNotRight: when the packets do not leave as intended to begin with.
        """
        if name not in self._made:
            try:
                if (obstacle := self.target.obstacle_to(name)) is not None:
                    raise NotPossible(obstacle)
                if self.target.services.clone is not None:
                    # What cannot be made on it cannot be made on a lab that is built for it.
                    event_for(name, self.target)
                self._made[name] = self.run(lambda target: event_for(name, target))
            except (NotApplicable, NotPossible, EgressNotAsIntended) as reason:
                self._made[name] = reason
        made = self._made[name]
        if isinstance(made, Exception):
            raise made
        self.results[name] = made
        return made

    def after_reboot(self) -> DisruptionResult:
        """What becomes of the agent's packets when the host comes up from its files alone.

        Raises:
            NotApplicable: when nothing is written down, and nothing is meant to be.
            NotPossible: on a host that cannot be rebooted for it.
        """
        if self.target.intent.egress.persist == "none":
            raise NotApplicable("rule and route are typed by hand, and meant so (egress.persist)")
        if (obstacle := self.target.obstacle_to("reboot")) is not None:
            raise NotPossible(obstacle)
        if self.target.services.rebooted is None:
            raise NotPossible("a boot is replayed only in labs of NAT whose host has a network manager of its own")
        if "reboot" not in self.results:
            ground = self._ground(self.target.services.rebooted())
            try:
                disruption_result = DisruptionRun(ground, self.target, _Reboot()).after_boot()
            finally:
                ground.close()
            self.results["reboot"] = disruption_result
        return self.results["reboot"]

    def run(self, make: Callable[[NamespaceTarget], Event]) -> DisruptionResult:
        """Make any event happen, to a lab like the target or to the guarded live host.

        Args:
            make: makes the event, for the target that it is to happen to.

        Raises:
            NotApplicable, NotPossible, WayNotRight: as :meth:`through`.
        """
        twin = self.target.services.clone
        ground = self._ground(twin() if twin is not None else self.target)
        try:
            event = make(ground.target)
            with self._guard.around(event):
                return DisruptionRun(ground, self.target, event).disruption_result()
        finally:
            ground.close()

    def _ground(self, target: NamespaceTarget) -> HostUnderTest:
        assert target.agent is not None, "checks that need the agent are left out when it cannot be entered"
        own, tokens = target is not self.target, TokenSpace()
        try:
            watch = Watch(target.host, self.target.resolved.watchable, tokens)
        except BaseException:
            if own:
                target.close()
            raise
        return HostUnderTest(target, target.agent, tokens, watch, own)


@dataclass(frozen=True, slots=True)
class _Reboot:
    """The host comes up from its files alone: it has happened when its trial begins."""

    name: str = "reboot"
    title: str = "a reboot, replayed from the host's files alone"
    touches: Sequence[str] = ()

    def apply(self, stage: EventContext) -> None:
        """Nothing is left to do."""
