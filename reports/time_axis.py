"""A time axis that compresses calm stretches: milliseconds stay legible beside a minute of waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

CALM = 0.25
"""Seconds: a stretch without changes that is at least so long may be compressed."""
_MARGIN = 0.03
"""Seconds before and after a change that are never compressed."""
CALM_WIDTH = 56.0
"""Units of the drawing that a calm stretch takes at most."""
_CALM_SHARE = 0.4
"""Of the width, for all calm stretches together."""
_CALM_MOST = 8
_LEAST = 12.0
"""Units of the drawing that a part between two calm stretches takes at least."""
_TICK_ROOM = 46.0
_SHORTEST = 0.01
"""Seconds that an axis covers at least."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the axis: its bounds in seconds and in units of the drawing."""

    begin: float
    end: float
    left: float
    right: float
    calm: bool

    def place(self, time: float) -> float:
        """Return where a moment of this span is drawn."""
        return self.left + (self.right - self.left) * (time - self.begin) / (self.end - self.begin)


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Spans from left to right, without a gap."""

    spans: Sequence[Span]

    def place(self, time: float) -> float:
        """Return where a moment is drawn, in units of the drawing; moments outside the axis are at its end."""
        span = next((span for span in self.spans if time <= span.end), self.spans[-1])
        return span.place(min(max(time, span.begin), span.end))

    @property
    def calm(self) -> list[Span]:
        """The compressed spans."""
        return [span for span in self.spans if span.calm]

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Yield ticks of the uncompressed spans: where they are, and their time in milliseconds."""
        last = float("-inf")
        for span in self.spans:
            if span.calm:
                continue
            step = _step((span.end - span.begin) * 1000 / (span.right - span.left) * _TICK_ROOM)
            first, after = -int(-span.begin * 1000 // step), int(span.end * 1000 // step) + 1
            round_moments = [(number * step / 1000, f"{number * step:,.10g}") for number in range(first, after)]
            # A span too short for a round moment has a tick at its end.
            for time, text in round_moments or [(span.end, f"{span.end * 1000:,.0f}")]:
                place = span.place(time)
                if place - last >= _TICK_ROOM:
                    last = place
                    yield place, text


def time_axis(changes: Iterable[float], left: float, width: float) -> TimeAxis:
    """Lay out an axis over all moments at which something changes.

    Args:
        changes: seconds; at least one moment.
        left: where the axis begins, in units of the drawing.
        width: how long it is.
    """
    moments = sorted(set(changes))
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
    """Return the stretches without changes that would take too much room, the longest first."""
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
    """Return the smallest of 1, 2, 5, 10, 20, 50 … that is at least ``least``."""
    power = 0.1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= least:
                return digit * power
        power *= 10
