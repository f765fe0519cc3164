"""NAT: the bridge stays inside, and the agent's source is translated at the uplink."""

from __future__ import annotations

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.nat_facts import enslaved_uplinks, source_translation
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.check import NAT
from viacheck.model.snapshot import Snapshot


@check("NAT-01", "The agent's bridge has no uplink enslaved", guide="NAT", applies=NAT)
def test_the_bridge_stays_inside(resolved: ResolvedIntent, expect: Expect) -> None:
    ports = enslaved_uplinks(resolved)
    expect.holds(
        not ports,
        expected=f"no uplink is a port of {resolved.bridge}",
        observed=f"{', '.join(ports)} is a port of {resolved.bridge}" if ports else "none is",
    )


@check("NAT-02", "Source NAT covers the agent's subnet on the intended uplink", guide="NAT", applies=NAT)
def test_source_nat_covers_the_agent(resolved: ResolvedIntent, snapshot: Snapshot, expect: Expect) -> None:
    found = source_translation(resolved)
    unread = snapshot.problem("packet filter")
    expected = f"{resolved.agent_subnet} is translated to an address of {resolved.uplink}"
    if found.kind == "unknown" and unread is not None:
        expect.unread(unread)
    if found.kind == "unknown":
        expect.inconclusive(
            f"this rule cannot be judged from its text: {found.rule.text if found.rule else ''}", expected=expected
        )
    by = f" by {found.chain.table} {found.chain.name}: {found.rule.text}" if found.chain and found.rule else ""
    expect.holds(
        found.kind == "masquerade"
        or (found.kind == "snat" and found.address in resolved.uplink_addresses(resolved.uplink)),
        expected=expected,
        observed={
            "none": "no rule translates it",
            "masquerade": f"masqueraded{by}",
            "snat": f"translated to {found.address}{by}",
        }[found.kind],
    )
