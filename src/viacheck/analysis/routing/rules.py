"""The policy routing rules of one family, prepared for comparison, and the kernel's walk through them.

Follows fib_rules_lookup and fib_rule_match (net/core/fib_rules.c), fib4_rule_match and fib6_rule_match; ip-rule(8).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from viacheck.analysis.routing.identity import SameTuple
from viacheck.analysis.routing.packet import LookupKey
from viacheck.analysis.routing.rule_index import Bits, RuleIndex, Value
from viacheck.analysis.routing.table import BITS, Hit, mask, read_prefix, same_tos
from viacheck.model.address_family import Family
from viacheck.model.policy_rule import PortRange, Rule

ALL_BITS = 0xFFFFFFFF
IN_NO_VRF = "l3mdev: the packet belongs to no VRF"
NOT_EVALUATED = "cannot be evaluated"
IN_VRF = f"l3mdev {NOT_EVALUATED}: the packet belongs to a VRF; the rule counts as not matching"


@dataclass(frozen=True, slots=True)
class RuleStep:
    """One rule that was compared, and the result."""

    rule: Rule
    outcome: str
    matched: bool = False
    chosen: bool = False


class _ReadyRule:
    """A rule with its selectors as integers, and a step for each reason not to match."""

    __slots__ = (
        "_in_vrf", "_plain", "destination", "destination_mask", "rule", "source", "source_mask", "unread_reason",
    )  # fmt: skip

    def __init__(self, rule: Rule, in_vrf: frozenset[str]) -> None:
        bits = BITS[rule.family]
        self.rule, self._in_vrf = rule, in_vrf
        # The kernel keeps bits behind a prefix's length, as of 172.17.0.1/16, and does not compare them.
        source, length = read_prefix(rule.source, rule.family) if rule.source else (0, 0)
        self.source_mask = mask(length, bits)
        self.source = source & self.source_mask
        destination, length = read_prefix(rule.destination, rule.family) if rule.destination else (0, 0)
        self.destination_mask = mask(length, bits)
        self.destination = destination & self.destination_mask
        # Most rules of a long list select by addresses alone: the other selectors are not compared for them.
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
        self.unread_reason = (
            f"{NOT_EVALUATED} ({', '.join(rule.unread)}), and counts as not matching" if rule.unread else None
        )

    def mismatch(self, key: LookupKey) -> str | None:
        """Return the first selector that does not match; None when all match."""
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
        for name, wanted, detached, actual in (
            ("iif", rule.iif, rule.iif_detached, key.iif),
            ("oif", rule.oif, rule.oif_detached, key.oif),
        ):
            if wanted is not None and (detached or wanted != actual):
                return f"{name} {wanted}" + (" [detached]: no such interface" if detached else "")
        fwmask = _mark_mask(rule)
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
            return f"tun_id {rule.tun_id}: the packet came through no tunnel"
        if rule.l3mdev:
            return IN_NO_VRF if self._in_vrf.isdisjoint((key.iif, key.oif)) else IN_VRF
        return self.unread_reason

    @property
    def never_matches(self) -> bool:
        """Whether the rule names an interface that the host does not have, so that it selects no packet."""
        return self.rule.iif_detached or self.rule.oif_detached

    @property
    def indexed(self) -> tuple[Bits, Value]:
        """The selectors that decide in the index; a rule with ``not`` has to be compared with every packet."""
        rule = self.rule
        if rule.invert:
            return (0, 0, 0, False), (0, 0, 0, None)
        mark_mask = _mark_mask(rule)
        bits = self.source_mask, self.destination_mask, mark_mask, rule.iif is not None
        return bits, (self.source, self.destination, (rule.fwmark or 0) & mark_mask, rule.iif)

    def miss(self, key: LookupKey) -> RuleStep:
        """Return the step for a packet that the rule does not apply to."""
        reason = self.mismatch(key) or "its selectors match, and 'not' inverts them"
        return RuleStep(self.rule, f"no match: {reason}")


@dataclass(frozen=True, slots=True)
class PassedRules:
    """Rules in a row that do not apply to a packet. Their steps are made when they are read: few lookups need them."""

    rules: Sequence[_ReadyRule]
    start: int
    stop: int
    key: LookupKey

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[RuleStep]:
        """Make the step of each rule."""
        return (self.rules[position].miss(self.key) for position in range(self.start, self.stop))

    def priority(self, place: int) -> int:
        """Return the priority of one of the rules; -1 is the last one."""
        return self.rules[range(self.start, self.stop)[place]].rule.priority


@dataclass(slots=True)
class RuleLookup:
    """The end of the walk through the rules."""

    walk: list[RuleStep | PassedRules] = field(default_factory=list)
    """Every rule that was passed, in order."""
    rule: Rule | None = None
    """The rule that decides; None when no rule decides."""
    hit: Hit | None = None
    """The route that the deciding rule looked up."""
    certain: bool = True
    """False when a rule was skipped because of a selector that cannot be evaluated."""


def _mark_mask(rule: Rule) -> int:
    return ALL_BITS if rule.fwmask is None and rule.fwmark else rule.fwmask or 0


def _outside(wanted: PortRange | None, port: int) -> bool:
    return wanted is not None and not wanted.first <= port <= wanted.last


class RuleList:
    """The rules of one family in the kernel's order."""

    def __init__(self, rules: Iterable[Rule], family: Family, in_vrf: Collection[str] = ()) -> None:
        """Prepare the rules; their order counts.

        Args:
            rules: of the family.
            family: of the rules.
            in_vrf: the interfaces that are VRFs or belong to one (Documentation/networking/vrf.rst of the kernel).
        """
        interfaces = frozenset(in_vrf)
        self._rules = [_ReadyRule(rule, interfaces) for rule in rules]
        self.family = family
        self._first_of: dict[int, int] = {}
        for position, ready in enumerate(self._rules):
            self._first_of.setdefault(ready.rule.priority, position)
        self._index = RuleIndex(
            (position, *ready.indexed)
            for position, ready in enumerate(self._rules)
            if ready.rule.invert or not ready.never_matches
        )

    def __len__(self) -> int:
        return len(self._rules)

    def ask(self, key: LookupKey, look_up: Callable[[int], Hit | None]) -> RuleLookup:
        """Walk through the rules until a rule decides; ``look_up`` searches a table for the packet."""
        lookup = RuleLookup()
        walk, passed = lookup.walk, 0
        for position in self._index.candidates(key):
            if position < passed:
                # A rule before it leads past it.
                continue
            ready = self._rules[position]
            rule = ready.rule
            reason = ready.mismatch(key)
            if reason is not None and reason in (ready.unread_reason, IN_VRF):
                lookup.certain = False
            if (reason is None) == rule.invert:
                continue
            if position > passed:
                walk.append(PassedRules(self._rules, passed, position, key))
            passed = position + 1
            if rule.action == "goto":
                target = -1 if rule.goto is None else self._first_of.get(rule.goto, -1)
                if target < passed:
                    walk.append(RuleStep(rule, f"goto {rule.goto}: no such rule", matched=True))
                else:
                    walk.append(RuleStep(rule, f"goto {rule.goto}", matched=True))
                    passed = target
            elif rule.action == "nop":
                walk.append(RuleStep(rule, "nop: on to the next rule", matched=True))
            elif rule.action != "lookup":
                walk.append(RuleStep(rule, f"{rule.action}: the rule itself refuses", matched=True, chosen=True))
                lookup.rule = rule
                return lookup
            else:
                hit = look_up(rule.table) if rule.table is not None else None
                outcome = explain(rule, hit)
                goes_on = hit is None or hit.route.type == "throw" or suppressed(rule, hit)
                walk.append(RuleStep(rule, outcome, matched=True, chosen=not goes_on))
                if not goes_on:
                    lookup.rule, lookup.hit = rule, hit
                    return lookup
        if passed < len(self._rules):
            walk.append(PassedRules(self._rules, passed, len(self._rules), key))
        return lookup


