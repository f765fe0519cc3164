"""The policy routing rules of one family, made ready for comparing, and the kernel's walk through them.

Follows fib_rules_lookup and fib_rule_match (net/core/fib_rules.c), fib4_rule_match and fib6_rule_match; ip-rule(8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from viacheck.analysis.routing.packet import LookupKey
from viacheck.analysis.routing.table import BITS, Hit, mask, read_prefix, same_tos
from viacheck.model.snapshot import Family, PortRange, Rule

ALL_BITS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class RuleStep:
    """One rule that was considered, and what came of it."""

    rule: Rule
    outcome: str
    matched: bool = False
    chosen: bool = False


@dataclass(slots=True)
class RuleLookup:
    """Where the walk through the rules ended."""

    steps: list[RuleStep]
    rule: Rule | None = None
    """The rule that decided; None when none did."""
    hit: Hit | None = None
    """The route, when the rule that decided looked one up."""
    certain: bool = True
    """False when a rule was passed by that has a selector which cannot be judged."""


class _ReadyRule:
    """A rule with its selectors as integers, and its answers to lookups that it does not match made once."""

    __slots__ = ("_misses", "_plain", "destination", "destination_mask", "rule", "source", "source_mask")

    def __init__(self, rule: Rule) -> None:
        bits = BITS[rule.family]
        self.rule = rule
        self.source, length = read_prefix(rule.source, rule.family) if rule.source else (0, 0)
        self.source_mask = mask(length, bits)
        self.destination, length = read_prefix(rule.destination, rule.family) if rule.destination else (0, 0)
        self.destination_mask = mask(length, bits)
        # Most rules of a long list have addresses only: the rest is not looked at for them.
        self._plain = (
            rule.iif is None
            and rule.oif is None
            and not rule.tos
            and rule.fwmark is None
            and rule.fwmask is None
            and rule.ipproto is None
            and rule.sport is None
            and rule.dport is None
            and rule.uid_first is None
            and rule.tun_id is None
            and not rule.l3mdev
            and not rule.unread
        )
        self._misses: dict[str, RuleStep] = {}

    def mismatch(self, key: LookupKey) -> str | None:
        """Name the first selector that does not match; None when all do."""
        source = key.source
        if self.source_mask:
            if source is None:
                # IPv4 compares 0.0.0.0 where no source is chosen yet, IPv6 refuses (RT6_LOOKUP_F_HAS_SADDR).
                if key.family == 6 or self.source != 0:
                    return f"from {self.rule.source}"
            elif source & self.source_mask != self.source:
                return f"from {self.rule.source}"
        if key.destination & self.destination_mask != self.destination:
            return f"to {self.rule.destination}"
        return None if self._plain else self._other_mismatch(key)

    def _other_mismatch(self, key: LookupKey) -> str | None:
        rule = self.rule
        for name, wanted, detached, found in (
            ("iif", rule.iif, rule.iif_detached, key.iif),
            ("oif", rule.oif, rule.oif_detached, key.oif),
        ):
            if wanted is not None and (detached or wanted != found):
                return f"{name} {wanted}" + (" [detached]: no such interface" if detached else "")
        fwmask = ALL_BITS if rule.fwmask is None and rule.fwmark else rule.fwmask or 0
        if (key.mark ^ (rule.fwmark or 0)) & fwmask:
            return f"fwmark 0x{rule.fwmark or 0:x}/0x{fwmask:x}"
        if rule.tos and not (same_tos(rule.tos, key.tos) if key.family == 4 else rule.tos == key.tos & 0xFC):
            return f"tos 0x{rule.tos:x}"
        if rule.ipproto and rule.ipproto != key.protocol:
            return f"ipproto {rule.ipproto}"
        if _outside(rule.sport, key.sport):
            return "sport"
        if _outside(rule.dport, key.dport):
            return "dport"
        if rule.uid_first is not None and not rule.uid_first <= key.uid <= (rule.uid_last or 0):
            return f"uidrange {rule.uid_first}-{rule.uid_last}"
        if rule.tun_id:
            return f"tun_id {rule.tun_id}: the packet came by no tunnel"
        if rule.l3mdev:
            return "l3mdev: no VRF is in play"
        if rule.unread:
            return f"cannot be told ({', '.join(rule.unread)}), and is taken as none"
        return None

    def miss(self, reason: str) -> RuleStep:
        """The step for a key that this rule does not apply to; made once for each reason."""
        step = self._misses.get(reason)
        if step is None:
            step = self._misses[reason] = RuleStep(self.rule, f"no match: {reason}")
        return step


def _outside(wanted: PortRange | None, port: int) -> bool:
    return wanted is not None and not wanted.first <= port <= wanted.last


class RuleList:
    """The rules of one family in the kernel's order."""

    def __init__(self, rules: Iterable[Rule], family: Family) -> None:
        """Make the rules ready; they are taken in the order given."""
        self._rules = [_ReadyRule(rule) for rule in rules]
        self.family = family
        self._first_of: dict[int, int] = {}
        for position, ready in enumerate(self._rules):
            self._first_of.setdefault(ready.rule.priority, position)

    def __len__(self) -> int:
        return len(self._rules)

    def ask(self, key: LookupKey, look_up: Callable[[int], Hit | None]) -> RuleLookup:
        """Walk through the rules until one decides; ``look_up`` searches a table for the key."""
        lookup = RuleLookup([])
        steps = lookup.steps
        position, end = 0, len(self._rules)
        while position < end:
            ready = self._rules[position]
            position += 1
            rule = ready.rule
            reason = ready.mismatch(key)
            if rule.unread and reason is not None and reason.startswith("cannot be told"):
                lookup.certain = False
            if (reason is None) == rule.invert:
                steps.append(ready.miss(reason or "its 'not' stands before what the packet is"))
                continue
            if rule.action == "goto":
                target = -1 if rule.goto is None else self._first_of.get(rule.goto, -1)
                if target < position:
                    steps.append(RuleStep(rule, f"goto {rule.goto}: no such rule", matched=True))
                else:
                    steps.append(RuleStep(rule, f"goto {rule.goto}", matched=True))
                    position = target
            elif rule.action == "nop":
                steps.append(RuleStep(rule, "nop: on to the next rule", matched=True))
            elif rule.action != "lookup":
                steps.append(RuleStep(rule, f"{rule.action}, by the rule itself", matched=True, chosen=True))
                lookup.rule = rule
                return lookup
            else:
                hit = look_up(rule.table) if rule.table is not None else None
                outcome = explain(rule, hit)
                passed_on = hit is None or hit.route.type == "throw" or suppressed(rule, hit)
                steps.append(RuleStep(rule, outcome, matched=True, chosen=not passed_on))
                if not passed_on:
                    lookup.rule, lookup.hit = rule, hit
                    return lookup
        return lookup


def suppressed(rule: Rule, hit: Hit) -> bool:
    """The rule disregards this answer of its table (FRA_SUPPRESS_PREFIXLEN); a route that rejects is never suppressed.

    Groups of interfaces are in no snapshot: ``suppress_ifgroup`` is taken as never suppressing.
    """
    return not hit.rejects and rule.suppress_prefixlength is not None and hit.length <= rule.suppress_prefixlength


def explain(rule: Rule, hit: Hit | None) -> str:
    """What looking up the rule's table came to, in one line."""
    group = "" if rule.suppress_ifgroup is None else f" (suppress_ifgroup {rule.suppress_ifgroup} is not judged)"
    if hit is None:
        return f"table {rule.table}: no route, on to the next rule"
    if hit.route.type == "throw":
        return f"table {rule.table}: {hit.route}: back to the rules"
    if suppressed(rule, hit):
        return f"table {rule.table}: {hit.route}: suppressed, prefix length {hit.length}"
    return f"table {rule.table}: {hit.route}{group}"
