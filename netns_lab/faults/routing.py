"""Faults of policy routing: the rule, its order, the table, its name, and the gaps of the guide's recipe."""

from __future__ import annotations

from netns_lab.faults.fault import LEAVES_ELSEWHERE, fault
from netns_lab.lab import Lab, LabCommandError
from netns_lab.plan import PROBE_TARGET, RESOLVER, RT_TABLES
from netns_lab.scenarios import AGENT_SUBNET, BRIDGE, TABLE, TABLE_NAME

_BOTH = ("policy-routing", "policy-routing-hardened")


@fault("rule-missing", "The agent's subnet has no rule", on="policy-routing",
       breaks={"ROUTE-02", *LEAVES_ELSEWHERE}, diagnosis="RULE_MISSING")  # fmt: skip
def rule_missing(lab: Lab) -> None:
    lab.host.ip("rule", "del", "from", AGENT_SUBNET, "lookup", str(TABLE))


@fault("rule-duplicated", "The rule exists twice, as after a second ifup", on="policy-routing",
       breaks={"ROUTE-02"}, diagnosis="RULE_DUPLICATED")  # fmt: skip
def rule_duplicated(lab: Lab) -> None:
    lab.host.ip("rule", "add", "from", AGENT_SUBNET, "lookup", str(TABLE))


@fault("rule-shadowed", "A rule for the agent's address precedes the rule for its subnet", on="policy-routing",
       breaks={"ROUTE-03", *LEAVES_ELSEWHERE}, diagnosis="RULE_SHADOWED")  # fmt: skip
def rule_shadowed(lab: Lab) -> None:
    lab.host.ip("rule", "add", "priority", "100", "from", "172.17.0.2", "lookup", "main")


@fault("rule-after-main", "The rule comes after the rule of the main table", on="policy-routing",
       breaks={"ROUTE-03", *LEAVES_ELSEWHERE}, diagnosis="RULE_SHADOWED")  # fmt: skip
def rule_after_main(lab: Lab) -> None:
    rule_missing(lab)
    lab.host.ip("rule", "add", "priority", "40000", "from", AGENT_SUBNET, "lookup", str(TABLE))


@fault("half-defaults", "A default in two halves, as a VPN adds, passes the rule for local networks",
       on="policy-routing-hardened", diagnosis="RULE_SHADOWED",
       breaks={"ROUTE-03", "ROUTE-07", *LEAVES_ELSEWHERE})  # fmt: skip
def half_defaults(lab: Lab) -> None:
    for half in ("0.0.0.0/1", "128.0.0.0/1"):
        lab.host.ip("route", "add", half, "via", "10.10.40.1", "dev", "eth0")


@fault("rule-for-one-address", "The rule selects the agent's present address alone", on="policy-routing",
       breaks={"ROUTE-02"}, diagnosis="RULE_FOR_ONE_ADDRESS")  # fmt: skip
def rule_for_one_address(lab: Lab) -> None:
    rule_missing(lab)
    lab.host.ip("rule", "add", "from", "172.17.0.2", "lookup", str(TABLE))


@fault("rule-wrong-subnet", "The rule is for another subnet", on="policy-routing",
       breaks={"ROUTE-02", *LEAVES_ELSEWHERE}, diagnosis="RULE_WRONG_SUBNET")  # fmt: skip
def rule_wrong_subnet(lab: Lab) -> None:
    rule_missing(lab)
    lab.host.ip("rule", "add", "from", "172.18.0.0/16", "lookup", str(TABLE))


@fault("rule-detached", "The rule matches an interface that no longer exists", on="policy-routing",
       breaks={"ROUTE-02", *LEAVES_ELSEWHERE}, diagnosis="RULE_DETACHED")  # fmt: skip
def rule_detached(lab: Lab) -> None:
    rule_missing(lab)
    lab.host.ip("rule", "add", "iif", "br-gone", "lookup", str(TABLE))


@fault("one-protocol-astray", "A rule sends the agent's TCP packets to the main table", on="policy-routing",
       breaks={"ROUTE-03", "ROUTE-05", "EGRESS-01", "EGRESS-08"}, diagnosis="RULE_SHADOWED")  # fmt: skip
def one_protocol_astray(lab: Lab) -> None:
    lab.host.ip("rule", "add", "priority", "100", "from", AGENT_SUBNET, "ipproto", "tcp", "lookup", "main")


@fault("https-elsewhere", "A rule sends all TCP packets to port 443 to the main table", on="policy-routing",
       breaks={"EGRESS-08"}, diagnosis="CLASS_BYPASSES_UPLINK")  # fmt: skip
def https_elsewhere(lab: Lab) -> None:
    lab.host.ip("rule", "add", "priority", "100", "ipproto", "tcp", "dport", "443", "lookup", "main")


@fault("static-route-bypass", "A static route in the main table, which is asked first, has another uplink",
       on="policy-routing-hardened", breaks={"EGRESS-08"}, diagnosis="CLASS_BYPASSES_UPLINK")  # fmt: skip