def rule_list(rules: tuple[Rule, ...], family: Family, in_vrf: frozenset[str]) -> RuleList:
    """Return the prepared rules of a family; states that differ by their routes alone share them."""
    return _rule_list(SameTuple(rules), family, in_vrf)


@lru_cache(maxsize=8)
def _rule_list(same: SameTuple[Rule], family: Family, in_vrf: frozenset[str]) -> RuleList:
    return RuleList((rule for rule in same.entries if rule.family == family), family, in_vrf)


def suppressed(rule: Rule, hit: Hit) -> bool:
    """Whether the rule ignores this route of its table (FRA_SUPPRESS_PREFIXLEN); a rejecting route is never suppressed.

    A snapshot has no groups of interfaces: ``suppress_ifgroup`` counts as never suppressing.
    """
    return not hit.rejects and rule.suppress_prefixlength is not None and hit.length <= rule.suppress_prefixlength


def explain(rule: Rule, hit: Hit | None) -> str:
    """Return the result of the look-up in the rule's table, in one line."""
    group = "" if rule.suppress_ifgroup is None else f" (suppress_ifgroup {rule.suppress_ifgroup} is not evaluated)"
    if hit is None:
        return f"table {rule.table}: no route, on to the next rule"
    if hit.route.type == "throw":
        return f"table {rule.table}: {hit.route}: back to the rules"
    if suppressed(rule, hit):
        return f"table {rule.table}: {hit.route}: suppressed, prefix length {hit.length}"
    return f"table {rule.table}: {hit.route}{group}"
