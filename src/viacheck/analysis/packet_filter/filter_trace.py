"""Which rules of the packet filter a packet meets, one after the other, and whether each is for it.

The verdict on the packet is :mod:`viacheck.analysis.packet_filter.evaluate`'s; here is the way to it, for people. A
rule that cannot be judged is passed by, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.analysis.packet_filter.evaluate import TERMINAL, FilteredPacket, base_chains, matches
from viacheck.model.snapshot import FilterChain, FilterRule, PacketFilter

_DEEPEST = 16
_WORDS = {True: "matches", False: "no match", None: "cannot be told"}


@dataclass(frozen=True, slots=True)
class RuleMet:
    """A rule that the packet comes to."""

    chain: str
    rule: str
    """In its tool's words; empty for a chain's policy."""
    matched: bool | None
    """None when it cannot be told."""

    def __str__(self) -> str:
        return f"{self.chain}: {self.rule}: {_WORDS[self.matched]}"


def rules_met(packet_filter: PacketFilter, packet: FilteredPacket, hook: str, kind: str) -> list[RuleMet]:
    """The rules of one hook that a packet comes to, in order, until one decides; a policy where it decides."""
    met: list[RuleMet] = []
    for base in base_chains(packet_filter, packet.family, hook, kind):
        chains = {
            chain.name: chain
            for chain in packet_filter.chains
            if (chain.backend, chain.family, chain.table) == (base.backend, base.family, base.table)
        }
        decided = _through(base, chains, packet, met, 0)
        if decided is None and base.policy not in (None, "accept"):
            met.append(RuleMet(base.name, f"policy {base.policy}", True))
            break
        # An accept ends its base chain only; what drops or translates is final.
        if decided is not None and decided.verdict != "accept":
            break
    return met


def _through(
    chain: FilterChain, chains: dict[str, FilterChain], packet: FilteredPacket, met: list[RuleMet], depth: int
) -> FilterRule | None:
    """The rule that decides in a chain; None when the packet comes out at its end."""
    for rule in chain.rules:
        matched = matches(rule, packet)
        met.append(RuleMet(chain.name, rule.text, matched))
        if not matched or rule.verdict is None:
            continue
        if rule.verdict == "return":
            return None
        if rule.verdict in TERMINAL:
            return rule
        called = chains.get(rule.argument or "") if rule.verdict in ("jump", "goto") else None
        if called is not None and depth < _DEEPEST:
            decided = _through(called, chains, packet, met, depth + 1)
            if decided is not None or rule.verdict == "goto":
                return decided
    return None
