"""Ways to break a lab on purpose. Each names the checks that it breaks and the diagnosis that must be told.

The fault matrix (tests/test_fault_matrix.py) holds every one of these to its word: exactly the declared checks get worse
than in the healthy lab, and each with the declared diagnosis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from netns_lab import nftables
from netns_lab.builder import AGENT_PATH, PACKET_FILTER_TABLE
from netns_lab.lab import Lab, LabCommandError
from netns_lab.nftables import (
    DropICMPErrors,
    Duplicate,
    ForwardPolicy,
    Masquerade,
    SetMark,
    SourceNAT,
)
from netns_lab.plan import PROBE_TARGET, RESOLVER, RT_TABLES
from netns_lab.resolver import start_forwarder
from netns_lab.scenarios import AGENT_SUBNET, BRIDGE, TABLE, TABLE_NAME

Break = Callable[[Lab], None]
FAULT_TABLE = "viacheck-fault"
_BOTH = ("policy-routing", "policy-routing-hardened")


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break a lab."""

    name: str
    title: str
    on: tuple[str, ...]
    """Scenarios that it belongs to."""
    breaks: frozenset[str]
    """Checks whose verdict gets worse than in the healthy lab; no others do."""
    diagnosis: str
    apply: Break
    flavour: Literal["any", "netns", "engine"] = "any"


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    title: str,
    *,
    on: str | tuple[str, ...],
    breaks: set[str],
    diagnosis: str,
    flavour: Literal["any", "netns", "engine"] = "any",
) -> Callable[[Break], Break]:
    """Register a fault under its name."""

    def register(apply: Break) -> Break:
        scenarios = (on,) if isinstance(on, str) else on
        FAULTS[name] = Fault(name, title, scenarios, frozenset(breaks), diagnosis, apply, flavour)
        return apply

    return register


_LEAVES_ELSEWHERE = {"ROUTE-05", "EGRESS-01", "EGRESS-05"}


@fault("rule-missing", "No rule for the agent's subnet", on="policy-routing",
       breaks={"ROUTE-02", *_LEAVES_ELSEWHERE}, diagnosis="RULE_MISSING")  # fmt: skip
def rule_missing(lab: Lab) -> None:
    lab.host.ip("rule", "del", "from", AGENT_SUBNET, "lookup", str(TABLE))


@fault("rule-duplicated", "The same rule twice, as a second ifup leaves it", on="policy-routing",
       breaks={"ROUTE-02"}, diagnosis="RULE_DUPLICATED")  # fmt: skip
def rule_duplicated(lab: Lab) -> None:
    lab.host.ip("rule", "add", "from", AGENT_SUBNET, "lookup", str(TABLE))


@fault("rule-shadowed", "A narrower rule comes first", on="policy-routing",
       breaks={"ROUTE-03", *_LEAVES_ELSEWHERE}, diagnosis="RULE_SHADOWED")  # fmt: skip
def rule_shadowed(lab: Lab) -> None:
    lab.host.ip("rule", "add", "priority", "100", "from", "172.17.0.2", "lookup", "main")


@fault("rule-after-main", "The rule stands behind the main table's", on="policy-routing",
       breaks={"ROUTE-03", *_LEAVES_ELSEWHERE}, diagnosis="RULE_SHADOWED")  # fmt: skip
def rule_after_main(lab: Lab) -> None:
    rule_missing(lab)
    lab.host.ip("rule", "add", "priority", "40000", "from", AGENT_SUBNET, "lookup", str(TABLE))


@fault("rule-wrong-subnet", "The rule is for another subnet", on="policy-routing",
       breaks={"ROUTE-02", *_LEAVES_ELSEWHERE}, diagnosis="RULE_WRONG_SUBNET")  # fmt: skip
def rule_wrong_subnet(lab: Lab) -> None:
    rule_missing(lab)
    lab.host.ip("rule", "add", "from", "172.18.0.0/16", "lookup", str(TABLE))


@fault("rule-detached", "The rule names an interface that is gone", on="policy-routing",
       breaks={"ROUTE-02", *_LEAVES_ELSEWHERE}, diagnosis="RULE_DETACHED")  # fmt: skip
def rule_detached(lab: Lab) -> None:
    rule_missing(lab)
    lab.host.ip("rule", "add", "iif", "br-gone", "lookup", str(TABLE))


