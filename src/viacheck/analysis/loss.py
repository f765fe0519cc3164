"""Loss and latency of an exchange: figures with their uncertainty, and the text about them.

A few missing answers prove little: the interval of Wilson's score says which rates of loss fit the probes (Wilson,
Probable Inference, 1927).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from viacheck.model.check_evidence import LatencyFigures, LossFigure, LossVerdict, PacketsEvidence

_Z = 1.959964
"""The normal distribution's quantile for a two-sided interval of 95 %."""


def loss_figure(lost: int, sent: int) -> LossFigure:
    """Return the rate of loss with its 95 % interval; ``sent`` is at least 1."""
    rate, weight = lost / sent, _Z**2 / sent
    centre = (rate + weight / 2) / (1 + weight)
    margin = _Z / (1 + weight) * math.sqrt(rate * (1 - rate) / sent + weight / (4 * sent))
    low = 0.0 if lost == 0 else max(centre - margin, 0.0)
    high = 1.0 if lost == sent else min(centre + margin, 1.0)
    return LossFigure(lost=lost, sent=sent, low=low, high=high)


def latency_figures(seconds: Sequence[float]) -> LatencyFigures | None:
    """Return the median and the 95th percentile of round trips; None without any."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return LatencyFigures(median=_quantile(ordered, 0.5), p95=_quantile(ordered, 0.95))


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def loss_verdict(packets: PacketsEvidence, allowed: float) -> LossVerdict:
    """Return how the loss of these probes compares with the share that is allowed (0 to 1)."""
    loss = packets.loss
    if loss is None or loss.rate <= allowed:
        return LossVerdict.ALLOWED
    return LossVerdict.TOO_MUCH if loss.low > allowed else LossVerdict.UNDECIDED


def answers_text(packets: PacketsEvidence) -> list[str]:
    """Return the figures of the answers as texts: the loss where a part is missing, and the round trips."""
    figures = [loss_text(packets.loss)] if packets.loss is not None and packets.answered else []
    return figures + ([latency_text(packets.latency)] if packets.latency is not None else [])


def loss_text(loss: LossFigure) -> str:
    """Return the figure as text: ``17 of 50 lost: 34 % (95 % interval: 22.4 to 47.8 %)``."""
    interval = f"{loss.low * 100:.3g} to {loss.high * 100:.3g} %"
    return f"{loss.lost} of {loss.sent} lost: {loss.rate * 100:.3g} % (95 % interval: {interval})"


def latency_text(latency: LatencyFigures) -> str:
    """Return the round trips as text: ``round trip: median 12.1 ms, 95th percentile 18.4 ms``."""
    return f"round trip: median {latency.median * 1e3:.3g} ms, 95th percentile {latency.p95 * 1e3:.3g} ms"
