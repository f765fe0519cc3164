"""The remedy for a packet filter that drops the agent's packets or answers: rules that accept them before the drop.

The model tries each rule on the snapshot: a remedy is returned only when packets and answers pass with it in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from viacheck.analysis.bridged_frames import bridge_passages
from viacheck.analysis.nat_facts import Direction, ForwardedProbe, drops_on_the_way, forwarded_probes
from viacheck.analysis.packet_filter.evaluate import Passage
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.diagnosis.remedy import (
    NO_REMEDY,
    Command,
    CommandOutput,
    Remedy,
    command,
    iptables_of,
    nft_names,
)
from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule, PacketFilter
from viacheck.model.intent import TransportProtocol

_MOST_ROUNDS = 8
"""Most rules or policies that may drop one after the other."""
_USER_CHAIN = "DOCKER-USER"
_FIREWALLD = "firewalld"
"""The table of firewalld's own rules."""
_FIREWALLD_ZONES = ("filter_FORWARD_dispatch", "filter_FORWARD_ZONES", "filter_FORWARD_IN_ZONES")
"""firewalld's chain that selects the zone of a forwarded packet, since version 2.4, since 1.0 and before."""
_FIREWALLD_POLICIES = "filter_FORWARD_POLICIES_pre"
"""firewalld's chain of the policies that come before the zones, before version 2.4."""
_FIREWALLD_POLICY = "filter_FWD_policy_"
"""The start of the names of the chains of policies since then: the chains from zone to zone lead to them."""


@dataclass(frozen=True, slots=True)
class _Change:
    """One step of the remedy, its rollback, and the packet filter with the step in it."""

    steps: tuple[Command, ...]
    rollback: tuple[Command, ...]
    packet_filter: PacketFilter


def accept_agent(resolved: ResolvedIntent) -> Remedy:
    """Return the remedy that lets the agent's packets and answers pass the forward hook; empty where no rule helps."""
    packet_filter = resolved.snapshot.host.packet_filter
    steps: list[Command] = []
    rollback: list[Command] = []
    for _ in range(_MOST_ROUNDS):
        probes = list(forwarded_probes(resolved, packet_filter))
        if all(probe.passage.allowed for probe in probes):
            return Remedy(tuple(steps), tuple(rollback))
        dropped = next((probe for probe in probes if probe.passage.drops), None)
        change = _accepted(resolved, packet_filter, dropped) if dropped is not None else None
        if change is None:
            return NO_REMEDY
        steps += change.steps
        rollback[:0] = change.rollback
        packet_filter = change.packet_filter
    return NO_REMEDY


def accept_before(
    resolved: ResolvedIntent,
    direction: Direction,
    protocols: tuple[TransportProtocol, ...],
    drops: Sequence[tuple[str, Passage]],
) -> Remedy:
    """Return the remedy that accepts the agent's packets, or answers, before rules that may drop them.

    It is empty where a rule is not one of the forward hook: a packet that is accepted before it passes by what later
    rules of that hook do for routing.
    """
    packet_filter = resolved.snapshot.host.packet_filter
    steps: list[Command] = []
    rollback: list[Command] = []
    for _ in range(_MOST_ROUNDS):
        if not drops:
            return Remedy(tuple(steps), tuple(rollback))
        hook, drop = drops[0]
        if hook != "forward":
            return NO_REMEDY
        change = _accepted(resolved, packet_filter, ForwardedProbe(direction, protocols[0], drop))
        if change is None:
            return NO_REMEDY
        steps += change.steps
        rollback[:0] = change.rollback
        packet_filter = change.packet_filter
        drops = drops_on_the_way(resolved, direction, protocols, packet_filter)
    return NO_REMEDY


def _accepted(resolved: ResolvedIntent, packet_filter: PacketFilter, dropped: ForwardedProbe) -> _Change | None:
    """Return the change that lets a dropped probe or answer pass the rule or policy that drops it."""
    chain, rule = dropped.passage.chain, dropped.passage.rule
    if chain is None:
        return None
    if chain.table == _FIREWALLD:
        return _by_firewalld(resolved, packet_filter, dropped, chain)
    if chain.backend == "nft":
        return _by_nft(resolved, packet_filter, dropped, chain, rule)
    return _by_iptables(resolved, packet_filter, dropped, chain, rule)


