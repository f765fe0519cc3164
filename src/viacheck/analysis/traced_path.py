"""A packet of the agent, and what becomes of it: the result of tracing it through the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from viacheck.analysis.packet_filter.icmp import echo_request
from viacheck.analysis.routing.decision import Decision
from viacheck.analysis.routing.packet import Packet
from viacheck.model.address_family import Family
from viacheck.model.filter_chains import FilterChain, FilterRule
from viacheck.model.path import PathHop


class PathEnd(StrEnum):
    """Where the path of a packet out of the agent ends."""

    LEAVES = "leaves"
    LOCAL = "local"
    """Delivered to the agent itself or to the host."""
    TUNNEL = "tunnel"
    """Enters a tunnel inside the agent's namespace."""
    DROPPED = "dropped"
    NO_ROUTE = "no-route"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One packet of the agent, as the agent's process sends it."""

    destination: str
    protocol: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    """The type of a message of ICMP; None: an echo request."""
    source: str | None = None
    """An address of the agent; None: the agent's routing chooses."""
    device: str | None = None
    """The agent's interface that the socket is bound to."""

    @property
    def family(self) -> Family:
        """The address family of the packet."""
        return 6 if ":" in self.destination else 4

    @property
    def message_type(self) -> int | None:
        """The type of a message of ICMP; None for another protocol."""
        return echo_request(self.protocol) if self.icmp_type is None else self.icmp_type

    @property
    def packet(self) -> Packet:
        """The packet as the agent's own routing sees it."""
        return Packet(
            source=self.source, destination=self.destination, oif=self.device, protocol=self.protocol, dport=self.dport
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The path of a packet out, and of its answer back."""

    traffic: Traffic
    end: PathEnd
    out: tuple[PathHop, ...]
    egress: frozenset[str] = frozenset()
    """The host's interfaces by which it leaves; several where the choice depends on the flow."""
    source: str | None = None
    """The source address on the wire."""
    gateway: str | None = None
    destination: str | None = None
    """The destination address on the wire, where the host's NAT changes it."""
    reason: str = ""
    """The reason for the end: the rule, route or filter that decides."""
    answer: tuple[PathHop, ...] = ()
    answer_returns: bool | None = None
    """Whether the answer reaches the agent; None where the model cannot say, or no answer is expected."""
    answer_reason: str = ""
    misrouted: Decision | None = None
    """The host's look-up for the answer, where it does not lead to the agent."""
    answer_untracked_by: tuple[FilterChain, FilterRule] | None = None
    """The rule by which conntrack does not see the answer, where NAT would have to be reversed."""
    ttl: int | None = None
    """The TTL on the wire; None where it is unknown."""
    expires_by: tuple[FilterChain, FilterRule] | None = None
    """The rule that lowers its TTL so that it expires: on this host, or at the next router."""
    answer_expires_by: tuple[FilterChain, FilterRule] | None = None
    """The rule that lowers the answer's TTL so that it expires on this host."""
    later_egress: frozenset[str] = frozenset()
    """The interfaces by which later packets of the flow leave, where those are others: the first alone has a mark."""
    later_dropped: bool = False
    """Later packets are routed elsewhere than the first, and masquerade drops them."""
    random_rules: tuple[str, ...] = ()
    """The packet filter rules whose draw decides what becomes of the packet, as their tool prints them."""

    @property
    def egress_interface(self) -> str | None:
        """The host's interface by which it leaves; None where it does not leave, or depends on the flow."""
        return next(iter(self.egress)) if self.end is PathEnd.LEAVES and len(self.egress) == 1 else None

    @property
    def depends_on_flow(self) -> bool:
        """Whether different flows of the class leave by different interfaces, or some do not leave."""
        some_stay = bool(self.random_rules) or self.later_dropped
        return len(self.all_egress) > 1 or (some_stay and bool(self.egress))

    @property
    def depends_on_packet(self) -> bool:
        """Whether later packets of a flow do not take the way of its first one."""
        return bool(self.later_egress) or self.later_dropped

    @property
    def all_egress(self) -> frozenset[str]:
        """The interfaces by which the first packet of a flow, or a later one, may leave."""
        return self.egress | self.later_egress

    @property
    def egress_text(self) -> str:
        """The interfaces by which it may leave, for people; where it does not leave, its end."""
        some_stay = self.depends_on_flow and len(self.all_egress) == 1
        return " or ".join([*sorted(self.all_egress), *(["no interface"] if some_stay else [])]) or self.end.value


def of_all_outcomes(outcomes: Sequence[Path], random_rules: tuple[str, ...], *, complete: bool) -> Path:
    """Return one path for all outcomes of what rules draw: that of the first, where all end alike."""
    ends = {(path.end, path.egress): path for path in reversed(outcomes)}
    first = next((path for path in outcomes if path.egress), outcomes[0])
    returns = {path.answer_returns for path in outcomes}
    if len(returns) > 1:
        reason = "whether it returns depends on what a rule draws at random"
        first = replace(first, answer_returns=None, answer_reason=reason)
    if len({path.source for path in outcomes}) > 1:
        first = replace(first, source=None)
    if len(ends) == 1:
        return first if complete else replace(first, end=PathEnd.UNKNOWN, reason="too many rules draw at random")
    by_end = [
        f"{' or '.join(sorted(path.egress)) or path.end.value}: {path.reason}" for path in reversed(ends.values())
    ]
    is_known = complete and all(path.end is not PathEnd.UNKNOWN for path in outcomes)
    return replace(
        first,
        end=first.end if is_known else PathEnd.UNKNOWN,
        egress=frozenset(name for path in outcomes for name in path.egress),
        reason=f"drawn for each packet by {' and '.join(map(repr, random_rules))}: {'; '.join(by_end)}",
        random_rules=random_rules,
    )
