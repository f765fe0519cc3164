"""Where the probes of a run left the host: the frames of a watch, by the number of the probe.

A frame that an interface and the interface below it both show (VLAN, macvlan, bridge port) leaves once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from viacheck.analysis.link_layers import LinkLayers
from viacheck.model.measurements import Departure
from viacheck.packets.observation import Frame


class DepartureLog:
    """The departures so far."""

    def __init__(self, egress_interfaces: Sequence[str], layers: LinkLayers) -> None:
        """Begin empty.

        Args:
            egress_interfaces: those that a probe leaves the host by; other watched interfaces do not count.
            layers: how the host's interfaces stand on each other.
        """
        self._egress_interfaces, self._layers = frozenset(egress_interfaces), layers
        self._seen: dict[int, list[tuple[int, str, str]]] = {}

    def note(self, frames: Iterable[Frame]) -> None:
        """Add the probes among some frames that leave the host."""
        for frame in frames:
            if frame.role != "probe" or frame.direction != "out":
                continue
            interface, number = self._layers.counts_for.get(frame.interface, frame.interface), frame.number
            if number is not None and interface in self._egress_interfaces:
                self._seen.setdefault(number, []).append((frame.time_ns, interface, frame.source))

    def __contains__(self, number: int) -> bool:
        return number in self._seen

    def of(self, number: int, begin_ns: int) -> list[Departure]:
        """Return the departures of one probe; their times count from ``begin_ns``, since the epoch, in seconds."""
        seen = self._seen.get(number, ())
        by_source = {(interface, source) for _time_ns, interface, source in seen}
        return [
            Departure((time_ns - begin_ns) / 1e9, interface, source)
            for time_ns, interface, source in seen
            if not any((upper, source) in by_source for upper in self._layers.above.get(interface, ()))
        ]

    def clear(self) -> None:
        """Forget all departures."""
        self._seen.clear()
