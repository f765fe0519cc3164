"""NAT: the bridge has no uplink in it, and the agent's source is translated at the uplink."""

from __future__ import annotations

from collections.abc import Callable

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.agent_network import (
    apart_from_attachment,
    attached_elsewhere,
    intended_docker_network,
)
from viacheck.analysis.container_facts import nat_follows_start
from viacheck.analysis.nat_facts import enslaved_uplinks, source_translation
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.check import NAT
from viacheck.model.snapshot import Snapshot


@check("NAT-01", "No uplink is a port of the agent's bridge", guide="NAT", applies=NAT)
def test_the_bridge_stays_inside(resolved: ResolvedIntent, expect: Expect) -> None:
    ports = enslaved_uplinks(resolved)
    expect.holds(
        not ports,
        expected=f"no uplink is a port of {resolved.bridge}",
        observed=f"{', '.join(ports)} is a port of {resolved.bridge}" if ports else "none",
    )


@check("NAT-02", "Source NAT covers the agent's subnet on the intended uplink", guide="NAT", applies=NAT)
def test_source_nat_covers_the_agent(
    resolved: ResolvedIntent, snapshot: Snapshot, subnet_is_routed: Callable[[], bool], expect: Expect
) -> None:
    network = apart_from_attachment(resolved)
    if network is not None:
        expect.not_applicable(f"{network.text}; no source NAT applies to them here")
    if nat_follows_start(resolved):
        expect.not_run("podman makes the agent's bridge and its source NAT when the container starts (HOST-07)")
    translation = source_translation(resolved)
    unread = snapshot.problem("packet filter")
    expected = f"{resolved.agent_subnet} is translated to an address of {resolved.uplink}"
    if translation.kind == "unknown" and unread is not None:
        expect.unread(unread)
    if translation.kind == "unknown":
        expect.inconclusive(
            f"the model cannot evaluate this rule: {translation.rule.text if translation.rule else ''}",
            expected=expected,
        )
    by = (
        f" by {translation.chain.table} {translation.chain.name}: {translation.rule.text}"
        if translation.chain and translation.rule
        else ""
    )
    record = expect.advises if translation.kind == "none" and subnet_is_routed() else expect.holds
    record(
        translation.kind == "masquerade"
        or (translation.kind == "snat" and translation.address in resolved.uplink_addresses(resolved.uplink)),
        expected=expected,
        observed={
            "none": f"excluded{by}" if by else "no rule translates it",
            "masquerade": f"masqueraded{by}",
            "snat": f"translated to {translation.address}{by}",
        }[translation.kind],
    )


@check(
    "NAT-03",
    "The agent is on the Docker network that the intent names",
    guide="NAT",
    needs="docker",
    applies=NAT,
)
def test_the_agent_is_on_its_network(resolved: ResolvedIntent, snapshot: Snapshot, expect: Expect) -> None:
    container, wanted = snapshot.engine.container if snapshot.engine else None, intended_docker_network(resolved)
    if container is None:
        expect.not_applicable("the agent is not a container, or the engine does not show it (HOST-07)")
    elsewhere = attached_elsewhere(resolved)
    observed = ", ".join(attachment.network for attachment in container.attachments) or container.network_mode
    if container.network_mode.startswith("container:") and container.namespace_of is None:
        expect.not_run(f"the container shares the network of another one ({observed}), whose networks are not known")
    expect.holds(
        elsewhere is None and not resolved.shares_host_network,
        expected=f"{container.name} is on {wanted}",
        observed=f"on {observed}" if elsewhere is None else elsewhere.text,
    )
