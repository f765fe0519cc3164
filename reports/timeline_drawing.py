"""The timeline of an event as inline SVG: a lane for each interface, a mark for each probe, a line for each step.

The shape of a mark shows the result of the probe as well as its colour does. All marks of one shape in one row are one
path, because a page holds many timelines. A mark that would cover its neighbour of the same result is not drawn.
There are two drawings: a wide one, and one that fits a phone; the style sheet shows one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from reports.text import clip, escape_unprintable
from reports.time_axis import TimeAxis, time_axis
from reports.timeline import PROBE_OUTCOMES, Kind, Lane, Stretch, Timeline


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where labels, marks and counts are, in units of the drawing."""

    shape: str
    """The class of the drawing."""
    left: float
    plot: float
    right: float
    stacked: bool = False
    """A label and its counts are above the marks, and a step's line has the number of the step only."""

    @property
    def width(self) -> float:
        return self.left + self.plot + self.right


_WIDE, _NARROW = _Layout("wide", 122, 640, 150), _Layout("narrow", 8, 290, 8, stacked=True)
_ROW, _HEAD, _LABEL, _GAP, _LEVEL = 17.0, 19.0, 15.0, 5.0, 15.0
_NAME = 182
"""Width of an interface's name."""
_LEVELS = 8
"""Rows for the names of steps; a step that would need a further row has a line without a name."""
_LETTER = 6.2
"""Width of a letter, in units of the drawing: longer texts are clipped, or squeezed to fit."""
_PITCH = 4.5
"""Units between two marks of one stretch, and a third of it between the ends of two."""
_OF_THE_HOST: Sequence[tuple[Kind, str]] = (("state", "rules, routes"), ("netlink", "netlink"))

SHAPES: Mapping[Kind, str] = {
    "event": "m0-6v12",
    "state": "m-2.5-2.5h5v5h-5z",
    "netlink": "m0-4v8",
    "probe": "h0",
    "late": "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
    "lost": "m-3-3l6 6m0-6l-6 6",
    "wrong-source": "m0-4l4 4-4 4-4-4z",
    "leak": "m0-4.5l4.5 8h-9z",
}
"""The marks, each drawn from its middle; a dot is a line without length and with round ends."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing, and the facts that its legend needs."""

    svg: Markup
    narrow: Markup
    """The drawing that fits a phone."""
    marks: int
    """Marks of probes in the wide drawing; each also stands for those that it would cover."""
    shortened: bool
    """Stretches of time in which nothing changes are compressed."""


@dataclass(slots=True)
class _Sheet:
    """The drawing as it grows downward: rows of marks, and the lanes behind them."""

    layout: _Layout
    axis: TimeAxis
    y: float
    lanes: list[Markup] = field(default_factory=list)
    rows: list[Markup] = field(default_factory=list)
    marks: int = 0

    def row(self, label: str, stretches: Sequence[Stretch], counts: str = "") -> None:
        layout = self.layout
        if layout.stacked:
            text = f"{label}: {counts}" if counts else label
            self.rows.append(_text("count" if counts else "label", layout.left, self.y + 12, text, layout.plot))
            self.y += _LABEL
        middle = self.y + _ROW / 2
        self.rows.append(_path("base", f"M{layout.left:g} {middle:g}h{layout.plot:g}"))
        if not layout.stacked:
            self.rows.append(_text("label", 10, middle + 4, label, layout.left - 20))
        for kind in dict.fromkeys(stretch.kind for stretch in stretches):
            places = list(_places([stretch for stretch in stretches if stretch.kind == kind], self.axis))
            self.marks += len(places) if kind in PROBE_OUTCOMES else 0
            self.rows.append(_path(f"at {kind}", "".join(f"M{x:.4g} {middle:g}{SHAPES[kind]}" for x in places)))
        if counts and not layout.stacked:
            self.rows.append(self._count(middle + 4, counts))
        self.y += _ROW

    def _count(self, y: float, text: str) -> Markup:
        layout = self.layout
        return _text("count", layout.left + layout.plot + 12, y, text, layout.right - 20)

    def lane(self, lane: Lane) -> None:
        top = self.y
        self.rows.append(_text("name", 10, top + 14, lane.name, _NAME))
        after = min(len(escape_unprintable(lane.name)) * 8.5, _NAME) + 16
        if lane.intended:
            self.rows.append(_text("label", after, top + 14, "intended", 110))
        if not lane.rows and self.layout.stacked:
            self.rows.append(_text("count", after, top + 14, lane.empty, 130))
        elif not lane.rows:
            self.rows.append(self._count(top + 14, lane.empty))
        self.y += _HEAD
        for row in lane.rows:
            self.row(row.label, row.stretches, row.counts)
        self.y += 3 if lane.rows else 0
        self.lanes.append(
            Markup('<rect class="lane" x=".5" y="{:g}" width="{:g}" height="{:g}" rx="4"/>').format(
                top, self.layout.width - 1, self.y - top
            )
        )
        self.y += _GAP


def draw_timeline(plan: Timeline, ident: str) -> Drawing | None:
    """Draw a timeline as two ``<svg>``, one of which fits a phone; None where nothing was recorded.

    ``ident`` becomes part of ids, which must be unique on the page.
    """
    if not plan.stretches:
        return None
    wide, marks, shortened = _draw(plan, ident, _WIDE)
    narrow, _, _ = _draw(plan, f"{ident}-n", _NARROW)
    return Drawing(wide, narrow, marks, shortened)


