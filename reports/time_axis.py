"""An axis of time whose calm stretches are drawn short: milliseconds stay legible beside a minute of waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

CALM = 0.25
"""Seconds from which on a stretch without a turn may be drawn short."""
_MARGIN = 0.03
"""Seconds before and after a turn that are drawn at length in any case."""
CALM_WIDTH = 56.0
"""Units of the drawing that a calm stretch takes at most."""
_CALM_SHARE = 0.4
"""Of the width, for all calm stretches together."""
_CALM_MOST = 8
_LEAST = 12.0
"""Units that a part between two calm stretches takes at least, however short."""
_TICK_ROOM = 46.0
_SHORTEST = 0.01
"""Seconds that an axis covers at least."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the axis: seconds on the one hand, units of the drawing on the other."""

    begin: float
    end: float
    left: float
    right: float
    calm: bool

    def place(self, time: float) -> float:
        """Where a moment of this span is."""
        return self.left + (self.right - self.left) * (time - self.begin) / (self.end - self.begin)


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Spans from left to right, without a gap."""

    spans: Sequence[Span]

    def place(self, time: float) -> float:
        """Where a moment is, in units of the drawing; what is outside of the axis is at its end."""
        span = next((span for span in self.spans if time <= span.end), self.spans[-1])
        return span.place(min(max(time, span.begin), span.end))

    @property
    def calm(self) -> list[Span]:
        """The spans that are drawn short."""
        return [span for span in self.spans if span.calm]

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Moments of the spans drawn at length: where they are, and how many milliseconds they are from 0."""
        last = float("-inf")
        for span in self.spans:
            if span.calm:
                continue
            step = _step((span.end - span.begin) * 1000 / (span.right - span.left) * _TICK_ROOM)
            first, after = -int(-span.begin * 1000 // step), int(span.end * 1000 // step) + 1
            round_ones = [(number * step / 1000, f"{number * step:,.10g}") for number in range(first, after)]
            # Too short for a round moment: its end says where it is.
            for time, words in round_ones or [(span.end, f"{span.end * 1000:,.0f}")]:
                place = span.place(time)
                if place - last >= _TICK_ROOM:
                    last = place
                    yield place, words


def time_axis(turns: Iterable[float], left: float, width: float) -> TimeAxis:
    """Lay out an axis over all moments at which something changes.

    Args:
        turns: seconds; at least one.
        left: where the axis begins, in units of the drawing.
        width: how long it is.
    """
    moments = sorted(set(turns))
    if moments[-1] - moments[0] < _SHORTEST:
        moments = [moments[0] - _SHORTEST / 2, *moments, moments[-1] + _SHORTEST / 2]
    calm = _calm(moments, width)
    narrow = min(CALM_WIDTH, _CALM_SHARE * width / len(calm)) if calm else 0.0
    bounds = sorted({moments[0], moments[-1], *(moment for stretch in calm for moment in stretch)})
    parts = list(pairwise(bounds))
    long = [part for part in parts if part not in calm]
    shared = width - narrow * len(calm) - _LEAST * len(long)
    seconds = sum(end - begin for begin, end in long)
    spans = []
    for begin, end in parts:
        short = (begin, end) in calm
        wide = narrow if short else _LEAST + shared * (end - begin) / seconds
        spans.append(Span(begin, end, left, left + wide, short))
        left += wide
    return TimeAxis(spans)


def _calm(moments: Sequence[float], width: float) -> set[tuple[float, float]]:
    """The stretches without a turn that would take much more room at length than they are worth, the longest first."""
    quiet = [(begin + _MARGIN, end - _MARGIN) for begin, end in pairwise(moments)]
    calm: set[tuple[float, float]] = set()
    left = moments[-1] - moments[0]
    for begin, end in sorted(quiet, key=lambda stretch: stretch[0] - stretch[1])[:_CALM_MOST]:
        if end - begin < CALM or (end - begin) / left * (1 - _CALM_SHARE) * width < 2 * CALM_WIDTH:
            break
        calm.add((begin, end))
        left -= end - begin
    return calm


def _step(least: float) -> float:
    """The first of 1, 2, 5, 10, 20, 50 … that is not less."""
    power = 0.1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= least:
                return digit * power
        power *= 10