@fault("one-protocol-astray", "A rule for TCP alone takes another way", on="policy-routing",
       breaks={"ROUTE-03", "ROUTE-05", "EGRESS-01"}, diagnosis="RULE_SHADOWED")  # fmt: skip
def one_protocol_astray(lab: Lab) -> None:
    lab.host.ip("rule", "add", "priority", "100", "from", AGENT_SUBNET, "ipproto", "tcp", "lookup", "main")


@fault("table-empty", "The table has no route", on="policy-routing",
       breaks={"ROUTE-04", *_LEAVES_ELSEWHERE}, diagnosis="TABLE_EMPTY")  # fmt: skip
def table_empty(lab: Lab) -> None:
    lab.host.ip("route", "flush", "table", str(TABLE))


@fault("table-wrong-uplink", "The table leads out by the other uplink", on="policy-routing",
       breaks={"ROUTE-04", *_LEAVES_ELSEWHERE}, diagnosis="TABLE_WRONG_UPLINK")  # fmt: skip
def table_wrong_uplink(lab: Lab) -> None:
    lab.host.ip("route", "replace", "default", "via", "10.10.40.1", "dev", "eth0", "table", str(TABLE))


@fault("table-wrong-gateway", "The table leads to an address where no gateway is", on="policy-routing",
       breaks={"ROUTE-04", "EGRESS-01", "EGRESS-05"}, diagnosis="TABLE_WRONG_GATEWAY")  # fmt: skip
def table_wrong_gateway(lab: Lab) -> None:
    lab.host.ip("route", "replace", "default", "via", "10.10.50.77", "dev", "wlan0", "table", str(TABLE))


@fault("multipath-default", "The table's default is spread over both uplinks", on="policy-routing",
       breaks={"ROUTE-04", *_LEAVES_ELSEWHERE}, diagnosis="TABLE_WRONG_UPLINK")  # fmt: skip
def multipath_default(lab: Lab) -> None:
    eth0 = ("nexthop", "via", "10.10.40.1", "dev", "eth0", "weight")
    wlan0 = ("nexthop", "via", "10.10.50.1", "dev", "wlan0", "weight")
    # The kernel's hash is seeded at boot, so which way a flow takes is known only by asking.
    for ways in (((*eth0, "256"), (*wlan0, "1")), ((*wlan0, "1"), (*eth0, "256"))):
        lab.host.ip("route", "replace", "default", "table", str(TABLE), *ways[0], *ways[1])
        answers = [
            lab.host.ip("route", "get", target, "from", "172.17.0.2", "iif", BRIDGE).stdout
            for target in (PROBE_TARGET, RESOLVER)
        ]
        if all(" dev eth0 " in answer for answer in answers):
            return
    raise LabCommandError("host: no weights were found that send the probes by eth0")


@fault("name-missing", "The table's name is not registered", on=_BOTH,
       breaks={"ROUTE-01"}, diagnosis="TABLE_NAME_MISSING")  # fmt: skip
def name_missing(lab: Lab) -> None:
    lab.host.write(RT_TABLES, lab.host.read(RT_TABLES).replace(f"{TABLE} {TABLE_NAME}\n", ""))


@fault("name-clash", "The table's name stands for another number as well", on=_BOTH,
       breaks={"ROUTE-01"}, diagnosis="TABLE_ID_CLASH")  # fmt: skip
def name_clash(lab: Lab) -> None:
    lab.host.write(RT_TABLES, lab.host.read(RT_TABLES) + f"201 {TABLE_NAME}\n")


@fault("masquerade-missing", "Nothing translates the agent's source", on="nat",
       breaks={"NAT-02", "EGRESS-02", "EGRESS-03", "ROUTE-06"}, diagnosis="MASQUERADE_MISSING", flavour="netns")  # fmt: skip
def masquerade_missing(lab: Lab) -> None:
    nftables.remove(lab.host.namespace, PACKET_FILTER_TABLE)


@fault("masquerade-elsewhere", "The agent's source is translated on the other uplink only", on="policy-routing",
       breaks={"NAT-02", "EGRESS-02", "EGRESS-03"}, diagnosis="MASQUERADE_MISSING", flavour="netns")  # fmt: skip
def masquerade_elsewhere(lab: Lab) -> None:
    masquerade_missing(lab)
    nftables.apply(lab.host.namespace, FAULT_TABLE, [Masquerade(source=AGENT_SUBNET, oif="eth0")])


