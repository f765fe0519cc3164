"""The text and the JSON of an explanation, for the command that shows it and for predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from viacheck.analysis.explain import Agreement, Explanation, LossEffect, UplinkLoss
from viacheck.analysis.packet_filter.evaluate import Passage, Translation

RULES_SHOWN = 40
"""Rules of the packet filter that the text shows of each hook; JSON has all rules."""


def passage_text(passage: Passage) -> str:
    """Return what the forward hook does with a packet, and the rule or policy that decides."""
    decided_by = f" by {passage.chain.name}: {passage.rule.text if passage.rule else 'policy'}" if passage.chain else ""
    verdicts = {True: "accepted", False: "dropped", None: "cannot be evaluated"}
    return verdicts[passage.allowed] + decided_by


def translation_text(translation: Translation) -> str:
    """Return what source NAT does with a packet, and the rule that decides."""
    rule = f" by {translation.rule.text}" if translation.rule else ""
    if translation.kind == "none":
        return "none"
    texts = {
        "masquerade": "masquerade",
        "snat": f"source becomes {translation.address}",
        "unknown": "cannot be evaluated",
    }
    return texts[translation.kind] + rule


def loss_text(loss: UplinkLoss) -> str:
    """Return what becomes of a packet while an uplink is down."""
    if loss.effect is LossEffect.NOTHING_LEAVES:
        return "nothing leaves: the agent sits on it"
    if loss.effect is LossEffect.NO_DIFFERENCE or loss.decision is None:
        return "no difference: the agent does not sit on it"
    traversal = loss.traversal
    if traversal is None:
        return str(loss.decision)
    if traversal.passage.allowed is not True:
        return f"{loss.decision}; forward: {passage_text(traversal.passage)}"
    if traversal.source is not None and traversal.source != loss.decision.source:
        return f"{loss.decision}, on the wire with source {traversal.source}"
    return str(loss.decision)


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as JSON values."""
    decision, traversal, kernel = explanation.decision, explanation.traversal, explanation.kernel
    agreement = explanation.agreement
    return {
        "question": str(explanation.packet),
        "decided_in": explanation.decided_in,
        "steps": [step.model_dump(mode="json") for step in decision.evidence().steps],
        "outcome": decision.outcome,
        "table": decision.table,
        "route": str(decision.route) if decision.route else None,
        "runners_up": [str(route) for route in decision.runners_up],
        "forward": passage_text(traversal.passage) if traversal else None,
        "forward_allowed": traversal.passage.allowed if traversal else None,
        "forward_rules": [str(rule) for rule in explanation.forward_rules],
        "nat": translation_text(traversal.translation) if traversal else None,
        "nat_kind": traversal.translation.kind if traversal else None,
        "nat_rules": [str(rule) for rule in explanation.nat_rules],
        "uplink": explanation.uplink,
        "gateway": explanation.gateway,
        "source_on_wire": explanation.source_on_wire,
        "without": {name: loss_text(loss) for name, loss in explanation.losses.items()},
        "kernel": kernel.text if kernel else None,
        "agree": {Agreement.AGREE: True, Agreement.DIFFER: False, Agreement.NOT_ASKED: None}[agreement],
        "agreement": agreement.value,
    }


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Yield the explanation as lines for a person."""
    decision, traversal = explanation.decision, explanation.traversal
    yield f"{explanation.packet}, decided in the {explanation.decided_in}'s namespace"
    yield ""
    for number, step in enumerate(decision.evidence().steps, 1):
        yield f"{'->' if step.chosen else '  '} {number}. {step.rule}: {step.outcome}"
    yield ""
    yield f"route      {decision.route or 'none'}" + (f" (table {decision.table})" if decision.table else "")
    for route in decision.runners_up:
        yield f"           then: {route}"
    if traversal is not None:
        yield f"forward    {passage_text(traversal.passage)}"
        yield from _numbered([str(rule) for rule in explanation.forward_rules])
    if traversal is not None and not explanation.dropped:
        yield f"NAT        {translation_text(traversal.translation)}"
        yield from _numbered([str(rule) for rule in explanation.nat_rules])
    if explanation.dropped:
        yield "on wire    nothing: the host drops the packet"
    elif explanation.own_path is not None and explanation.uplink is None and decision.outcome == "unicast":
        yield f"on wire    by no interface of this host: {explanation.own_path.reason}"
    elif decision.outcome == "unicast":
        via = f" via {explanation.gateway}" if explanation.gateway else ""
        yield f"on wire    by {explanation.uplink}{via}, source {explanation.source_on_wire or 'unknown'}"
    else:
        yield f"outcome    {decision.outcome}"
    for name, loss in explanation.losses.items():
        yield f"without {name}: {loss_text(loss)}"
    if explanation.kernel is not None:
        agrees = explanation.agreement is Agreement.AGREE
        verdict = "agrees" if agrees else "DISAGREES: this is an error of viacheck, please report it"
        yield f"kernel     {explanation.kernel.text} ({verdict})"


def _numbered(rules: list[str]) -> Iterator[str]:
    for number, rule in enumerate(rules[:RULES_SHOWN], 1):
        yield f"           {number}. {rule}"
    if len(rules) > RULES_SHOWN:
        yield f"           and {len(rules) - RULES_SHOWN} more"
