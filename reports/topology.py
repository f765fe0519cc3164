"""The topology: agent, bridge, routing, uplinks, gateways and probe target, each with the evidence of the probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from reports.egress_summary import KERNEL_CHECK, EgressSummary
from reports.text import counted, listed, sentence
from viacheck.model.check_evidence import DecisionEvidence, PacketsEvidence, StateEvidence
from viacheck.model.fix_order import EGRESS_CHECK
from viacheck.model.path import PathEvidence
from viacheck.model.result import CheckResult, TargetRecord
from viacheck.model.saved_routes import routes_to
from viacheck.model.verdict import Verdict

Kind = Literal["taken", "leak", "missed", "answer", "predicted", "idle"]

KINDS: dict[Kind, str] = {
    "taken": "the packets went here, as intended",
    "leak": "the packets went here and should not have",
    "missed": "intended, but no packet was seen",
    "answer": "the answers came back here",
    "predicted": "no packet was sent: the model alone says that they go here",
    "idle": "no packet of the agent was seen here",
}
UPLINKS_SHOWN = 8
OTHER_WAY_IN = "not intended"
"""The role of the interface by which the packets came in instead of the agent's bridge."""


@dataclass(frozen=True, slots=True)
class Node:
    """One box: its role, its name, and three lines of facts and evidence."""

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
    decisions = routing_decisions(results)
    attach: dict[str, Any] = intent.get("agent", {}).get("attach", {})
    predicted, predicted_in = predicted_interfaces(results) if not egress.sent else (frozenset[str](), frozenset[str]())
    unnamed = dict.fromkeys([*egress.elsewhere, *sorted(predicted)])
    shown += [name for name in unnamed if name not in uplinks][:UPLINKS_SHOWN]
    middle = (len(shown) - 1) / 2
    bridged = "parent" in attach
    role = f"agent · {attach.get('mode')}" if bridged else "agent"
    text = f"{egress.sent} sent, {egress.answered} answers back" if egress.answers_differ else ""
    sent = (text or f"{counted(egress.sent, 'probe')} sent",) if egress.sent else ()
    agent_lines = _agent_lines(target)
    left: Kind = "taken" if any(egress.left.values()) else "predicted" if predicted else "idle"
    nodes = [Node(0, middle, role, _agent_name(intent), (*agent_lines, *sent), "idle", host=True)]
    edges: list[tuple[int, int, Kind]] = []
    bridge = None if bridged else _bridge(attach, snapshot, egress)
    for node, kind in _ways_in(bridge, host, egress, predicted_in, middle):
        edges.append((0, len(nodes), kind))
        nodes.append(node)
    # The last box on the path of the packets: a bridge on which none was seen is not on it.
    entry = len(nodes) - 1 if len(nodes) > 1 and (nodes[-1].kind != "idle" or left == "idle") else 0
    entered = nodes[entry].kind if entry else left
    nodes[0] = replace(nodes[0], kind="taken" if entered == "leak" else entered)
    if decisions:
        departs = any(result.check == KERNEL_CHECK and result.verdict is Verdict.FAIL for result in results)
        onward: Kind = "missed" if egress.sent and left == "idle" and entered == "taken" else entered
        stage = 1 + max(node.stage for node in nodes)
        nodes.append(_routing_node(decisions, departs, stage, middle, "idle" if onward == "missed" else onward))
        edges.append((entry, len(nodes) - 1, onward))
        entry = len(nodes) - 1
    first, stage = len(nodes), 1 + max(node.stage for node in nodes)
    target_node = first + 2 * len(shown)
    exit_uplink = _default_exit(host)
    gateways = []
    for lane, name in enumerate(shown):
        kind = _kind(name, egress, predicted)
        state = _state(host, name)
        lines = (
            *(_addresses(host, name)[:1] or ((state,) if state else ())), _probes(name, egress, predicted),
            *_answers(name, egress),
        )  # fmt: skip
        role = "uplink" + (" · intended" if name == egress.intended else " · default" if name == exit_uplink else "")
        if bridged and name == attach["parent"]:
            role = "parent · intended" if name == egress.intended else "parent"
        elif name not in uplinks:
            role = "uplink · not in the site file"
        nodes.append(Node(stage, lane, role, name, lines, kind, intended=name == egress.intended, host=True))
        gateway = str(uplinks.get(name, {}).get("gateway") or "?")
        gateways.append(Node(stage + 1, lane, "gateway", gateway, _mac_of(gateway, name, host, results), kind))
        if not bridged or name == attach["parent"] or kind == "leak":
            edges.append((entry, first + lane, kind))
        edges.append((first + lane, first + len(shown) + lane, kind))
        edges.append((first + len(shown) + lane, target_node, _beyond(name, kind, egress)))
    nodes += gateways
    arrived = max(egress.answered, sum(egress.answers.get(name, 0) for name in egress.uplinks))
    answered = (f"{arrived} of {egress.sent} answered",) if egress.sent else ()
    destination = str(intent.get("probe", {}).get("target", "198.51.100.1"))
    nodes.append(Node(stage + 2, middle, "probe target", destination, answered, "taken" if arrived else "idle"))
    if egress.answers_differ:
        edges += _answer_edges(nodes, egress)
    parent = str(attach.get("parent", ""))
    others = _others_on_segment(snapshot, uplinks[parent], parent, results) if parent in shown else ()
    if others:
        lane = len(shown)
        nodes.append(Node(stage + 1, lane, "segment", f"{counted(len(others), 'machine')} more", others))
        edges.append((first + shown.index(parent), len(nodes) - 1, "idle"))
    hostname = str(snapshot.get("hostname") or intent.get("site", {}).get("name") or "host")
    return Topology(
        tuple(nodes),
        tuple(edges),
        hostname,
        _description(nodes, egress, bridged, attach, agent_lines),
        len(uplinks.keys() - set(shown)),
    )