def static_route_bypass(lab: Lab) -> None:
    lab.host.ip("route", "add", "203.0.113.0/24", "via", "10.10.40.1", "dev", "eth0")


@fault("static-route-to-target", "The main table, which the agent's rule precedes, has a route to the probe target",
       on="policy-routing", breaks={"ROUTE-06"}, diagnosis="LOCAL_NETS_LOST")  # fmt: skip
def static_route_to_target(lab: Lab) -> None:
    lab.host.ip("route", "add", "198.51.100.0/24", "via", "10.10.40.1", "dev", "eth0")


@fault("load-balanced-default", "The host's default route uses both uplinks (multipath)", on="nat-multihomed",
       breaks={"EGRESS-04", "ROUTE-07", *LEAVES_ELSEWHERE}, diagnosis="EGRESS_DEPENDS_ON_FLOW")  # fmt: skip
def load_balanced_default(lab: Lab) -> None:
    eth0 = ("nexthop", "via", "10.10.40.1", "dev", "eth0", "weight", "1")
    # The kernel chooses by a hash of the addresses: with this weight almost every flow leaves by wlan0.
    wlan0 = ("nexthop", "via", "10.10.50.1", "dev", "wlan0", "weight", "256")
    lab.host.ip("route", "replace", "default", *eth0, *wlan0)


@fault("table-empty", "The table has no route", on="policy-routing",
       breaks={"ROUTE-04", *LEAVES_ELSEWHERE}, diagnosis="TABLE_EMPTY")  # fmt: skip
def table_empty(lab: Lab) -> None:
    lab.host.ip("route", "flush", "table", str(TABLE))


@fault("table-wrong-uplink", "The table's default route leaves by the other uplink", on="policy-routing",
       breaks={"ROUTE-04", *LEAVES_ELSEWHERE}, diagnosis="TABLE_WRONG_UPLINK")  # fmt: skip
def table_wrong_uplink(lab: Lab) -> None:
    lab.host.ip("route", "replace", "default", "via", "10.10.40.1", "dev", "eth0", "table", str(TABLE))


@fault("table-wrong-gateway", "The table's default route has a gateway that does not exist", on="policy-routing",
       breaks={"ROUTE-04", "EGRESS-01"}, diagnosis="TABLE_WRONG_GATEWAY")  # fmt: skip
def table_wrong_gateway(lab: Lab) -> None:
    lab.host.ip("route", "replace", "default", "via", "10.10.50.77", "dev", "wlan0", "table", str(TABLE))


@fault("multipath-default", "The table's default route uses both uplinks (multipath)", on="policy-routing",
       breaks={"ROUTE-04", *LEAVES_ELSEWHERE}, diagnosis="TABLE_WRONG_UPLINK")  # fmt: skip
def multipath_default(lab: Lab) -> None:
    eth0 = ("nexthop", "via", "10.10.40.1", "dev", "eth0", "weight")
    wlan0 = ("nexthop", "via", "10.10.50.1", "dev", "wlan0", "weight")
    # The kernel's hash is seeded at boot, so only a look-up shows which nexthop a flow uses.
    for nexthops in (((*eth0, "256"), (*wlan0, "1")), ((*wlan0, "1"), (*eth0, "256"))):
        lab.host.ip("route", "replace", "default", "table", str(TABLE), *nexthops[0], *nexthops[1])
        answers = [
            lab.host.ip("route", "get", target, "from", "172.17.0.2", "iif", BRIDGE).stdout
            for target in (PROBE_TARGET, RESOLVER)
        ]
        if all(" dev eth0 " in answer for answer in answers):
            return
    raise LabCommandError("host: no order of the nexthops sends the probes by eth0")


@fault("name-missing", "The table's name is not registered", on=_BOTH,
       breaks={"ROUTE-01"}, diagnosis="TABLE_NAME_MISSING")  # fmt: skip
def name_missing(lab: Lab) -> None:
    lab.host.write(RT_TABLES, lab.host.read(RT_TABLES).replace(f"{TABLE} {TABLE_NAME}\n", ""))


@fault("name-clash", "The table's name is registered for another number too", on=_BOTH,
       breaks={"ROUTE-01"}, diagnosis="TABLE_ID_CLASH")  # fmt: skip
def name_clash(lab: Lab) -> None:
    lab.host.write(RT_TABLES, lab.host.read(RT_TABLES) + f"201 {TABLE_NAME}\n")


@fault("local-networks-lost", "No rule keeps packets to local networks in the main table", on="policy-routing-hardened",
       breaks={"ROUTE-06"}, diagnosis="LOCAL_NETS_LOST")  # fmt: skip
def local_networks_lost(lab: Lab) -> None:
    lab.host.ip("rule", "del", "priority", "990")


@fault("backstop-missing", "No unreachable route stops the agent's packets while the uplink is down",
       on=("policy-routing-hardened", "policy-routing-ifupdown"), breaks={"ROUTE-07", "FLAP-06"},
       diagnosis="FAIL_OPEN")  # fmt: skip
def backstop_missing(lab: Lab) -> None:
    lab.host.ip("route", "del", "unreachable", "default", "table", str(TABLE))