@fault("snat-other-uplink", "The agent's source becomes the other uplink's address", on="policy-routing",
       breaks={"NAT-02", "EGRESS-02", "EGRESS-03"}, diagnosis="SOURCE_NOT_UPLINK", flavour="netns")  # fmt: skip
def snat_other_uplink(lab: Lab) -> None:
    masquerade_missing(lab)
    nftables.apply(lab.host.namespace, FAULT_TABLE, [SourceNAT(source=AGENT_SUBNET, to="10.10.40.9")])


@fault("forwarding-off", "The kernel does not forward", on=("nat", "policy-routing"),
       breaks={"HOST-04", "ROUTE-05", "EGRESS-01", "EGRESS-05", "ROUTE-06"}, diagnosis="FORWARDING_OFF")  # fmt: skip
def forwarding_off(lab: Lab) -> None:
    lab.host.sysctl("net/ipv4/ip_forward", "0")


@fault("forward-dropped", "The forward hook's policy is drop", on=("nat", "policy-routing"),
       breaks={"HOST-04", "EGRESS-01", "EGRESS-05", "ROUTE-06"}, diagnosis="FORWARD_DROPPED")  # fmt: skip
def forward_dropped(lab: Lab) -> None:
    nftables.apply(lab.host.namespace, FAULT_TABLE, [ForwardPolicy(verdict="drop")])


@fault("uplink-in-bridge", "The uplink is a port of docker0", on="policy-routing",
       breaks={"NAT-01", "EGRESS-01", "EGRESS-05"}, diagnosis="BRIDGED_UPLINK")  # fmt: skip