def _ways_in(
    bridge: str | None, host: Mapping[str, Any], egress: EgressSummary, predicted: frozenset[str], middle: float
) -> Iterator[tuple[Node, Kind]]:
    """Yield the agent's bridge, and the interface by which its packets came in instead, each with the line to it.

    The one on the path of the packets comes last.

    Args:
        bridge: None for an agent that the intent has on an uplink's own network.
        host: the snapshot's.
        egress: the sightings.
        predicted: the interfaces by which the model lets the packets come in.
        middle: the lane of the agent.
    """
    number = egress.seen.get(bridge or "", 0)
    others = {name: seen for name, seen in egress.seen.items() if name not in (bridge, *egress.uplinks, *egress.left)}
    elsewhere = bool(egress.sent) and not number and any((*others.values(), *egress.left.values()))
    if bridge is not None:
        lane = max(middle - 0.5, 0) + 1 if others and elsewhere else middle + 0.5 if elsewhere else middle
        seen = "not watched" if bridge not in egress.watched else f"{number} of {egress.sent} probes"
        lines = (*_addresses(host, bridge)[:1], *((seen,) if egress.sent else ()))
        kind: Kind = "taken" if number else "predicted" if bridge in predicted else "idle"
        to_bridge: Kind = "missed" if egress.sent and kind == "idle" and bridge in egress.watched else kind
        yield Node(1, lane, "bridge", bridge, lines, kind, host=True), to_bridge
    if others and elsewhere:
        name = max(others, key=others.__getitem__)
        lines = (*_addresses(host, name)[:1], f"{others[name]} of {egress.sent} probes")
        lane = middle if bridge is None else max(middle - 0.5, 0)
        yield Node(1, lane, OTHER_WAY_IN, name, lines, "leak", host=True), "leak"


