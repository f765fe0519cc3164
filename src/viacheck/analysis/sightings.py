"""Reads packet evidence: by which interfaces probes left, where answers came in, and where absence is proven.

Everything works on the plain evidence of result.json, so that a saved run can be judged again.
"""

from __future__ import annotations

from collections.abc import Iterable

from viacheck.model.result import PacketsEvidence, PacketSighting, WatchedInterface


def departures(packets: PacketsEvidence, interface: str | None = None) -> list[PacketSighting]:
    """The probes seen leaving, in order of time; of one interface or of all."""
    return [
        sighting
        for sighting in packets.sightings
        if sighting.direction == "out"
        and sighting.role == "probe"
        and (interface is None or sighting.interface == interface)
    ]


def left_by(packets: PacketsEvidence, egress_interfaces: Iterable[str]) -> dict[str, set[int]]:
    """The numbers of the probes that left, by way out. Ways by which none left are not named."""
    found: dict[str, set[int]] = {}
    for way in egress_interfaces:
        numbers = {sighting.probe for sighting in departures(packets, way)}
        if numbers:
            found[way] = numbers
    return found


def answers_seen(packets: PacketsEvidence, interface: str) -> set[int]:
    """The numbers of the probes whose answer came in on an interface."""
    return {
        sighting.probe
        for sighting in packets.sightings
        if sighting.interface == interface and sighting.direction == "in" and sighting.role == "answer"
    }


def errors_seen(packets: PacketsEvidence) -> list[PacketSighting]:
    """ICMP errors that quote one of the probes."""
    return [sighting for sighting in packets.sightings if sighting.role == "error"]


def sound(watched: WatchedInterface) -> bool:
    """Whether not having seen a packet on this interface proves that none was there."""
    return watched.state != "up" or (watched.fence_seen and watched.frames_lost == 0)


def unsound(packets: PacketsEvidence, interfaces: Iterable[str]) -> list[str]:
    """Why absence is not proven on some of these interfaces: one phrase each; empty when it is proven on all."""
    watched = {one.interface: one for one in packets.watched}
    reasons = []
    for name in interfaces:
        one = watched.get(name)
        if one is None:
            reasons.append(f"{name} was not watched")
        elif not sound(one):
            what = f"{one.frames_lost} frames were lost" if one.frames_lost else "the fence frame was not seen"
            reasons.append(f"{name}: {what}")
    return reasons


def frames_lost(packets: PacketsEvidence) -> int:
    """How many frames the captures lost, over all interfaces."""
    return sum(one.frames_lost for one in packets.watched)


def in_words(left: dict[str, set[int]], sent: int) -> str:
    """Where probes left, as a phrase: ``3 of 3 by eth0, 1 of 3 by wlan0``, or ``none left``."""
    if not left:
        return f"none of {sent} left by any interface"
    return ", ".join(f"{len(numbers)} of {sent} left by {way}" for way, numbers in left.items())
