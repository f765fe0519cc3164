"""Causes that lie in NAT: the bridge that must stay inside, and the translation at the uplink."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.nat_facts import enslaved_uplinks, source_translation
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import EGRESS, Cause, command
from viacheck.model.intent import NatAttach
from viacheck.model.measurements import Measurements


def uplink_in_bridge(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """An uplink is a port of the agent's bridge, so the bridge is on the LAN."""
    if not isinstance(resolved.intent.agent.attach, NatAttach) or resolved.bridge is None:
        return
    for name in enslaved_uplinks(resolved):
        yield Cause(
            "BRIDGED_UPLINK", "NAT-01",
            f"{name} is a port of {resolved.bridge}: the agent's bridge is on the LAN, "
            f"and {name}'s own address is dead",
            remedy=(command("ip", "link", "set", "dev", name, "nomaster"),),
            undo=(command("ip", "link", "set", "dev", name, "master", resolved.bridge),),
            explains=EGRESS | {"HOST-02", "HOST-03", "ROUTE-04", "ROUTE-05", "ROUTE-06", "EGRESS-04", "EGRESS-07"},
        )  # fmt: skip


def source_nat_faulty(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The agent's packets would leave the uplink with a source that answers cannot come back to."""
    if not isinstance(resolved.intent.agent.attach, NatAttach) or resolved.agent_source is None:
        return
    found = source_translation(resolved)
    subnet = resolved.agent_subnet or resolved.agent_source
    rule = ("-s", subnet, "!", "-o", resolved.bridge or "docker0", "-j", "MASQUERADE")
    if found.kind == "none":
        yield Cause(
            "MASQUERADE_MISSING", "NAT-02",
            f"no rule translates the source of {subnet} on {resolved.uplink}: packets would leave with "
            f"{resolved.agent_source}, to which no answer finds back",
            remedy=(command("iptables", "-t", "nat", "-A", "POSTROUTING", *rule),),
            undo=(command("iptables", "-t", "nat", "-D", "POSTROUTING", *rule),),
            explains=EGRESS | {"ROUTE-06"},
        )  # fmt: skip
    elif found.kind == "snat" and found.address not in resolved.uplink_addresses(resolved.uplink):
        chain, text = found.chain, found.rule.text if found.rule else ""
        if chain is not None and found.rule is not None and chain.backend == "nft":
            remove = command(
                "nft", "delete", "rule", chain.family, chain.table, chain.name, "handle", found.rule.handle
            )
            restore = f"nft insert rule {chain.family} {chain.table} {chain.name} {text}"
        else:
            remove = f"iptables -t nat {text.replace('-A ', '-D ', 1)}"
            restore = f"iptables -t nat {text.replace('-A ', '-I ', 1)}"
        yield Cause(
            "SOURCE_NOT_UPLINK", "NAT-02",
            f"the rule '{text}' gives the agent's packets the source {found.address}, "
            f"which is no address of {resolved.uplink}",
            remedy=(remove, command("iptables", "-t", "nat", "-A", "POSTROUTING", *rule)),
            undo=(command("iptables", "-t", "nat", "-D", "POSTROUTING", *rule), restore),
            explains=EGRESS | {"ROUTE-06"},
        )  # fmt: skip
