"""Faults that only packets show: reverse path filter, MTU, IPv6, copied packets, DNS."""

from __future__ import annotations

from netns_lab import nft_rules
from netns_lab.faults.fault import FAULT_TABLE, fault
from netns_lab.faults.routing import rule_missing
from netns_lab.lab import Lab
from netns_lab.nft_rules import DropICMPErrors, Duplicate, SetMark
from netns_lab.plan import PROBE_TARGET6, RESOLVER
from netns_lab.scenarios import AGENT_SUBNET, SECOND_ADDRESS, TABLE
from netns_lab.services.dns_forwarder import start_forwarder


@fault("strict-reverse-path", "The rule matches an fwmark, and the reverse path filter is strict", on="policy-routing",
       breaks={"EGRESS-03"}, diagnosis="RP_FILTER_DROP")  # fmt: skip
def strict_reverse_path(lab: Lab) -> None:
    rule_missing(lab)
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [SetMark(mark=0x20, source=AGENT_SUBNET)])
    lab.host.ip("rule", "add", "priority", "1000", "fwmark", "0x20", "lookup", str(TABLE))
    lab.host.sysctl("net/ipv4/conf/wlan0/rp_filter", "1")


@fault("mtu-trap", "The uplink has an MTU of 1400 bytes, and no ICMP error reports it", on="policy-routing",
       breaks={"EGRESS-06"}, diagnosis="MTU_TRAP")  # fmt: skip
def mtu_trap(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", "wlan0", "mtu", "1400")
    lab.gateway("wlan0").ip("link", "set", "dev", "lan0", "mtu", "1400")
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [DropICMPErrors(only_packet_too_big=True)])


@fault("ipv6-escapes", "The IPv4 rule has no IPv6 counterpart", on="policy-routing-hardened",
       breaks={"EGRESS-07"}, diagnosis="IPV6_ESCAPES", flavour="netns")  # fmt: skip
def ipv6_escapes(lab: Lab) -> None:
    lab.host.ip("-6", "rule", "del", "priority", "1000")


@fault("mirrored-copy", "The host sends a copy of each packet out of the other uplink", on="policy-routing",
       breaks={"EGRESS-01", "EGRESS-02", "EGRESS-05"}, diagnosis="PACKETS_COPIED")  # fmt: skip
def mirrored_copy(lab: Lab) -> None:
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [Duplicate(device="wlan0", to="eth0")])


@fault("dns-other-path", "A resolver on the host forwards the agent's DNS queries", on="policy-routing",
       breaks={"EGRESS-05"}, diagnosis="DNS_OTHER_PATH", flavour="netns")  # fmt: skip
def dns_other_path(lab: Lab) -> None:
    lab.on_close(start_forwarder(lab.host.namespace, listen="172.17.0.1", upstream=RESOLVER))
    lab.host.write("/etc/resolv.conf", "nameserver 172.17.0.1\n")


@fault("dns-second-resolver", "The second resolver is on the host and forwards the agent's DNS queries",
       on="policy-routing", breaks={"EGRESS-05"}, diagnosis="DNS_OTHER_PATH", flavour="netns")  # fmt: skip
def dns_second_resolver(lab: Lab) -> None:
    lab.on_close(start_forwarder(lab.host.namespace, listen="172.17.0.1", upstream=RESOLVER))
    lab.host.write("/etc/resolv.conf", f"nameserver {RESOLVER}\nnameserver 172.17.0.1\n")


@fault("dns-ipv6-escapes", "The second resolver has an IPv6 address, and no IPv6 rule sends the agent's queries to it",
       on="policy-routing-hardened", breaks={"EGRESS-05", "EGRESS-07"}, diagnosis="IPV6_ESCAPES",
       flavour="netns")  # fmt: skip
def dns_ipv6_escapes(lab: Lab) -> None:
    ipv6_escapes(lab)
    lab.host.write("/etc/resolv.conf", f"nameserver {RESOLVER}\nnameserver {PROBE_TARGET6}\n")


@fault("answers-lost", "A third of the UDP probes gets no answer", on="policy-routing",
       breaks={"EGRESS-03"}, diagnosis="PACKETS_LOST", flavour="netns")  # fmt: skip
def answers_lost(lab: Lab) -> None:
    lab.responders.ignored_share = 1 / 3


@fault("strict-on-all", "The reverse-path check is strict on all interfaces, the agent's bridge included",
       on="policy-routing", breaks={"EGRESS-01"}, diagnosis="RP_FILTER_DROP")  # fmt: skip
def strict_on_all(lab: Lab) -> None:
    lab.host.sysctl("net/ipv4/conf/all/rp_filter", "1")


@fault("source-rule-missing", "The rule for the agent's second address is missing", on="agent-sources",
       breaks={"EGRESS-10"}, diagnosis="SOURCE_BYPASSES_UPLINK", flavour="netns")  # fmt: skip
def source_rule_missing(lab: Lab) -> None:
    lab.host.ip("rule", "del", "from", SECOND_ADDRESS)


@fault("source-answers-misrouted", "A rule sends the answers to the agent's second address out again",
       on="agent-sources", breaks={"EGRESS-10"}, diagnosis="ANSWERS_MISROUTED", flavour="netns")  # fmt: skip
def source_answers_misrouted(lab: Lab) -> None:
    lab.host.ip("rule", "add", "priority", "50", "iif", "wlan0", "to", SECOND_ADDRESS, "lookup", str(TABLE))


@fault("source-address-missing", "The agent does not have the second address that the intent names",
       on="agent-sources", breaks={"EGRESS-10"}, diagnosis="SOURCE_MISSING", flavour="netns")  # fmt: skip
def source_address_missing(lab: Lab) -> None:
    lab.agent.ip("address", "del", f"{SECOND_ADDRESS}/16", "dev", "eth0")
