"""Causes in NAT: an uplink that is a port of the agent's bridge, and the source translation at the uplink."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.nat_facts import enslaved_uplinks, source_translation
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import EGRESS, Cause
from viacheck.diagnosis.remedy import Remedy, command, iptables_rule_commands, nft_rule_commands
from viacheck.model.intent import NatAttach
from viacheck.model.measurements import Measurements


def uplink_in_bridge(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find an uplink that is a port of the agent's bridge, so that the bridge is on the LAN."""
    if not isinstance(resolved.intent.agent.attach, NatAttach) or resolved.bridge is None:
        return
    for name in enslaved_uplinks(resolved):
        yield Cause(
            "BRIDGED_UPLINK", "NAT-01",
            f"{name} is a port of {resolved.bridge}: the agent's bridge is on the LAN, and {name}'s own address does "
            "not work",
            Remedy(
                (command("ip", "link", "set", "dev", name, "nomaster"),),
                (command("ip", "link", "set", "dev", name, "master", resolved.bridge),),
            ),
            EGRESS | {"HOST-02", "HOST-03", "ROUTE-04", "ROUTE-05", "ROUTE-06", "EGRESS-04", "EGRESS-07"},
        )  # fmt: skip


def source_nat_faulty(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent's packets would leave the uplink with a source to which replies cannot come back."""
    if not isinstance(resolved.intent.agent.attach, NatAttach) or resolved.agent_source is None:
        return
    translation = source_translation(resolved)
    chain, rule = translation.chain, translation.rule
    subnet = resolved.agent_subnet or resolved.agent_source
    masquerade = ("-s", subnet, "!", "-o", resolved.bridge or "docker0", "-j", "MASQUERADE")
    add = command("iptables", "-t", "nat", "-A", "POSTROUTING", *masquerade)
    delete = command("iptables", "-t", "nat", "-D", "POSTROUTING", *masquerade)
    if translation.kind == "none":
        yield Cause(
            "MASQUERADE_MISSING", "NAT-02",
            f"no rule translates the source of {subnet} on {resolved.uplink}: packets would leave with "
            f"{resolved.agent_source}, so replies cannot come back",
            Remedy((add,), (delete,)), EGRESS | {"ROUTE-06"},
        )  # fmt: skip
    elif translation.kind == "snat" and translation.address not in resolved.uplink_addresses(resolved.uplink):
        removal = Remedy()
        if rule is not None:
            is_nft = chain is not None and chain.backend == "nft"
            removal = nft_rule_commands(chain, rule, first=True) if is_nft else iptables_rule_commands("nat", rule)  # type: ignore[arg-type]
        remedy = Remedy((*removal.steps, add), (delete, *removal.rollback)) if removal else Remedy()
        yield Cause(
            "SOURCE_NOT_UPLINK", "NAT-02",
            f"the rule '{rule.text if rule is not None else ''}' gives the agent's packets the source "
            f"{translation.address}, which is not an address of {resolved.uplink}",
            remedy, EGRESS | {"ROUTE-06"},
        )  # fmt: skip
