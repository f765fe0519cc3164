"""The topology as inline SVG: agent, bridge, uplinks, gateways and probe target, with the path that the probes took.

The shape of a line shows its meaning as well as its colour does, and a description says the same to a screen reader.
There are two drawings, from left to right and from top to bottom, so that one of them fits a phone; the style sheet
shows one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from reports.egress_summary import EgressSummary
from reports.text import clip, counted, escape_unprintable, listed, sentence
from viacheck.model.result import CheckResult, PacketsEvidence, StateEvidence, TargetRecord

Kind = Literal["taken", "leak", "missed", "idle"]

KINDS: dict[Kind, str] = {
    "taken": "the packets went here, as intended",
    "leak": "the packets went here and should not have",
    "missed": "intended, but no packet was seen",
    "idle": "no packet of the agent was seen here",
}
UPLINKS_SHOWN = 8

_WIDTH, _HEIGHT = 153, 78
_GAP_ALONG, _GAP_ACROSS = 50, 26
_MARGIN = 13
_INSET = 12
_LETTER = {"role": 6.5, "name": 9.2, "more": 7.0}
"""Width of a wide letter by style, in units of the drawing: longer texts are clipped, then squeezed."""
_SQUEEZE = 1.35


@dataclass(frozen=True, slots=True)
class Node:
    """One box: its role, its name, and two lines of facts."""

    stage: int
    lane: float
    role: str
    name: str
    lines: tuple[str, ...] = ()
    kind: Kind = "idle"
    intended: bool = False
    host: bool = False
    """It is part of the host, and is drawn inside its frame."""


@dataclass(frozen=True, slots=True)
class Topology:
    """What is drawn: boxes, the lines between them, and their description."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int, Kind], ...]
    host: str
    description: str
    left_out: int = 0

    @property
    def lanes(self) -> float:
        """How many uplinks are drawn beside each other."""
        return max(node.lane for node in self.nodes) + 1

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of line that occur, in the order of the legend."""
        return [kind for kind in KINDS if any(kind == edge[2] for edge in self.edges)]


def topology(target: TargetRecord, egress: EgressSummary, results: Sequence[CheckResult] = ()) -> Topology | None:
    """Lay out a target; return None when the intent names no uplink.

    ``results`` are the target's: their evidence names machines on a bridged agent's segment.
    """
    intent, snapshot = target.intent, target.snapshot or {}
    uplinks: dict[str, Any] = intent.get("uplinks", {})
    if not uplinks:
        return None
    ranked = sorted(uplinks, key=lambda name: (name != egress.intended, not egress.seen.get(name)))
    shown = [name for name in uplinks if name in ranked[:UPLINKS_SHOWN]]
    host: dict[str, Any] = snapshot.get("host") or {}
    attach: dict[str, Any] = intent.get("agent", {}).get("attach", {})
    moving = any(egress.seen.values())
    middle = (len(shown) - 1) / 2
    bridged = "parent" in attach
    role = f"agent · {attach.get('mode')}" if bridged else "agent"
    nodes = [Node(0, middle, role, _agent_name(intent), _agent_lines(target), "taken" if moving else "idle")]
    edges: list[tuple[int, int, Kind]] = []
    if not bridged:
        bridge = _bridge(attach, snapshot, egress)
        nodes.append(
            Node(1, middle, "bridge", bridge, _addresses(host, bridge), "taken" if moving else "idle", host=True)
        )
        edges.append((0, 1, "taken" if moving else "idle"))
    entry, stage = len(nodes) - 1, len(nodes)
    target_node = len(nodes) + 2 * len(shown)
    exit_uplink = _default_exit(host)
    gateways = []
    for lane, name in enumerate(shown):
        kind = _kind(name, egress)
        state = _state(host, name)
        lines = (*(_addresses(host, name)[:1] or ((state,) if state else ())), _probes(name, egress))
        role = "uplink" + (" · intended" if name == egress.intended else " · default" if name == exit_uplink else "")
        if bridged and name == attach["parent"]:
            role = "parent · intended" if name == egress.intended else "parent"
        nodes.append(Node(stage, lane, role, name, lines, kind, intended=name == egress.intended, host=True))
        gateway = str(uplinks[name].get("gateway", "?"))
        gateways.append(Node(stage + 1, lane, "gateway", gateway, _mac_of(gateway, name, host, results), kind))
        if not bridged or name == attach["parent"]:
            edges.append((entry, entry + 1 + lane, kind))
        edges.append((entry + 1 + lane, entry + 1 + len(shown) + lane, kind))
        beyond: Kind = kind if kind == "missed" or (kind != "idle" and egress.answered) else "idle"
        edges.append((entry + 1 + len(shown) + lane, target_node, beyond))
    nodes += gateways
    answered = (f"{egress.answered} of {egress.sent} answered",) if egress.sent else ()
    destination = str(intent.get("probe", {}).get("target", "198.51.100.1"))
    reached: Kind = "taken" if moving and egress.answered else "idle"
    nodes.append(Node(stage + 2, middle, "probe target", destination, answered, reached))
    parent = str(attach.get("parent", ""))
    others = _others_on_segment(snapshot, uplinks[parent], parent, results) if parent in shown else ()
    if others:
        lane = len(shown)
        nodes.append(Node(stage + 1, lane, "segment", f"{counted(len(others), 'machine')} more", others))
        edges.append((entry + 1 + shown.index(parent), len(nodes) - 1, "idle"))
    hostname = str(snapshot.get("hostname") or intent.get("site", {}).get("name") or "host")
    return Topology(
        tuple(nodes), tuple(edges), hostname, _description(nodes, egress, bridged, attach), len(uplinks) - len(shown)
    )


def draw(plan: Topology, ident: str, *, standing: bool) -> Markup:
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
    order: list[Kind] = ["idle", "missed", "taken", "leak"]
    for start, end, kind in sorted(plan.edges, key=lambda edge: order.index(edge[2])):
        parts.append(_line(places[start], places[end], kind, standing))
    parts += [_box(node, place) for node, place in zip(plan.nodes, places, strict=True)]
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _place(node: Node, standing: bool) -> tuple[float, float]:
    top = _MARGIN + 22
    if standing:
        return _MARGIN + node.lane * (_WIDTH + 10), top + node.stage * (_HEIGHT + _GAP_ALONG)
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
    texts = [("role", node.role), ("name", node.name), *(("more", line) for line in node.lines[:2])]
    room = _WIDTH - 2 * _INSET
    for number, (style, text) in enumerate(texts):
        fitting = room / _LETTER[style]
        shown = clip(escape_unprintable(text), int(fitting * _SQUEEZE))
        squeezed = Markup(' textLength="{}" lengthAdjust="spacingAndGlyphs"').format(room)
        parts.append(
            Markup('<text class="{}" x="{:g}" y="{:g}"{}>{}</text>').format(
                style, x + _INSET, y + 19 + number * 16.5, squeezed if len(shown) > fitting else "", shown
            )
        )
    return Markup("").join(parts) + Markup("</g>")


def _kind(name: str, egress: EgressSummary) -> Kind:
    if egress.seen.get(name):
        return "taken" if name == egress.intended else "leak"
    return "missed" if name == egress.intended and egress.sent else "idle"


def _probes(name: str, egress: EgressSummary) -> str:
    if not egress.sent or (name not in egress.watched and name not in egress.seen):
        return "not watched"
    number = egress.seen.get(name, 0)
    if not number:
        watched = egress.watched.get(name)
        sound = watched and watched.fence_seen and not watched.frames_lost
        return "no probe seen" if sound else "capture unsound"
    return f"{number} of {egress.sent} probes" if name == egress.intended else f"leak: {number} of {egress.sent}"


def _agent_name(intent: Mapping[str, Any]) -> str:
    agent = intent.get("agent", {})
    return str(agent.get("container") or agent.get("netns") or "agent")


def _agent_lines(target: TargetRecord) -> tuple[str, ...]:
    snapshot = target.snapshot or {}
    inside = snapshot.get("agent") or {}
    addresses = [
        f"{a['address']}/{a['prefixlen']}"
        for a in inside.get("addresses", ())
        if a.get("family") == 4 and a.get("interface") != "lo"
    ]
    container = (snapshot.get("engine") or {}).get("container") or {}
    addresses += [a["address"] for a in container.get("attachments", ()) if a.get("address")] if not addresses else []
    attach = target.intent.get("agent", {}).get("attach", {})
    if "parent" in attach:
        links = (link for link in inside.get("links", ()) if link.get("kind") == "macvlan" and link.get("mac"))
        return (*addresses[:1], *(str(link["mac"]) for link in links))
    mode = attach.get("mode", "")
    return (*addresses[:1], *((str(mode),) if mode else ()))


def _mac_of(address: str, interface: str, host: Mapping[str, Any], results: Sequence[CheckResult]) -> tuple[str, ...]:
    """Return the MAC address of a gateway: from a frame that it sent, else from the host's neighbour table."""
    seen = [
        sighting.source_mac
        for result in results
        for evidence in result.evidence
        if isinstance(evidence, PacketsEvidence)
        for sighting in evidence.sightings
        if (sighting.interface, sighting.direction, sighting.source) == (interface, "in", address)
    ]
    known = [
        neighbour["mac"]
        for neighbour in host.get("neighbours", ())
        if neighbour.get("address") == address and neighbour.get("mac")
    ]
    return tuple(str(mac) for mac in (*seen, *known)[:1])


