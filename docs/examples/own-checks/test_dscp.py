"""Checks of our own: the provider of the uplink sorts packets by DSCP, so the host must not change the DSCP."""

from viacheck import check

BEST_EFFORT = 0
OUTGOING = 2  # packet.direction, as in the flags of a pcapng file


@check("DSCP-01", "The agent's UDP packets leave by the uplink with an unchanged DSCP", needs="capture")
def test_dscp_is_unchanged(intent, watch, agent, expect):
    uplink = intent.egress.uplink
    with watch(intent.uplinks) as seen:
        agent.send("udp", to=intent.probe.target)
    sent = [packet for packet in seen.packets if packet.sniffed_on == uplink and packet.direction == OUTGOING]
    codes = sorted({packet["IP"].tos >> 2 for packet in sent})
    expect.holds(
        codes == [BEST_EFFORT],
        expected=f"DSCP {BEST_EFFORT} on {uplink}",
        observed=f"{len(sent)} packets on {uplink}, DSCP {codes}",
    )


@check("MTU-01", "Every uplink has an MTU of at least 1500")
def test_uplinks_have_the_usual_mtu(intent, snapshot, expect):
    mtus = {name: link.mtu for name in intent.uplinks if (link := snapshot.host.link(name)) is not None}
    expect.advises(
        len(mtus) == len(intent.uplinks) and min(mtus.values()) >= 1500,
        expected="an MTU of 1500 or more on " + ", ".join(intent.uplinks),
        observed=", ".join(f"{name} {mtu}" for name, mtu in mtus.items()),
    )
