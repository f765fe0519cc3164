"""Which way each class of the agent's traffic takes now: the kernel's own answer, after every change that it announces.

Where several changes wait, those before the last one are replayed on the model: the kernel can only be asked about the
present. Where the model and the kernel disagree about the present, the kernel is right and the state is read again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from viacheck.flight_recorder.routing_replay import MOST_ROUTES, RoutingReplay
from viacheck.flight_recorder.watch_plan import Place, RoutingStage, WatchedClass, WatchPlan
from viacheck.host.namespace import Namespace
from viacheck.host.snapshot_reader import network_state
from viacheck.model.namespace_state import NetworkState
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.codec import MalformedMessage, NetlinkMessage
from viacheck.netlink.event_listener import EventListener, ReceivedEvents
from viacheck.netlink.monitor import CHANGES, change_text
from viacheck.netlink.route_question import RouteQuestion, ask_route
from viacheck.netlink.rtnetlink import IFF_LOWER_UP, IFF_UP, LinkChange, RouteSocket, RtnetlinkMessage

READ_AGAIN_AFTER = 5.0
"""Seconds from one reading of the whole state to the next, however often announcements are lost."""


@dataclass(frozen=True, slots=True)
class WrongWay:
    """Where a class of traffic goes instead of where it must."""

    interface: str | None
    """None where it goes nowhere."""
    text: str


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """A change that the kernel announced, or the loss of some."""

    time_ns: int
    place: Place
    text: str
    moves: bool
    """It may have changed the way of a class."""
    link_gone: str | None = None
    """The interface that was deleted, if one was."""
    new_link: str | None = None
    """The interface that was not there before, if one appeared."""
    lost: bool = False


@dataclass(frozen=True, slots=True)
class WaysAt:
    """The classes that go a wrong way, by their number, from a moment on."""

    time_ns: int
    wrong: Mapping[int, WrongWay]


@dataclass
class _Routing:
    """The routing of one namespace."""

    namespace: Namespace
    state: NetworkState
    listener: EventListener
    netlink: RouteSocket
    names: dict[int, str]
    running: dict[str, bool]
    links: dict[str, str] = field(default_factory=dict)
    """The text of the latest announcement about each link: drivers repeat it without a change."""
    replay: RoutingReplay | None = None

    def close(self) -> None:
        self.listener.close()
        self.netlink.close()


class EgressWays:
    """Follows the ways of all classes. Announcements are received from the moment that it is made."""

    def __init__(self, plan: WatchPlan, namespaces: Mapping[Place, Namespace]) -> None:
        """Listen in each namespace, then read its state.

        Raises:
            OSError: with the kernel's errno.
        """
        self._plan = plan
        self._read_at = time.monotonic()
        self._again = False
        self._routings: dict[Place, _Routing] = {}
        with contextlib.ExitStack() as opened:
            listeners = {place: EventListener(namespace) for place, namespace in namespaces.items()}
            for listener in listeners.values():
                opened.callback(listener.close)
                listener.start()
            self.listening_ns = time.time_ns()
            """Since the epoch, when announcements began to be received."""
            for place, namespace in namespaces.items():
                listener = listeners[place]
                netlink = namespace.call(RouteSocket)
                opened.callback(netlink.close)
                state = network_state(namespace)[0]
                self._routings[place] = _Routing(
                    namespace, state, listener, netlink,
                    names={link.index: link.name for link in state.links},
                    running={link.name: link.carrier for link in state.links},
                )  # fmt: skip
            opened.pop_all()
        self._ran = dict(self._routings["host"].running)
        for place, routing in self._routings.items():
            routing.replay = self._replay(place, routing.state)
        # A class for which the model does not see what the kernel does is not replayed.
        kernel, model = self.now(), self._modelled()
        self._replayed = {
            each.number for each in plan.classes if _end(kernel.get(each.number)) == _end(model.get(each.number))
        }
        self._current = kernel

    @property
    def descriptors(self) -> list[int]:
        """Descriptors that are readable while announcements wait, for poll(2)."""
        return [routing.listener.fileno() for routing in self._routings.values()]

    @property
    def names(self) -> frozenset[str]:
        """The host's present interfaces."""
        return frozenset(self._routings["host"].names.values())

    @property
    def not_replayed(self) -> list[str]:
        """The classes whose changes are seen by the kernel's answers alone."""
        return [each.text for each in self._plan.classes if each.number not in self._replayed]

    def now(self) -> dict[int, WrongWay]:
        """Ask the kernel for the present way of every class; return those that are wrong."""
        return {each.number: wrong for each in self._plan.classes if (wrong := self._asked(each)) is not None}

    def take(self) -> list[KernelEvent | WaysAt]:
        """Return what was announced since the last call, in order, with the ways after it."""
        received = [(events, place) for place, routing in self._routings.items() for events in routing.listener.take()]
        received.sort(key=lambda pair: pair[0].time_ns)
        steps: list[KernelEvent | WaysAt] = []
        for events, place in received:
            steps += self._steps(events, place)
        lost = any(isinstance(step, KernelEvent) and step.lost for step in steps)
        moving = [number for number, step in enumerate(steps) if isinstance(step, KernelEvent) and step.moves]
        if not moving and not (lost or self._again):
            return [step for step in steps if not isinstance(step, WaysAt)]
        if lost or self._again:
            self._read_again()
        wrong = self._current = self.now()
        if not lost and not self._again and self._differs(wrong):
            self._read_again()
        last = max((step.time_ns for step in steps), default=time.time_ns())
        # What the model said after the last change that matters is what the kernel says now.
        final = WaysAt(steps[moving[-1]].time_ns if moving and not lost else last, wrong)
        if moving:
            steps = [step for number, step in enumerate(steps) if number <= moving[-1] or isinstance(step, KernelEvent)]
            place_of_final = moving[-1] + 1
            return [*steps[:place_of_final], final, *steps[place_of_final:]]
        return [*steps, final]

    def _steps(self, events: ReceivedEvents, place: Place) -> Iterator[KernelEvent | WaysAt]:
        """Yield one datagram's changes, each followed by the ways that the model sees after it."""
        routing = self._routings[place]
        if events.datagram is None:
            text = "announcements were lost: the kernel had more to report than the socket could hold (ENOBUFS)"
            yield KernelEvent(events.time_ns, place, text, moves=False, lost=True)
            return
        try:
            messages = [message for message in codec.decode_messages(events.datagram) if message.type in CHANGES]
            for message in messages:
                event = self._event(events.time_ns, place, routing, message)
                if event is not None:
                    yield event
                    if event.moves:
                        others = {n: way for n, way in self._current.items() if n not in self._replayed}
                        yield WaysAt(events.time_ns, {**others, **self._modelled(self._replayed)})
        except MalformedMessage as error:
            yield KernelEvent(events.time_ns, place, f"an announcement could not be read: {error}", False, lost=True)

    def _event(self, time_ns: int, place: Place, routing: _Routing, message: NetlinkMessage) -> KernelEvent | None:
        decoded = RtnetlinkMessage.decode(message.type, message.payload)
        known = set(routing.names)
        text = change_text(decoded, routing.names)
        gone = new = None
        moves = routing.replay.apply(message, decoded, routing.names) if routing.replay is not None else True
        if message.type in (rtnetlink.RTM_NEWLINK, rtnetlink.RTM_DELLINK):
            change = LinkChange.of(decoded)
            name = change.name or routing.names.get(change.index, "")
            running = not change.gone and bool(change.flags & IFF_UP and change.flags & IFF_LOWER_UP)
            moves = moves or routing.running.get(name) != running
            routing.running[name] = running
            if change.gone:
                gone = name
                routing.names.pop(change.index, None)
                routing.links.pop(name, None)
            elif change.index not in known:
                new = name
            if text is not None and not change.gone:
                if routing.links.get(name) == text and not moves:
                    return None
                routing.links[name] = text
        return None if text is None else KernelEvent(time_ns, place, text, moves, gone, new)

    def _asked(self, each: WatchedClass) -> WrongWay | None:
        """Return where the kernel sends a class, if that is not where it must go."""
        for stage in each.stages:
            routing = self._routings.get(stage.place)
            if routing is None:
                continue
            question = _question(stage, routing.names)
            if question is None:
                return WrongWay(None, f"{stage.packet.iif} does not exist")
            reply = ask_route(routing.netlink, question, routing.names)
            if reply.interface != stage.interface:
                return self._wrong(stage, reply.interface, reply.text)
        return self._not_running(each)

    def _modelled(self, only: set[int] | None = None) -> dict[int, WrongWay]:
        """Return where the model sends the classes that go wrong, as of the latest announcement."""
        wrong: dict[int, WrongWay] = {}
        for each in self._plan.classes:
            if only is not None and each.number not in only:
                continue
            way = self._modelled_way(each)
            if way is not None:
                wrong[each.number] = way
        return wrong

    def _modelled_way(self, each: WatchedClass) -> WrongWay | None:
        for stage in each.stages:
            routing = self._routings.get(stage.place)
            if routing is None or routing.replay is None:
                continue
            way = routing.replay.decide(stage.packet)
            if way.interface != stage.interface:
                return self._wrong(stage, way.interface, way.text)
        return self._not_running(each)

    def _wrong(self, stage: RoutingStage, interface: str | None, text: str) -> WrongWay:
        if stage.place == "host":
            return WrongWay(interface, text)
        return WrongWay(f"{interface} in the agent's namespace" if interface is not None else None, f"agent: {text}")

    def _not_running(self, each: WatchedClass) -> WrongWay | None:
        """Return the way by an uplink that is down or lost its carrier since the watch began."""
        running = self._routings["host"].running
        if self._ran.get(each.uplink) and not running.get(each.uplink):
            return WrongWay(None, f"{each.uplink} is down, or has no carrier")
        return None

    def _differs(self, kernel: Mapping[int, WrongWay]) -> bool:
        model = self._modelled(self._replayed)
        return any(_end(kernel.get(number)) != _end(model.get(number)) for number in self._replayed)

    def _read_again(self) -> None:
        """Read the whole state, at once or soon; a state that cannot be read is read at the next occasion."""
        if time.monotonic() - self._read_at < READ_AGAIN_AFTER:
            self._again = True
            return
        self._read_at, self._again = time.monotonic(), False
        for place, routing in self._routings.items():
            state = network_state(routing.namespace)[0]
            routing.state = state
            routing.names = {link.index: link.name for link in state.links}
            routing.running = {link.name: link.carrier for link in state.links}
            routing.links.clear()
            routing.replay = self._replay(place, state)

    @property
    def reads_again(self) -> bool:
        """Whether the state must still be read again: call :meth:`take` soon."""
        return self._again

    def _replay(self, place: Place, state: NetworkState) -> RoutingReplay | None:
        packets = [stage.packet for each in self._plan.classes for stage in each.stages if stage.place == place]
        return RoutingReplay(state, packets) if len(state.routes) <= MOST_ROUTES else None

    def close(self) -> None:
        """Stop listening."""
        for routing in self._routings.values():
            routing.close()


def _question(stage: RoutingStage, names: Mapping[int, str]) -> RouteQuestion | None:
    """Return the question for the kernel; None while the interface that the packet arrives on does not exist."""
    packet, iif = stage.packet, None
    if packet.iif is not None:
        iif = next((index for index, name in names.items() if name == packet.iif), None)
        if iif is None:
            return None
    return RouteQuestion(
        destination=packet.destination, source=packet.source, iif=iif, mark=packet.mark,
        protocol=packet.protocol, dport=packet.dport, uid=packet.uid,
    )  # fmt: skip


def _end(way: WrongWay | None) -> str | None:
    """Return what two ways must share to be the same: the interface, or the lack of an interface."""
    return None if way is None else way.interface or ""


def same_ways(ways: Mapping[int, WrongWay], others: Mapping[int, WrongWay]) -> bool:
    """Return whether the same classes go wrong by the same interfaces."""
    return {number: _end(way) for number, way in ways.items()} == {number: _end(way) for number, way in others.items()}


def interfaces_of(ways: Sequence[WrongWay]) -> list[str]:
    """Return the interfaces of some ways, each once."""
    return sorted({way.interface for way in ways if way.interface is not None})
