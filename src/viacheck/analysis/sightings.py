"""Packet evidence, read: the interfaces that probes left by, where answers came in, and where absence is proven.

The functions read the plain evidence of result.json, so that a saved run can be judged again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from viacheck.model.check_evidence import PacketsEvidence, PacketSighting, WatchedInterface


def departures(packets: PacketsEvidence, interface: str | None = None) -> list[PacketSighting]:
    """Return the probes seen leaving, in order of time, by one interface or by all.

    A frame that an interface and its parent show is one departure: by the interface on top.
    """
    return [
        sighting
        for sighting in packets.sightings
        if sighting.direction == "out"
        and sighting.role == "probe"
        and sighting.same_frame_on is None
        and (interface is None or sighting.path_interface == interface)
    ]


def left_by(packets: PacketsEvidence, egress_interfaces: Iterable[str]) -> dict[str, set[int]]:
    """Return the numbers of the probes that left, by egress interface. Interfaces without any probe are left out."""
    numbers = {
        interface: {sighting.probe for sighting in departures(packets, interface)} for interface in egress_interfaces
    }
    return {interface: probes for interface, probes in numbers.items() if probes}


def answers_seen(packets: PacketsEvidence, interface: str) -> set[int]:
    """Return the numbers of the probes whose answer came in on an interface."""
    return {
        sighting.probe
        for sighting in packets.sightings
        if sighting.path_interface == interface and sighting.direction == "in" and sighting.role == "answer"
    }


def answers_by_other_interface(packets: PacketsEvidence, interface: str) -> dict[str, set[int]]:
    """Return the probes that left by an interface, with their answer on another one, by the answer's interface."""
    elsewhere: dict[str, set[int]] = {}
    for sighting in packets.sightings:
        arrives = sighting.direction == "in" and sighting.role == "answer" and sighting.same_frame_on is None
        if arrives and sighting.path_interface != interface:
            elsewhere.setdefault(sighting.path_interface, set()).add(sighting.probe)
    astray = {probe.probe for probe in departures(packets, interface)} - answers_seen(packets, interface)
    return {name: probes & astray for name, probes in elsewhere.items() if probes & astray}


def answers_astray(packets: PacketsEvidence, egress_interfaces: Sequence[str]) -> dict[tuple[str, str], set[int]]:
    """Return the probes whose answer came in on no interface by which they left, by (left, came in).

    A copied packet leaves by two interfaces: an answer on one of them is no answer astray.
    """
    left = left_by(packets, egress_interfaces)
    astray = {
        (interface, name): probes - left.get(name, set())
        for interface in left
        for name, probes in answers_by_other_interface(packets, interface).items()
        if name in egress_interfaces
    }
    return {way: probes for way, probes in astray.items() if probes}


def errors_seen(packets: PacketsEvidence) -> list[PacketSighting]:
    """Return the ICMP errors that quote one of the probes."""
    return [sighting for sighting in packets.sightings if sighting.role == "error"]


def sound(watched: WatchedInterface) -> bool:
    """Return whether an unseen packet proves that no such packet passed this interface."""
    return watched.state != "up" or (watched.fence_seen and watched.frames_lost == 0)


def unsound(packets: PacketsEvidence, interfaces: Iterable[str]) -> list[str]:
    """Return why absence is not proven on some of these interfaces, one phrase each; empty when it is proven on all."""
    watched: dict[str, list[WatchedInterface]] = {}
    for interface in packets.watched:
        watched.setdefault(interface.counts_for or interface.interface, []).append(interface)
    reasons = []
    for name in interfaces:
        if name not in watched:
            reasons.append(f"{name} was not watched")
        for interface in watched.get(name, ()):
            if not sound(interface):
                lost = f"{interface.frames_lost} frames were lost" if interface.frames_lost else None
                reason = lost or interface.unproven or "the fence frame was not seen"
                reasons.append(f"{interface.interface}: {reason}")
    return reasons


def frames_lost(packets: PacketsEvidence) -> int:
    """Return how many frames the captures lost, over all interfaces."""
    return sum(interface.frames_lost for interface in packets.watched)


def departures_text(left: Mapping[str, set[int]], sent: int) -> str:
    """Return where probes left as text: ``3 of 3 left by eth0, 1 of 3 left by wlan0``."""
    if not left:
        return f"none of {sent} left by any interface"
    return ", ".join(f"{len(numbers)} of {sent} left by {interface}" for interface, numbers in left.items())
