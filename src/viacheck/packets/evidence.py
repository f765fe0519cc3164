"""Plain evidence of a verdict from sent probes and captured frames, with times since the first probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import TypeAdapter

from viacheck.analysis.link_layers import LinkLayers
from viacheck.analysis.loss import latency_figures, loss_figure
from viacheck.model.check_evidence import PacketsEvidence, PacketSighting, WatchedInterface
from viacheck.packets.observation import Frame, Observation
from viacheck.packets.probes import Exchange

_WATCHED, _SIGHTINGS = TypeAdapter(list[WatchedInterface]), TypeAdapter(list[PacketSighting])
"""They validate all at once: in a call for each, the models take several times as long."""


def numbers_of(exchanges: Iterable[Exchange]) -> dict[int, int]:
    """Return the number of each probe within its check, from 1, by its token's number within the run."""
    tokens = (probe.token.number for exchange in exchanges for probe in exchange.probes)
    return {number: place for place, number in enumerate(tokens, start=1)}


def packets_evidence(
    exchanges: Iterable[Exchange],
    observation: Observation,
    *,
    title: str = "",
    capture: str | None = None,
    layers: LinkLayers | None = None,
) -> PacketsEvidence:
    """Return where the probes of these exchanges, their answers and errors were seen, and how sound the watching was.

    ``capture`` names the pcapng file below the report directory, ``layers`` say which interfaces show the same frame.
    Frames of other exchanges are left out.
    """
    exchanges, layers = list(exchanges), layers or LinkLayers()
    numbers = numbers_of(exchanges)
    first_ns = min((probe.time_ns for exchange in exchanges for probe in exchange.probes), default=0)
    frames = [
        (frame, numbers[token.number])
        for frame in observation.frames
        if (token := frame.classified.token) is not None and token.number in numbers
    ]
    counts = Counter(frame.interface for frame, _probe in frames)
    sent = sum(exchange.sent - len(exchange.refused) for exchange in exchanges)
    missing = sum(exchange.missing for exchange in exchanges)
    measurable = missing > 0 and not any(exchange.rate_limited for exchange in exchanges)
    return PacketsEvidence(
        title=title,
        sent=sum(exchange.sent for exchange in exchanges),
        answered=sum(exchange.answered for exchange in exchanges),
        refused=[name for exchange in exchanges for name in exchange.refused],
        watched=_WATCHED.validate_python(
            [
                {
                    **vars(watched),
                    "frames": counts[watched.interface],
                    "counts_for": layers.counts_for.get(watched.interface),
                }
                for watched in observation.watched
            ]
        ),
        sightings=layers.mark(
            _SIGHTINGS.validate_python([_sighting(frame, probe, first_ns) for frame, probe in frames])
        ),
        capture=capture,
        loss=loss_figure(missing, sent) if measurable else None,
        latency=latency_figures([seconds for exchange in exchanges for seconds in exchange.round_trips]),
    )


def _sighting(frame: Frame, probe: int, first_ns: int) -> dict[str, object]:
    """Return the fields of a sighting of one probe, with its time since the first."""
    received, classified = frame.received, frame.classified
    return {
        "time": (received.time_ns - first_ns) / 1e9,
        "interface": frame.interface,
        "direction": frame.direction,
        "probe": probe,
        "role": classified.role,
        "protocol": classified.protocol,
        "source": classified.source,
        "destination": classified.destination,
        "source_mac": frame.source_mac,
        "destination_mac": frame.destination_mac,
        "length": received.length,
        "note": classified.note,
        "mtu": classified.mtu,
    }
