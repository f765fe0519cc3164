"""The topology as inline SVG, with the path that the probes took.

The shape of a line shows its meaning as well as its colour does, and a description says the same to a screen reader.
There are two drawings, from left to right and from top to bottom, so that one of them fits a phone; the style sheet
shows one.
"""

from __future__ import annotations

from markupsafe import Markup

from reports.text import clip, escape_unprintable
from reports.topology import Kind, Node, Topology

_WIDTH, _HEIGHT = 150, 94
_GAP_ALONG, _GAP_ACROSS, _GAP_STANDING = 40, 24, 38
_BESIDE = 16
"""Units between the line of the probes and the line of the answers."""
_MARGIN = 13
_INSET = 10
_LETTER = {"role": 6.5, "name": 9.2, "more": 6.4}
"""Width of a wide letter by style, in units of the drawing: longer texts are clipped, then squeezed."""
_SQUEEZE = 1.35


def draw_topology(plan: Topology, ident: str, *, standing: bool) -> Markup:
    """Draw a topology as one ``<svg>``, from left to right or, when ``standing``, from top to bottom.

    ``ident`` becomes part of ids, which must be unique on the page.
    """
    places = [_place(node, standing) for node in plan.nodes]
    width = max(x for x, _ in places) + _WIDTH + _MARGIN
    height = max(y for _, y in places) + _HEIGHT + _MARGIN
    parts = [
        Markup(
            '<svg class="topology {shape}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
            'role="img" aria-labelledby="{ident}-title {ident}-desc">'
            '<title id="{ident}-title">The path of the agent\'s packets</title>'
            '<desc id="{ident}-desc">{description}</desc>'
        ).format(
            shape=("standing pair" if plan.lanes == 2 else "standing") if standing else "lying",
            width=width,
            height=height,
            ident=ident,
            description=escape_unprintable(plan.description),
        )
    ]
    parts.append(_frame(plan, places))
    # Lines with packets are drawn over lines without.
    order: list[Kind] = ["idle", "missed", "predicted", "answer", "taken", "leak"]
    for start, end, kind in sorted(plan.edges, key=lambda edge: order.index(edge[2])):
        parts.append(_line(places[start], places[end], kind, standing))
    parts += [_box(node, place) for node, place in zip(plan.nodes, places, strict=True)]
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _place(node: Node, standing: bool) -> tuple[float, float]:
    top = _MARGIN + 22
    if standing:
        return _MARGIN + node.lane * (_WIDTH + 10), top + node.stage * (_HEIGHT + _GAP_STANDING)
    return _MARGIN + node.stage * (_WIDTH + _GAP_ALONG), top + node.lane * (_HEIGHT + _GAP_ACROSS)


def _frame(plan: Topology, places: list[tuple[float, float]]) -> Markup:
    inside = [place for node, place in zip(plan.nodes, places, strict=True) if node.host]
    left, top = min(x for x, _ in inside) - 9, min(y for _, y in inside) - 27
    right, bottom = max(x for x, _ in inside) + _WIDTH + 9, max(y for _, y in inside) + _HEIGHT + 11
    return Markup(
        '<rect class="frame" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="10"/>'
        '<text class="role" x="{tx:g}" y="{ty:g}">host {name}</text>'
    ).format(
        x=left,
        y=top,
        w=right - left,
        h=bottom - top,
        tx=left + 10,
        ty=top + 18,
        name=clip(escape_unprintable(plan.host), 30),
    )


def _line(start: tuple[float, float], end: tuple[float, float], kind: Kind, standing: bool) -> Markup:
    if kind == "answer":
        return _answer_line(start, end, standing)
    if standing:
        x1, y1, x2, y2 = start[0] + _WIDTH / 2, start[1] + _HEIGHT, end[0] + _WIDTH / 2, end[1]
        bend = (y1 + y2) / 2
        curve = f"M{x1:g} {y1:g}C{x1:g} {bend:g} {x2:g} {bend:g} {x2:g} {y2 - 8:g}"
        head = f"M{x2 - 5:g} {y2 - 9:g}L{x2 + 5:g} {y2 - 9:g}L{x2:g} {y2:g}Z"
    else:
        x1, y1, x2, y2 = start[0] + _WIDTH, start[1] + _HEIGHT / 2, end[0], end[1] + _HEIGHT / 2
        bend = (x1 + x2) / 2
        curve = f"M{x1:g} {y1:g}C{bend:g} {y1:g} {bend:g} {y2:g} {x2 - 8:g} {y2:g}"
        head = f"M{x2 - 9:g} {y2 - 5:g}L{x2 - 9:g} {y2 + 5:g}L{x2:g} {y2:g}Z"
    return Markup('<g class="way {}"><path class="line" d="{}"/><path class="head" d="{}"/></g>').format(
        kind, curve, head
    )


def _answer_line(start: tuple[float, float], end: tuple[float, float], standing: bool) -> Markup:
    """Draw a line from a box back to an earlier box, beside the line of the probes."""
    if standing:
        x1, y1, x2, y2 = start[0] + _WIDTH / 2 + _BESIDE, start[1], end[0] + _WIDTH / 2 + _BESIDE, end[1] + _HEIGHT
        bend = (y1 + y2) / 2
        curve = f"M{x1:g} {y1:g}C{x1:g} {bend:g} {x2:g} {bend:g} {x2:g} {y2 + 8:g}"
        head = f"M{x2 - 5:g} {y2 + 9:g}L{x2 + 5:g} {y2 + 9:g}L{x2:g} {y2:g}Z"
    else:
        x1, y1, x2, y2 = start[0], start[1] + _HEIGHT / 2 + _BESIDE, end[0] + _WIDTH, end[1] + _HEIGHT / 2 + _BESIDE
        bend = (x1 + x2) / 2
        curve = f"M{x1:g} {y1:g}C{bend:g} {y1:g} {bend:g} {y2:g} {x2 + 8:g} {y2:g}"
        head = f"M{x2 + 9:g} {y2 - 5:g}L{x2 + 9:g} {y2 + 5:g}L{x2:g} {y2:g}Z"
    return Markup('<g class="way answer"><path class="line" d="{}"/><path class="head" d="{}"/></g>').format(
        curve, head
    )


def _box(node: Node, place: tuple[float, float]) -> Markup:
    x, y = place
    parts = [
        Markup('<g class="node {}{}"><rect x="{:g}" y="{:g}" width="{}" height="{}" rx="6"/>').format(
            node.kind, " intended" if node.intended else "", x, y, _WIDTH, _HEIGHT
        )
    ]
    if node.intended:
        parts.append(
            Markup('<rect class="inner" x="{:g}" y="{:g}" width="{}" height="{}" rx="3.5"/>').format(
                x + 3, y + 3, _WIDTH - 6, _HEIGHT - 6
            )
        )
    texts = [("role", node.role), ("name", node.name), *(("more", line) for line in node.lines[:3])]
    room = _WIDTH - 2 * _INSET
    for number, (style, text) in enumerate(texts):
        fitting = room / _LETTER[style]
        shown = clip(escape_unprintable(text), int(fitting * _SQUEEZE))
        squeezed = (
            Markup(' textLength="{}" lengthAdjust="spacingAndGlyphs"').format(room) if len(shown) > fitting else ""
        )
        parts.append(
            Markup('<text class="{}" x="{:g}" y="{:g}"{}>{}</text>').format(
                style, x + _INSET, y + 19 + number * 16.5, squeezed, shown
            )
        )
    return Markup("").join(parts) + Markup("</g>")
