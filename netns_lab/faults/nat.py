"""Faults of NAT: the bridge and the source translation."""

from __future__ import annotations

from netns_lab import nft_rules
from netns_lab.faults.fault import FAULT_TABLE, fault
from netns_lab.lab import Lab
from netns_lab.nft_rules import Masquerade, SourceNAT
from netns_lab.plan import PACKET_FILTER_TABLE
from netns_lab.scenarios import AGENT_SUBNET, BRIDGE


@fault("masquerade-missing", "No rule translates the agent's source", on="nat",
       breaks={"NAT-02", "EGRESS-02", "EGRESS-03", "ROUTE-06"},
       diagnosis="MASQUERADE_MISSING", flavour="netns")  # fmt: skip
def masquerade_missing(lab: Lab) -> None:
    nft_rules.remove(lab.host.namespace, PACKET_FILTER_TABLE)


@fault("filter-flushed", "The packet filter was flushed, and with it the engine's own NAT",
       on="nat", breaks={"NAT-02", "EGRESS-02", "EGRESS-03", "ROUTE-06"},
       diagnosis="MASQUERADE_MISSING", flavour="engine", needs={"nft": "nftables"})  # fmt: skip
def filter_flushed(lab: Lab) -> None:
    lab.host.run("nft", "flush", "ruleset")


@fault("masquerade-elsewhere", "The agent's source is translated on the other uplink only", on="policy-routing",
       breaks={"NAT-02", "EGRESS-02", "EGRESS-03", "ROUTE-06"},
       diagnosis="MASQUERADE_MISSING", flavour="netns")  # fmt: skip
def masquerade_elsewhere(lab: Lab) -> None:
    masquerade_missing(lab)
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [Masquerade(source=AGENT_SUBNET, oif="eth0")])


@fault("snat-other-uplink", "The agent's source is translated to the other uplink's address", on="policy-routing",
       breaks={"NAT-02", "EGRESS-02", "EGRESS-03", "ROUTE-06"},
       diagnosis="SOURCE_NOT_UPLINK", flavour="netns")  # fmt: skip
def snat_other_uplink(lab: Lab) -> None:
    masquerade_missing(lab)
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [SourceNAT(source=AGENT_SUBNET, to="10.10.40.9")])


@fault("uplink-in-bridge", "The uplink is a port of docker0", on="policy-routing",
       breaks={"NAT-01", "EGRESS-01", "ROUTE-06"}, diagnosis="BRIDGED_UPLINK")  # fmt: skip
def uplink_in_bridge(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", "wlan0", "master", BRIDGE)


@fault("tunnel-in-agent", "The agent's own default route leads into a tunnel in its namespace", on="policy-routing",
       breaks={"EGRESS-01", "EGRESS-08", "ROUTE-05"}, diagnosis="AGENT_USES_TUNNEL")  # fmt: skip
def tunnel_in_agent(lab: Lab) -> None:
    lab.agent.ip("tuntap", "add", "tun0", "mode", "tun")
    lab.agent.ip("address", "add", "10.99.0.2/24", "dev", "tun0")
    lab.agent.ip("link", "set", "tun0", "up")
    lab.agent.ip("route", "replace", "default", "dev", "tun0")