def accept_decision(resolved: ResolvedIntent, chain: FilterChain) -> str:
    """Return what a person must decide where no remedy lets the agent's packets pass a chain."""
    if chain.table == _FIREWALLD and resolved.snapshot.firewalld_runs is False:
        return (
            f"firewalld does not run, and its table is still in the kernel: start firewalld, and run again for its "
            f"commands; or, if it is not to run any more, delete its table (nft delete table {chain.family} "
            f"{chain.table})"
        )
    return f"accept {resolved.agent_subnet or resolved.agent_source} before what drops it there"


def accept_bridge(resolved: ResolvedIntent, bridge: str, chain: FilterChain) -> Remedy:
    """Return the remedy that lets frames pass which a bridge forwards; empty where no rule of iptables helps.

    Docker keeps the rules of its chain for the operator, so that the rule goes there where there is one.
    """
    packet_filter, host = resolved.snapshot.host.packet_filter, resolved.snapshot.host
    if chain.backend == "nft":
        return NO_REMEDY
    matches = tuple(FilterMatch(field=field, values=(bridge,)) for field in ("iif", "oif"))
    accepting = FilterRule(matches=matches, verdict="accept")
    protocols = tuple(PROTOCOL_NUMBERS[protocol] for protocol in resolved.intent.probe.protocols)
    users = [
        other
        for other in packet_filter.chains
        if other.name == _USER_CHAIN
        and (other.backend, other.table, other.family) == (chain.backend, chain.table, chain.family)
    ]
    for into in (*users, chain):
        candidate = _with_chain(packet_filter, into, replace(into, rules=(accepting, *into.rules)))
        passages = bridge_passages(host, bridge, str(resolved.agent_address), resolved.target, protocols, candidate)
        if all(passage.allowed for passage in passages):
            table = () if into.table == "filter" else ("-t", into.table)
            rule = (into.name, "-i", bridge, "-o", bridge, "-j", "ACCEPT")
            program = iptables_of(into)
            return Remedy((command(program, *table, "-I", *rule),), (command(program, *table, "-D", *rule),))
    return NO_REMEDY


def _by_firewalld(
    resolved: ResolvedIntent, packet_filter: PacketFilter, dropped: ForwardedProbe, chain: FilterChain
) -> _Change | None:
    """Return firewalld's own change: it would remove a rule that is typed into its table.

    firewalld's policies come before its zones, so that a zone does not accept what a policy drops.
    """
    if resolved.snapshot.firewalld_runs is False:
        return None
    subnet = str(resolved.agent_subnet or resolved.agent_source)
    bound = f"--add-source={subnet}"
    removed = bound.replace("--add-", "--remove-", 1)
    candidate = replace(
        packet_filter,
        chains=tuple(
            _with_trusted_source(other, packet_filter, subnet) if other.table == chain.table else other
            for other in packet_filter.chains
        ),
    )
    if _drops_still(resolved, candidate, dropped):
        return None
    permanent = ("firewall-cmd", "--permanent", "--zone=trusted")
    return _Change(
        (command("firewall-cmd", "--zone=trusted", bound), command(*permanent, bound)),
        (command(*permanent, removed), command("firewall-cmd", "--zone=trusted", removed)),
        candidate,
    )


def _with_trusted_source(chain: FilterChain, packet_filter: PacketFilter, subnet: str) -> FilterChain:
    """Return a chain of firewalld as it is when its zone ``trusted`` has a source: first of all zones that forward."""
    if chain.name not in _FIREWALLD_ZONES:
        return chain
    matches = _matches(Direction.OUT, subnet)
    # Which zones a policy is for is not in the rules: each may drop what the zone would accept.
    names = dict.fromkeys(
        other.name
        for other in packet_filter.chains
        if other.table == chain.table and (other.name == _FIREWALLD_POLICIES or _is_policy(other, chain))
    )
    policies = [FilterRule(matches=matches, verdict="jump", argument=name) for name in names]
    return replace(chain, rules=(*policies, FilterRule(matches=matches, verdict="accept"), *chain.rules))


def _is_policy(policy: FilterChain, zones: FilterChain) -> bool:
    """Return whether a chain is that of a policy, which a chain from zone to zone leads to."""
    name = policy.name.removeprefix(_FIREWALLD_POLICY)
    of_one_part = name.endswith(("_pre", "_log", "_deny", "_allow", "_post"))
    return zones.name == _FIREWALLD_ZONES[0] and name != policy.name and not of_one_part