def _others_on_segment(
    snapshot: Mapping[str, Any], uplink: Mapping[str, Any], parent: str, results: Sequence[CheckResult]
) -> tuple[str, ...]:
    """Return the other machines on a bridged agent's segment: from neighbour tables, and from ARP and DHCP answers."""
    host: Mapping[str, Any] = snapshot.get("host") or {}
    agent: Mapping[str, Any] = snapshot.get("agent") or {}
    inside = {link.get("name") for link in agent.get("links", ()) if link.get("kind") == "macvlan"}
    neighbours = [entry for entry in host.get("neighbours", ()) if entry.get("interface") == parent]
    neighbours += [entry for entry in agent.get("neighbours", ()) if entry.get("interface") in inside]
    addresses = [str(entry["address"]) for entry in neighbours if entry.get("mac") and entry.get("family") == 4]
    for result in results:
        for evidence in result.evidence:
            addresses += evidence.machines if isinstance(evidence, StateEvidence) else []
    return tuple(dict.fromkeys(address for address in addresses if address != uplink.get("gateway")))


def _bridge(attach: Mapping[str, Any], snapshot: Mapping[str, Any], egress: EgressSummary) -> str:
    if attach.get("bridge"):
        return str(attach["bridge"])
    wanted = attach.get("network", "bridge")
    for network in (snapshot.get("engine") or {}).get("networks", ()):
        if network.get("name") == wanted and network.get("bridge"):
            return str(network["bridge"])
    watched = [name for name in egress.watched if name not in egress.uplinks]
    if watched:
        return watched[0]
    links = (snapshot.get("host") or {}).get("links", ())
    return next((str(link["name"]) for link in links if link.get("kind") == "bridge"), "docker0")