def uplink_in_bridge(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", "wlan0", "master", BRIDGE)


@fault("uplink-missing", "The uplink does not exist", on="policy-routing",
       breaks={"HOST-02", "HOST-03", "ROUTE-04", *_LEAVES_ELSEWHERE}, diagnosis="UPLINK_MISSING")  # fmt: skip
def uplink_missing(lab: Lab) -> None:
    lab.host.ip("link", "del", "dev", "wlan0")


@fault("uplink-down", "The uplink is administratively down", on="policy-routing",
       breaks={"HOST-02", "HOST-03", "ROUTE-04", *_LEAVES_ELSEWHERE}, diagnosis="UPLINK_DOWN")  # fmt: skip
def uplink_down(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", "wlan0", "down")


@fault("no-carrier", "The uplink has no carrier", on="policy-routing",
       breaks={"HOST-02", "HOST-03", "EGRESS-01", "EGRESS-05"}, diagnosis="NO_CARRIER")  # fmt: skip
def no_carrier(lab: Lab) -> None:
    lab.gateway("wlan0").ip("link", "set", "dev", "lan0", "down")
    lab.wait_for_carrier("wlan0", present=False)


@fault("no-address", "The uplink has no address", on="policy-routing",
       breaks={"HOST-02", "HOST-03", "ROUTE-04", *_LEAVES_ELSEWHERE}, diagnosis="NO_ADDRESS")  # fmt: skip
def no_address(lab: Lab) -> None:
    lab.host.ip("-4", "address", "flush", "dev", "wlan0")


@fault("gateway-silent", "The gateway does not answer ARP", on="policy-routing",
       breaks={"HOST-03", "EGRESS-01", "EGRESS-05"}, diagnosis="GATEWAY_SILENT")  # fmt: skip
def gateway_silent(lab: Lab) -> None:
    lab.gateway("wlan0").ip("link", "set", "dev", "lan0", "arp", "off")
    lab.host.ip("neigh", "flush", "dev", "wlan0")


@fault("subnet-overlap", "A route of the host lies inside the agent's subnet", on=("nat", "policy-routing"),
       breaks={"HOST-05"}, diagnosis="SUBNET_OVERLAP")  # fmt: skip
def subnet_overlap(lab: Lab) -> None:
    lab.host.ip("route", "add", "172.17.128.0/17", "via", "10.10.40.1", "dev", "eth0")


@fault("default-exit-wrong", "The host's own default route leads out by the agent's uplink", on="policy-routing",
       breaks={"HOST-06", "EGRESS-04"}, diagnosis="DEFAULT_EXIT_WRONG")  # fmt: skip
def default_exit_wrong(lab: Lab) -> None:
    lab.host.ip("route", "replace", "default", "via", "10.10.50.1", "dev", "wlan0")


@fault("default-exit-missing", "The host has no default route", on="policy-routing",
       breaks={"HOST-06", "EGRESS-04"}, diagnosis="DEFAULT_EXIT_MISSING")  # fmt: skip
def default_exit_missing(lab: Lab) -> None:
    lab.host.ip("route", "del", "default")


@fault("strict-reverse-path", "Strict reverse path check with an fwmark rule", on="policy-routing",
       breaks={"EGRESS-03"}, diagnosis="RP_FILTER_DROP")  # fmt: skip
def strict_reverse_path(lab: Lab) -> None:
    rule_missing(lab)
    nftables.apply(lab.host.namespace, FAULT_TABLE, [SetMark(mark=0x20, source=AGENT_SUBNET)])
    lab.host.ip("rule", "add", "priority", "1000", "fwmark", "0x20", "lookup", str(TABLE))
    lab.host.sysctl("net/ipv4/conf/wlan0/rp_filter", "1")


@fault("mtu-trap", "The uplink carries 1400 bytes, and nobody says so", on="policy-routing",
       breaks={"EGRESS-06"}, diagnosis="MTU_TRAP")  # fmt: skip
def mtu_trap(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", "wlan0", "mtu", "1400")
    lab.gateway("wlan0").ip("link", "set", "dev", "lan0", "mtu", "1400")
    nftables.apply(lab.host.namespace, FAULT_TABLE, [DropICMPErrors(only_packet_too_big=True)])


@fault("ipv6-escapes", "No IPv6 rule beside the IPv4 one", on="policy-routing-hardened",
       breaks={"EGRESS-07"}, diagnosis="IPV6_ESCAPES", flavour="netns")  # fmt: skip
def ipv6_escapes(lab: Lab) -> None:
    lab.host.ip("-6", "rule", "del", "priority", "1000")


@fault("mirrored-copy", "The host sends a copy of each packet out of the other uplink", on="policy-routing",
       breaks={"EGRESS-01", "EGRESS-02", "EGRESS-05"}, diagnosis="PACKETS_COPIED")  # fmt: skip
def mirrored_copy(lab: Lab) -> None:
    nftables.apply(lab.host.namespace, FAULT_TABLE, [Duplicate(device="wlan0", to="eth0")])


@fault("dns-other-path", "A resolver on the host carries the agent's queries on", on="policy-routing",
       breaks={"EGRESS-05"}, diagnosis="DNS_OTHER_PATH", flavour="netns")  # fmt: skip
def dns_other_path(lab: Lab) -> None:
    lab.at_end(start_forwarder(lab.host.namespace, listen="172.17.0.1", upstream=RESOLVER))
    lab.host.write("/etc/resolv.conf", "nameserver 172.17.0.1\n")


@fault("agent-gone", "The agent does not run", on=("nat", "policy-routing"),
       breaks={"HOST-07"}, diagnosis="AGENT_NOT_RUNNING", flavour="netns")  # fmt: skip
def agent_gone(lab: Lab) -> None:
    lab.host.run("umount", AGENT_PATH)
    lab.host.run("rm", AGENT_PATH)


@fault("agent-stopped", "The agent's container is stopped", on=("nat", "policy-routing"),
       breaks={"HOST-07"}, diagnosis="AGENT_NOT_RUNNING", flavour="engine")  # fmt: skip
def agent_stopped(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.stop_agent(lab.agent_container)


@fault("engine-stopped", "The Docker engine does not answer", on=("nat", "policy-routing"),
       breaks={"HOST-01", "HOST-07"}, diagnosis="ENGINE_UNREACHABLE", flavour="engine")  # fmt: skip
def engine_stopped(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.stop_daemon()


@fault("local-networks-lost", "No rule keeps local networks local", on="policy-routing-hardened",
       breaks={"ROUTE-06"}, diagnosis="LOCAL_NETS_LOST")  # fmt: skip
def local_networks_lost(lab: Lab) -> None:
    lab.host.ip("rule", "del", "priority", "990")


@fault("backstop-missing", "No unreachable route stops the agent's packets while the uplink is away",
       on="policy-routing-hardened", breaks={"ROUTE-07"}, diagnosis="FAIL_OPEN")  # fmt: skip
def backstop_missing(lab: Lab) -> None:
    lab.host.ip("route", "del", "unreachable", "default", "table", str(TABLE))