def _draw(plan: Timeline, ident: str, layout: _Layout) -> tuple[Markup, int, bool]:
    """Return a drawing, the number of marks of probes, and whether stretches of time are compressed."""
    moments = (time for stretch in plan.stretches for time in (stretch.times[0], stretch.times[-1]))
    axis = time_axis(moments, layout.left, layout.plot)
    steps = plan.of("event")
    levels = _levels(steps, axis, layout)
    top = 4 + _LEVEL * (1 + max((level for level in levels if level < _LEVELS), default=-1))
    sheet = _Sheet(layout, axis, top)
    for kind, label in _OF_THE_HOST:
        if stretches := plan.of(kind):
            sheet.row(label, stretches)
    sheet.y += _GAP if sheet.y > top else 0
    for lane in plan.lanes:
        sheet.lane(lane)
    below = 34 if axis.calm else 20
    head = Markup(
        '<svg class="flap {shape}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        'aria-labelledby="{ident}-title {ident}-desc"><title id="{ident}-title">{title}</title>'
        '<desc id="{ident}-desc">{description}</desc>'
    ).format(
        shape=layout.shape,
        width=layout.width,
        height=sheet.y + below + (14 if layout.stacked else 0),
        ident=ident,
        title=escape_unprintable(f"Timeline: {plan.title}" if plan.title else "Timeline"),
        description=escape_unprintable(plan.description),
    )
    unit_y = sheet.y + (below + 8 if layout.stacked else 14)
    unit = _text("label", 10, unit_y, "milliseconds", 92)
    behind = [*sheet.lanes, *_times(axis, top, sheet.y), unit, *_steps(steps, levels, axis, top, sheet.y, layout)]
    return Markup("").join([head, *behind, *sheet.rows, Markup("</svg>")]), sheet.marks, bool(axis.calm)


def key(kind: Kind) -> Markup:
    """Draw a single mark for the legend."""
    return Markup(
        '<svg class="key" viewBox="-8 -6 16 12" aria-hidden="true"><path class="at {0}" d="M0 0{1}"/></svg>'
    ).format(kind, SHAPES[kind])


def _levels(steps: Sequence[Stretch], axis: TimeAxis, layout: _Layout) -> list[int]:
    """Return the row of each step's name, so low that its line crosses no name of an earlier step."""
    ends: list[float] = []
    levels = []
    for step in steps:
        x = axis.place(step.times[0])
        level = 1 + max((level for level, end in enumerate(ends) if end > x - 6), default=-1)
        levels.append(level)
        if level < _LEVELS:
            ends[level:] = [x + 4 + _LETTER * len(_named(step, x, layout))]
    return levels


def _named(step: Stretch, x: float, layout: _Layout) -> str:
    if layout.stacked:
        return str(step.step)
    return clip(escape_unprintable(f"{step.step}: {step.what}"), int((layout.width - x - 4) / _LETTER))


def _steps(
    steps: Sequence[Stretch], levels: Sequence[int], axis: TimeAxis, top: float, bottom: float, layout: _Layout
) -> Iterator[Markup]:
    lines, last = "", 0.0
    for step, level in zip(steps, levels, strict=True):
        x = axis.place(step.times[0])
        if level < _LEVELS:
            yield _text("step-name", x + 4, _LEVEL * level + 13, _named(step, x, layout), layout.width - x)
        elif x - last < 1:
            continue
        lines += f"M{x:.4g} {_LEVEL * level + 3 if level < _LEVELS else top:g}V{bottom:g}"
        last = x
    yield _path("step", lines)


def _times(axis: TimeAxis, top: float, bottom: float) -> Iterator[Markup]:
    """Draw ticks with a line through all lanes, and the compressed stretches."""
    for span in axis.calm:
        yield Markup('<rect class="calm" x="{:.4g}" y="{:g}" width="{:.4g}" height="{:g}"/>').format(
            span.left, top, span.right - span.left, bottom - top
        )
        yield _time((span.left + span.right) / 2, bottom + 28, f"{1000 * (span.end - span.begin):,.0f} ms")
    ticks = list(axis.ticks())
    yield _path("grid", "".join(f"M{x:.4g} {top:g}V{bottom + 3:g}" for x, _ in ticks))
    for x, text in ticks:
        yield _time(x, bottom + 14, text)


def _places(stretches: Iterable[Stretch], axis: TimeAxis) -> Iterator[float]:
    """Return where the marks of one kind in one row are drawn: both ends of each stretch, and marks with room."""
    last = float("-inf")
    for stretch in stretches:
        places = [axis.place(time) for time in stretch.times]
        for number, x in enumerate(places):
            at_end = number in (0, len(places) - 1)
            if x - last >= (_PITCH / 3 if at_end else _PITCH) and (at_end or places[-1] - x >= _PITCH):
                last = x
                yield x


def _path(style: str, data: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(style, data)


def _time(x: float, y: float, text: str) -> Markup:
    return Markup('<text class="time" x="{:.4g}" y="{:g}">{}</text>').format(x, y, text)


def _text(style: str, x: float, y: float, text: str, room: float) -> Markup:
    fitting = int(room / _LETTER)
    shown = clip(escape_unprintable(text), int(fitting * 1.25))
    squeezed = Markup(' textLength="{:g}" lengthAdjust="spacingAndGlyphs"').format(room) if len(shown) > fitting else ""
    return Markup('<text class="{}" x="{:.4g}" y="{:g}"{}>{}</text>').format(style, x, y, squeezed, shown)