def _addresses(host: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(
        f"{a['address']}/{a['prefixlen']}"
        for a in host.get("addresses", ())
        if a.get("interface") == name and a.get("family") == 4
    )


def _state(host: Mapping[str, Any], name: str) -> str:
    """Return the state of an uplink without an address; empty without a snapshot."""
    if not host.get("links"):
        return ""
    link = next((link for link in host["links"] if link.get("name") == name), None)
    if link is None:
        return "missing"
    return "no address" if "UP" in link.get("flags", ()) else "down"


def _default_exit(host: Mapping[str, Any]) -> str | None:
    defaults = [
        route
        for route in host.get("routes", ())
        if route.get("destination") == "0.0.0.0/0" and route.get("table") == 254 and route.get("nexthops")
    ]
    best = min(defaults, key=lambda route: int(route.get("metric", 0)), default=None)
    return best["nexthops"][0].get("interface") if best else None


def _description(nodes: list[Node], egress: EgressSummary, bridged: bool, attach: Mapping[str, Any]) -> str:
    agent = nodes[0]
    address = f" ({', '.join(agent.lines if bridged else agent.lines[:1])})" if agent.lines else ""
    by = f"sits on {attach['parent']}'s network" if bridged else f"reaches the host by {nodes[1].name}"
    sentences = [f"The agent {agent.name}{address} {by}."]
    for node, gateway in zip(
        (node for node in nodes if node.role.startswith(("uplink", "parent"))),
        (node for node in nodes if node.role == "gateway"),
        strict=True,
    ):
        role = node.role.replace(" · ", ", ")
        towards = " ".join((gateway.name, *gateway.lines))
        sentences.append(f"{role.capitalize()}: {node.name}, {', '.join(node.lines)}, gateway {towards}.")
    for node in nodes:
        if node.role == "segment":
            sentences.append(f"On {attach['parent']}'s segment there are also: {listed(list(node.lines))}.")
    if bridged:
        sentences.append(f"Host and agent cannot reach each other by {attach['parent']}: macvlan isolates them.")
    if egress.elsewhere:
        sentences.append(f"The packets left by {listed(list(egress.elsewhere))}, which is not the intended uplink.")
    if egress.sent:
        destination = next(node.name for node in nodes if node.role == "probe target")
        sentences.append(sentence(f"{counted(egress.sent, 'probe')} sent to {destination}, {egress.answered} answered"))
    return " ".join(sentences)