def predicted_interfaces(results: Sequence[CheckResult]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the interfaces by which the model lets the probes leave, and come in, where a target sends none."""
    hops = [
        hop
        for result in results
        for evidence in (result.evidence if result.check == EGRESS_CHECK else ())
        for hop in (evidence.out if isinstance(evidence, PathEvidence) else ())
        if hop.interface is not None
    ]
    leave = frozenset(hop.interface for hop in hops if hop.interface and hop.place == "wire")
    return leave, frozenset(hop.interface for hop in hops if hop.interface and hop.stage == "mangle")


def _kind(name: str, egress: EgressSummary, predicted: frozenset[str]) -> Kind:
    if egress.seen.get(name) or egress.left.get(name):
        return "taken" if name == egress.intended else "leak"
    if name in predicted:
        return "predicted"
    return "missed" if name == egress.intended and egress.sent else "idle"


def _beyond(name: str, kind: Kind, egress: EgressSummary) -> Kind:
    """Return the line from a gateway to the probe target: only an answer shows that the probes arrived there."""
    if kind in ("missed", "predicted", "idle"):
        return kind
    came_back_alike = any(egress.answers.values()) and not egress.answers_differ
    reached = egress.answers.get(name) if came_back_alike else egress.answered or egress.answers.get(name)
    return kind if reached else "idle"


def _probes(name: str, egress: EgressSummary, predicted: frozenset[str]) -> str:
    if name in predicted:
        return "predicted, not seen"
    if not egress.sent or (name not in egress.watched and name not in egress.seen):
        return "not watched"
    number = egress.seen.get(name) or egress.left.get(name, 0)
    if not number:
        return "no probe seen" if egress.sound(name) else "capture unsound"
    return f"{number} of {egress.sent} probes" if name == egress.intended else f"leak: {number} of {egress.sent}"


def _answers(name: str, egress: EgressSummary) -> tuple[str, ...]:
    """Return how many answers came in by an uplink, where they did not come in as the probes left."""
    answers = egress.answers.get(name, 0) if egress.answers_differ else 0
    return (f"{counted(answers, 'answer')} came in",) if answers else ()


def routing_decisions(results: Sequence[CheckResult]) -> list[DecisionEvidence]:
    """Return the host's routing decisions for the probes, each one once: protocols may be routed differently."""
    decisions = [
        evidence
        for result in results
        if result.check == KERNEL_CHECK
        for evidence in result.evidence
        if isinstance(evidence, DecisionEvidence)
    ]
    return list({(decision.model, decision.kernel): decision for decision in reversed(decisions)}.values())[::-1]


def agreement(decision: DecisionEvidence) -> str:
    """Say whether the kernel's routing decision is the model's."""
    return {True: "kernel and model agree", False: "kernel and model differ", None: "model only"}[decision.agree]


def _routing_node(decisions: Sequence[DecisionEvidence], departs: bool, stage: int, lane: float, busy: Kind) -> Node:
    texts = [decision.kernel or decision.model for decision in decisions]
    name, _, route = texts[0].partition(": ")
    rule = next((step.rule.partition(" from ")[0] for step in decisions[0].steps if step.chosen), "")
    witness = {True: "kernel agrees", False: "kernel differs", None: "kernel not asked"}[decisions[0].agree]
    lines = [line for line in (route, f"rule {rule}" if rule else "", witness) if line]
    if len(decisions) > 1:
        name, lines = counted(len(decisions), "decision"), texts
    role = "routing · departs here" if departs else "routing"
    return Node(stage, lane, role, name, tuple(lines), "leak" if departs and busy == "taken" else busy, host=True)


def _answer_edges(nodes: Sequence[Node], egress: EgressSummary) -> Iterator[tuple[int, int, Kind]]:
    """Return the lines of the answers, from the probe target back to where they were last seen."""
    target = next(number for number, node in enumerate(nodes) if node.role == "probe target")
    gateways = [number for number, node in enumerate(nodes) if node.role == "gateway"]
    for gateway in gateways:
        uplink = gateway - len(gateways)
        if egress.answers.get(nodes[uplink].name):
            yield target, gateway, "answer"
            yield gateway, uplink, "answer"
            if egress.answered:
                bridges = (n for n, node in enumerate(nodes) if node.role == "bridge" and egress.answers.get(node.name))
                bridge = next(bridges, 0)
                yield uplink, bridge, "answer"
                if bridge:
                    yield bridge, 0, "answer"


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
    mode, status = str(attach.get("mode", "")), str((container.get("state") or {}).get("status") or "running")
    return (*addresses[:1], *((mode,) if mode else ()), *((status,) if status != "running" else ()))


def _mac_of(address: str, interface: str, host: Mapping[str, Any], results: Sequence[CheckResult]) -> tuple[str, ...]:
    """Return the MAC address of a gateway: from a frame that it sent, the host's neighbour table, or frames to it."""
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
    next_hops = dict.fromkeys(
        f"to {sighting.destination_mac}"
        for result in results
        for evidence in result.evidence
        if result.check == EGRESS_CHECK and isinstance(evidence, PacketsEvidence)
        for sighting in evidence.sightings
        if (sighting.path_interface, sighting.direction, sighting.role) == (interface, "out", "probe")
        and sighting.destination_mac
    )
    return tuple(str(mac) for mac in (*seen, *known, *next_hops)[:1])


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
        for route in routes_to(host.get("routes", []), "0.0.0.0/0")
        if route.get("table") == 254 and route.get("nexthops")
    ]
    best = min(defaults, key=lambda route: int(route.get("metric", 0)), default=None)
    return best["nexthops"][0].get("interface") if best else None


def _description(
    nodes: list[Node], egress: EgressSummary, bridged: bool, attach: Mapping[str, Any], addresses: tuple[str, ...]
) -> str:
    agent = nodes[0]
    address = f" ({', '.join(addresses if bridged else addresses[:1])})" if addresses else ""
    by = f"sits on {attach['parent']}'s network" if bridged else f"reaches the host by {nodes[1].name}"
    if not bridged and egress.sent and nodes[1].kind == "idle":
        way_in = next((node for node in nodes if node.role == OTHER_WAY_IN), None)
        by = f"does not reach the host by {nodes[1].name}: {', '.join(nodes[1].lines[-1:])}"
        by += f"; by {way_in.name}: {way_in.lines[-1]}" if way_in is not None else ""
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
    for node in nodes:
        if node.role.startswith("routing"):
            sentences.append(
                sentence(f"{node.role.capitalize()}: {node.name}, {', '.join(node.lines)}".replace(" ·", ","))
            )
    if egress.elsewhere:
        sentences.append(f"The packets left by {listed(list(egress.elsewhere))}, which is not the intended uplink.")
    if egress.answers_differ:
        back = [f"{egress.answers[name]} by {name}" for name in egress.uplinks if egress.answers.get(name)]
        sentences.append(f"Answers came back: {listed(back)}; {egress.answered} reached the agent.")
    if egress.sent:
        destination = next(node.name for node in nodes if node.role == "probe target")
        sentences.append(sentence(f"{counted(egress.sent, 'probe')} sent to {destination}, {egress.answered} answered"))
    return " ".join(sentences)
