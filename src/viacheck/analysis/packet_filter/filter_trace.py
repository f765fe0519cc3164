"""The rules of the packet filter that a packet meets, in order, and whether each matches.

The verdict on the packet comes from :mod:`viacheck.analysis.packet_filter.evaluate`; this is the trace for people. A
rule that cannot be evaluated is skipped and marked.
"""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.analysis.packet_filter.conditions import FilteredPacket, matches
from viacheck.analysis.packet_filter.walk import TERMINAL, base_chains, chains_of_table
from viacheck.model.filter_chains import FilterChain, FilterRule, PacketFilter

_DEEPEST = 16
_MATCH_TEXTS = {True: "matches", False: "no match", None: "cannot be evaluated"}


@dataclass(frozen=True, slots=True)
class RuleMet:
    """A rule that the packet meets."""

    chain: str
    rule: str
    """As its tool prints it; ``policy …`` for a chain's policy."""
    matched: bool | None
    """None when it cannot be evaluated."""

    def __str__(self) -> str:
        return f"{self.chain}: {self.rule}: {_MATCH_TEXTS[self.matched]}"


def rules_met(packet_filter: PacketFilter, packet: FilteredPacket, hook: str, kind: str) -> list[RuleMet]:
    """Return the rules of a hook that a packet meets, up to the rule or policy that decides."""
    met: list[RuleMet] = []
    for base in base_chains(packet_filter, packet.family, hook, kind):
        decided = _Trace(chains_of_table(packet_filter, base), packet, met).through(base, 0)
        if decided is None and base.policy not in (None, "accept"):
            met.append(RuleMet(base.name, f"policy {base.policy}", True))
            break
        # An accept ends its base chain only; what drops or translates is final.
        if decided is not None and decided.verdict != "accept":
            break
    return met


class _Trace:
    """The trace of one packet through the chains of a table. Rules of a chain that is met again are listed once."""

    def __init__(self, chains: dict[str, FilterChain], packet: FilteredPacket, met: list[RuleMet]) -> None:
        self._chains = chains
        self._packet = packet
        self._met = met
        self._walked: dict[str, FilterRule | None] = {}

    def through(self, chain: FilterChain, depth: int) -> FilterRule | None:
        """Return the rule that decides in a chain; None when no rule decides."""
        if chain.name not in self._walked:
            self._walked[chain.name] = None
            self._walked[chain.name] = self._through(chain, depth)
        return self._walked[chain.name]

    def _through(self, chain: FilterChain, depth: int) -> FilterRule | None:
        for rule in chain.rules:
            matched = matches(rule, self._packet)
            self._met.append(RuleMet(chain.name, rule.text, matched))
            if not matched or rule.verdict is None:
                continue
            if rule.verdict == "return":
                return None
            if rule.verdict in TERMINAL:
                return rule
            called = self._chains.get(rule.argument or "") if rule.verdict in ("jump", "goto") else None
            if called is not None and depth < _DEEPEST:
                decided = self.through(called, depth + 1)
                if decided is not None or rule.verdict == "goto":
                    return decided
        return None
