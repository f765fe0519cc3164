"""The topology: agent, bridge, routing, uplinks, gateways and probe target, each with the evidence of the probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reports.egress_summary import KERNEL_CHECK, EgressSummary
from reports.text import counted, listed, sentence
from viacheck.model.fix_order import EGRESS_CHECK
from viacheck.model.result import (
    CheckResult,
    DecisionEvidence,
    PacketsEvidence,
    StateEvidence,
    TargetRecord,
    Verdict,
)
from viacheck.model.saved_routes import each_route

Kind = Literal["taken", "leak", "missed", "answer", "idle"]

KINDS: dict[Kind, str] = {
    "taken": "the packets went here, as intended",
    "leak": "the packets went here and should not have",
    "missed": "intended, but no packet was seen",
    "answer": "the answers came back here",
    "idle": "no packet of the agent was seen here",
}
UPLINKS_SHOWN = 8


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
    moving = any(egress.seen.values())
    middle = (len(shown) - 1) / 2
    bridged = "parent" in attach
    role = f"agent · {attach.get('mode')}" if bridged else "agent"
    busy: Kind = "taken" if moving else "idle"
    text = f"{egress.sent} sent, {egress.answered} answers back" if egress.answers_differ else ""
    sent = (text or f"{counted(egress.sent, 'probe')} sent",) if egress.sent else ()
    agent_lines = _agent_lines(target)
    nodes = [Node(0, middle, role, _agent_name(intent), (*agent_lines, *sent), busy, host=True)]
    edges: list[tuple[int, int, Kind]] = []
    if not bridged:
        bridge = _bridge(attach, snapshot, egress)
        seen = (f"{egress.seen.get(bridge, 0)} of {egress.sent} probes",) if bridge in egress.watched else ()
        nodes.append(Node(1, middle, "bridge", bridge, (*_addresses(host, bridge)[:1], *seen), busy, host=True))
        edges.append((0, 1, busy))
    if decisions:
        departs = any(result.check == KERNEL_CHECK and result.verdict is Verdict.FAIL for result in results)
        nodes.append(_routing_node(decisions, departs, len(nodes), middle, busy))
        edges.append((len(nodes) - 2, len(nodes) - 1, busy))
    entry, stage = len(nodes) - 1, len(nodes)
    target_node = len(nodes) + 2 * len(shown)
    exit_uplink = _default_exit(host)
    gateways = []
    for lane, name in enumerate(shown):
        kind = _kind(name, egress)
        state = _state(host, name)
        lines = (
            *(_addresses(host, name)[:1] or ((state,) if state else ())), _probes(name, egress), *_answers(name, egress)
        )  # fmt: skip
        role = "uplink" + (" · intended" if name == egress.intended else " · default" if name == exit_uplink else "")
        if bridged and name == attach["parent"]:
            role = "parent · intended" if name == egress.intended else "parent"
        nodes.append(Node(stage, lane, role, name, lines, kind, intended=name == egress.intended, host=True))
        gateway = str(uplinks[name].get("gateway", "?"))
        gateways.append(Node(stage + 1, lane, "gateway", gateway, _mac_of(gateway, name, host, results), kind))
        if not bridged or name == attach["parent"]:
            edges.append((entry, entry + 1 + lane, kind))
        edges.append((entry + 1 + lane, entry + 1 + len(shown) + lane, kind))
        reached = egress.answered or egress.answers.get(name)
        beyond: Kind = kind if kind == "missed" or (kind != "idle" and reached) else "idle"
        edges.append((entry + 1 + len(shown) + lane, target_node, beyond))
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
        edges.append((entry + 1 + shown.index(parent), len(nodes) - 1, "idle"))
    hostname = str(snapshot.get("hostname") or intent.get("site", {}).get("name") or "host")
    return Topology(
        tuple(nodes),
        tuple(edges),
        hostname,
        _description(nodes, egress, bridged, attach, agent_lines),
        len(uplinks) - len(shown),
    )


def _kind(name: str, egress: EgressSummary) -> Kind:
    if egress.seen.get(name):
        return "taken" if name == egress.intended else "leak"
    return "missed" if name == egress.intended and egress.sent else "idle"


def _probes(name: str, egress: EgressSummary) -> str:
    if not egress.sent or (name not in egress.watched and name not in egress.seen):
        return "not watched"
    number = egress.seen.get(name, 0)
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
                bridge = next((number for number, node in enumerate(nodes) if node.role == "bridge"), 0)
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
    mode = attach.get("mode", "")
    return (*addresses[:1], *((str(mode),) if mode else ()))


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
        for route in each_route(host.get("routes", []))
        if route.get("destination") == "0.0.0.0/0" and route.get("table") == 254 and route.get("nexthops")
    ]
    best = min(defaults, key=lambda route: int(route.get("metric", 0)), default=None)
    return best["nexthops"][0].get("interface") if best else None


def _description(
    nodes: list[Node], egress: EgressSummary, bridged: bool, attach: Mapping[str, Any], addresses: tuple[str, ...]
) -> str:
    agent = nodes[0]
    address = f" ({', '.join(addresses if bridged else addresses[:1])})" if addresses else ""
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