def _by_nft(
    resolved: ResolvedIntent,
    packet_filter: PacketFilter,
    dropped: ForwardedProbe,
    chain: FilterChain,
    rule: FilterRule | None,
) -> _Change | None:
    """Return the change of nftables: a rule that accepts, right before the rule that drops or before the policy.

    Its comment identifies the rule for the rollback, because the kernel assigns the handle.
    """
    names = nft_names(chain)
    if names is None or (rule is not None and rule.handle is None):
        return None
    subnet = str(resolved.agent_subnet or resolved.agent_source)
    comment = f"viacheck-{dropped.direction}"
    condition = f"ip saddr {subnet}"
    if dropped.direction is Direction.ANSWER:
        condition = f"ip daddr {subnet} ct state established,related"
    place = ("add", "rule", *names) if rule is None else ("insert", "rule", *names, "position", str(rule.handle))
    listed = f"nft -a list chain {' '.join(names)} | sed -n 's/.*comment \"{comment}\" # handle //p'"
    position = len(chain.rules) if rule is None else _position(chain, rule)
    accepting = FilterRule(matches=_matches(dropped.direction, subnet), verdict="accept")
    changed = replace(chain, rules=(*chain.rules[:position], accepting, *chain.rules[position:]))
    return _Change(
        (command("nft", f'{" ".join(place)} {condition} accept comment "{comment}"'),),
        (command("nft", "delete", "rule", *names, "handle", CommandOutput(("sh", "-c", listed))),),
        _with_chain(packet_filter, chain, changed),
    )


def _by_iptables(
    resolved: ResolvedIntent,
    packet_filter: PacketFilter,
    dropped: ForwardedProbe,
    chain: FilterChain,
    rule: FilterRule | None,
) -> _Change | None:
    """Return the change of iptables: a rule that accepts, right before the rule that drops."""
    subnet = str(resolved.agent_subnet or resolved.agent_source)
    options: tuple[str, ...] = ("-s", subnet)
    if dropped.direction is Direction.ANSWER:
        options = ("-d", subnet, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
    accepting = FilterRule(matches=_matches(dropped.direction, subnet), verdict="accept")
    for into, position in _places(packet_filter, chain, rule):
        changed = replace(into, rules=(*into.rules[:position], accepting, *into.rules[position:]))
        candidate = _with_chain(packet_filter, into, changed)
        if not _drops_still(resolved, candidate, dropped):
            table = () if into.table == "filter" else ("-t", into.table)
            arguments = (*options, "-j", "ACCEPT")
            place = (into.name,) if position == 0 else (into.name, str(position + 1))
            return _Change(
                (command(iptables_of(into), *table, "-I", *place, *arguments),),
                (command(iptables_of(into), *table, "-D", into.name, *arguments),),
                candidate,
            )
    return None


def _places(
    packet_filter: PacketFilter, chain: FilterChain, rule: FilterRule | None
) -> Iterator[tuple[FilterChain, int]]:
    """Yield the chains and the numbers of rules before an accepting rule, the best place first.

    Before a rule that drops is the only place. For a policy Docker's chain for the operator comes first, because
    Docker keeps its rules; otherwise the end of the base chain.
    """
    if rule is not None:
        yield chain, _position(chain, rule)
        return
    for user_chain in packet_filter.chains:
        of_table = (user_chain.backend, user_chain.table, user_chain.family)
        if user_chain.name == _USER_CHAIN and of_table == (chain.backend, chain.table, chain.family):
            yield user_chain, 0
    yield chain, len(chain.rules)


def _position(chain: FilterChain, rule: FilterRule) -> int:
    """Return the number of rules before a rule."""
    return next(number for number, other in enumerate(chain.rules) if other.is_part_of(rule))


def _matches(direction: Direction, subnet: str) -> tuple[FilterMatch, ...]:
    """Return the conditions of an accepting rule: the agent's packets, or the answers to them."""
    if direction is Direction.OUT:
        return (FilterMatch(field="source", values=(subnet,)),)
    states = FilterMatch(field="ctstate", values=("related", "established"))
    return (FilterMatch(field="destination", values=(subnet,)), states)


def _drops_still(resolved: ResolvedIntent, packet_filter: PacketFilter, dropped: ForwardedProbe) -> bool:
    """Whether the same rule or policy still drops the same probe."""
    for probe in forwarded_probes(resolved, packet_filter):
        if (probe.direction, probe.protocol) == (dropped.direction, dropped.protocol):
            return probe.passage.drops and probe.passage.rule is dropped.passage.rule
    return False


def _with_chain(packet_filter: PacketFilter, chain: FilterChain, changed: FilterChain) -> PacketFilter:
    chains = tuple(changed if other is chain else other for other in packet_filter.chains)
    return replace(packet_filter, chains=chains)
