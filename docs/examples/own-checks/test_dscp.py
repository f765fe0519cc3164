"""Checks of our own: the provider of the uplink sorts packets by DSCP, so the host must not change it."""

from __future__ import annotations

from fixtures.checks import Agent, WatchInterfaces
from fixtures.expect import Expect

from viacheck import check
from viacheck.model.intent import Intent
from viacheck.model.snapshot import Snapshot

BEST_EFFORT = 0


@check("DSCP-01", "The agent's UDP packets leave with the DSCP that the agent set", needs="capture")
def test_dscp_is_unchanged(intent: Intent, watch: WatchInterfaces, agent: Agent, expect: Expect) -> None:
    with watch(intent.uplinks) as seen:
        agent.send("udp", to=intent.probe.target)
    sent = [packet for packet in seen.packets if packet.sniffed_on == intent.egress.uplink and packet.direction == 0]
    codes = sorted({packet["IP"].tos >> 2 for packet in sent})
    expect.holds(
        codes == [BEST_EFFORT],
        expected=f"DSCP {BEST_EFFORT} on {intent.egress.uplink}",
        observed=f"{len(sent)} packets on {intent.egress.uplink}, DSCP {codes}",
    )


@check("DSCP-02", "Docker and the uplinks are on one host with IPv4 forwarding")
def test_forwarding_is_on(snapshot: Snapshot, expect: Expect) -> None:
    value = snapshot.host.sysctls.get("net/ipv4/ip_forward")
    expect.holds(value == "1", expected="net.ipv4.ip_forward = 1", observed=f"net.ipv4.ip_forward = {value}")
