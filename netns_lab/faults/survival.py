"""Faults that only an event brings to light: what cannot run twice, what nothing brings back, what leaks."""

from __future__ import annotations

from netns_lab.faults.fault import fault
from netns_lab.lab import Lab
from netns_lab.plan import RT_TABLES
from netns_lab.scenarios.nat import AGENT_SUBNET, TABLE, TABLE_NAME
from netns_lab.scenarios.survival import (
    AGENT_RULES,
    BACKSTOP,
    INTERFACES,
    LINK_HOOK,
    LOCAL_RULES,
    UPLINK_ROUTE,
    interfaces,
)

SCENARIO = "policy-routing-ifupdown"
GUIDES_LINES = (
    f"post-up ip rule add from {AGENT_SUBNET} lookup {TABLE_NAME}",
    f"post-up ip route add default via 10.10.50.1 dev wlan0 table {TABLE_NAME}",
)


def _rewrite(lab: Lab, text: str) -> None:
    """Bring the host up from another /etc/network/interfaces, as if it had never had the good one."""
    lab.host.run("ifdown", "-a")
    for priority in ("990", "1000"):
        lab.host.ip("rule", "del", "priority", priority)
    lab.host.ip("route", "flush", "table", str(TABLE))
    lab.host.write(INTERFACES, text)
    lab.host.run("ifup", "-a")


@fault("guide-stanza", "The guide's own lines under 'iface wlan0', and nothing else", on=SCENARIO,
       breaks={
           "LOCAL_NETS_LOST": {"ROUTE-06"},
           "FAIL_OPEN": {"ROUTE-07", "FLAP-06"},
           "RULES_ACCUMULATE": {"PERSIST-02", "FLAP-03"},
           "ROUTE_NOT_RESTORED": {"FLAP-01", "FLAP-10"},
       }, diagnosis="RULES_ACCUMULATE")  # fmt: skip
def guide_stanza(lab: Lab) -> None:
    lab.host.remove(LINK_HOOK)
    _rewrite(lab, interfaces(loopback=(), uplink=GUIDES_LINES))


@fault("no-post-up", "Rules and route were typed by hand; the stanza has neither", on=SCENARIO,
       breaks={
           "NOT_PERSISTENT": {"PERSIST-01", "FLAP-03", "FLAP-08"},
           "ROUTE_NOT_RESTORED": {"FLAP-01", "FLAP-10"},
       }, diagnosis="NOT_PERSISTENT")  # fmt: skip
def no_post_up(lab: Lab) -> None:
    lab.host.remove(LINK_HOOK)
    # What is there stays there, until the next change of the interface.
    lab.host.write(INTERFACES, interfaces(loopback=(), uplink=()))


@fault("no-link-hook", "Nothing watches the link", on=SCENARIO,
       breaks={"FLAP-01", "FLAP-10"}, diagnosis="ROUTE_NOT_RESTORED")  # fmt: skip
def no_link_hook(lab: Lab) -> None:
    lab.host.remove(LINK_HOOK)


@fault("nexthop-object", "The route goes by a nexthop object, which the kernel drops together with the carrier",
       on=SCENARIO, breaks={"FLAP-02"}, diagnosis="ROUTE_NOT_RESTORED")  # fmt: skip
def nexthop_object(lab: Lab) -> None:
    lab.host.ip("nexthop", "add", "id", "7", "via", "10.10.50.1", "dev", "wlan0")
    lab.host.ip("route", "replace", "default", "nhid", "7", "table", str(TABLE))


@fault("post-up-without-priority", "The rule is added under 'iface wlan0' without a priority", on=SCENARIO,
       breaks={"PERSIST-02", "FLAP-03"}, diagnosis="RULES_ACCUMULATE")  # fmt: skip
def post_up_without_priority(lab: Lab) -> None:
    # The kernel puts such a rule before all others that are there, so the one for local networks must come later.
    _rewrite(lab, interfaces(loopback=BACKSTOP, uplink=(GUIDES_LINES[0], *LOCAL_RULES, *UPLINK_ROUTE)))


@fault("post-up-without-del", "The rule is added under 'iface wlan0' with a fixed priority, and never deleted",
       on=SCENARIO, breaks={"PERSIST-02", "FLAP-03"}, diagnosis="NOT_IDEMPOTENT")  # fmt: skip
def post_up_without_del(lab: Lab) -> None:
    _rewrite(lab, interfaces(loopback=(*LOCAL_RULES, *BACKSTOP), uplink=(AGENT_RULES[1], *UPLINK_ROUTE)))


@fault("guard-never-true", "The rule is added unless it is there, but looked for by another name than ip prints",
       on=SCENARIO, breaks={"PERSIST-02", "FLAP-03"}, diagnosis="RULES_ACCUMULATE")  # fmt: skip
def guard_never_true(lab: Lab) -> None:
    # No line reads wrong: only running it shows that ip prints the registered name where the guard looks for a number.
    guarded = f"post-up ip rule show | grep -q 'lookup {TABLE}' || ip rule add from {AGENT_SUBNET} lookup {TABLE}"
    _rewrite(lab, interfaces(loopback=BACKSTOP, uplink=(guarded, *LOCAL_RULES, *UPLINK_ROUTE)))


@fault("name-not-registered", "The stanza goes by a name of the table that is not registered (any more)", on=SCENARIO,
       breaks={"ROUTE-01", "PERSIST-02", "FLAP-03", "FLAP-08"}, diagnosis="TABLE_NAME_MISSING")  # fmt: skip
def name_not_registered(lab: Lab) -> None:
    lab.host.write(RT_TABLES, lab.host.read(RT_TABLES).replace(f"{TABLE} {TABLE_NAME}\n", ""))


@fault("ignore-linkdown", "Routes without carrier count as gone, and nothing stands behind them", on=SCENARIO,
       breaks={"ROUTE-07", "FLAP-06"}, diagnosis="FAIL_OPEN")  # fmt: skip
def ignore_linkdown(lab: Lab) -> None:
    lab.host.sysctl("net/ipv4/conf/wlan0/ignore_routes_with_linkdown", "1")
    lab.host.ip("route", "del", "unreachable", "default", "table", str(TABLE))


@fault("failover-script", "ifdown gives the agent's table a route by the other uplink", on=SCENARIO,
       breaks={"FLAP-06"}, diagnosis="LEAK_WHILE_DOWN")  # fmt: skip
def failover_script(lab: Lab) -> None:
    other = f"default via 10.10.40.1 dev eth0 metric 50 table {TABLE}"
    # Once the interface is up its own route, with metric 0, comes first.
    lab.host.write(INTERFACES, interfaces(uplink=(*UPLINK_ROUTE, f"post-down ip route replace {other}",
                                                  f"post-up ip route del {other} || true")))  # fmt: skip


@fault("no-restart-policy", "Nothing starts the agent's container when the engine does", on="nat",
       breaks={"FLAP-05"}, diagnosis="AGENT_NOT_RUNNING", flavour="engine")  # fmt: skip
def no_restart_policy(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.containers.set_restart_policy(lab.agent_container, "no")


@fault("cannot-start-again", "The container's program is gone, so that it never starts again", on="nat",
       breaks={"FLAP-04", "FLAP-05"}, diagnosis="AGENT_NOT_RUNNING", flavour="engine")  # fmt: skip
def cannot_start_again(lab: Lab) -> None:
    assert lab.engine is not None
    no_restart_policy(lab)
    lab.engine.containers.execute(lab.agent_container, ["rm", "/bin/sleep"])
