"""What a run on a live host says before its first packet leaves: what it sends, where to, and from where."""

from __future__ import annotations

from viacheck.host.capabilities import missing_capabilities
from viacheck.model.intent import Intent, NatAttach
from viacheck.model.intent_rules import BY_DRIVER


def packets_sent(intent: Intent, site: str, agent: str, *, disruptive: bool, of_host: bool) -> list[str]:
    """Return the lines about the packets that a run on a live host sends.

    Args:
        intent: what the agent is judged by.
        site: the site file, as the command line names it.
        agent: the agent's name in a site file with several; empty in another.
        disruptive: whether the run interrupts the network.
        of_host: whether it judges what concerns the host alone, too.
    """
    changes = "it interrupts the network as listed below" if disruptive else "it changes nothing"
    agent_named = f", agent {agent}" if agent else ""
    about = f"viacheck judges this host for site {intent.site.name!r}{agent_named} ({site}); {changes}, and sends"
    missing = missing_capabilities()
    if missing is not None:
        return [f"{about} nothing: probes and captures need {missing}"]
    probe = intent.probe
    protocols = ", ".join(
        protocol.upper() if protocol == "icmp" else f"{protocol.upper()} port {probe.port}"
        for protocol in probe.protocols
    )
    uplinks = ", ".join(
        f"{uplink.gateway} on {name}" for name, uplink in intent.uplinks.items() if uplink.gateway is not None
    )
    arp = []
    if uplinks and of_host:
        arp = [f"1 to 3 ARP requests each for {uplinks}, and as many for the gateway of a route where one is silent"]
    attach = intent.agent.attach
    sources = []
    if intent.agent.source:
        names = ", ".join(source.name for source in intent.agent.source)
        sources = [f"  from the agent, bound to each of {names}: as many to {probe.target}"]
    segment = []
    if not isinstance(attach, NatAttach):
        segment = [
            f"  on {attach.parent}'s segment: 4 pings of the agent and 3 of the host to the gateway, 3 pings of the "
            "agent to the host; 4 to 12 ARP requests for the gateway, half of them from the agent's MAC address; up to "
            "3 ARP probes from either side for the agent's own address"
            + ("; up to 8 DHCPDISCOVER, never a DHCPREQUEST" if attach.mode in BY_DRIVER else "")
        ]
    pings = "" if segment else "3 pings to each gateway, "
    return [
        f"{about}:",
        f"  from the agent {intent.agent.name}{' and from the host' if of_host else ''}, to {probe.target}: "
        f"{probe.count} each of {protocols}",
        f"  from the agent: {probe.count} DNS queries to each resolver, {probe.count} or {2 * probe.count} full-size "
        f"packets to {probe.target}, {pings}{probe.count} IPv6 probes if it has an address",
        *sources,
        "  where only some of these are answered: up to 50 of each kind, to measure the loss",
        "  from the agent: 1 packet for each class of traffic that the model sees leave elsewhere (at most 50): ICMP, "
        "UDP or TCP to an address and a port that the deciding rule or route selects",
        *segment,
        f"  from the host: {'; '.join([*arp, 'a frame to itself on every interface'])} that it watches",
    ]
