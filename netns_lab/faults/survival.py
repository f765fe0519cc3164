"""Faults that only an event shows: commands that cannot run twice, rules and routes that are not restored, leaks."""

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
    """Bring the host up from another /etc/network/interfaces, without the rules and routes of the original file."""
    lab.host.run("ifdown", "-a")
    for priority in ("990", "1000"):
        lab.host.ip("rule", "del", "priority", priority)
    lab.host.ip("route", "flush", "table", str(TABLE))
    lab.host.write(INTERFACES, text)
    lab.host.run("ifup", "-a")


@fault("guide-stanza", "The stanza of wlan0 has the guide's own lines only", on=SCENARIO,
       breaks={
           "LOCAL_NETS_LOST": {"ROUTE-06"},
           "FAIL_OPEN": {"ROUTE-07", "FLAP-06"},
           "RULES_ACCUMULATE": {"PERSIST-02", "FLAP-03"},
           "ROUTE_NOT_RESTORED": {"FLAP-01", "FLAP-10"},
       }, diagnosis="RULES_ACCUMULATE")  # fmt: skip
def guide_stanza(lab: Lab) -> None:
    lab.host.remove(LINK_HOOK)
    _rewrite(lab, interfaces(loopback=(), uplink=GUIDES_LINES))


@fault("no-post-up", "Rules and route were typed by hand and are not in the stanza", on=SCENARIO,
       breaks={
           "NOT_PERSISTENT": {"PERSIST-01", "FLAP-03", "FLAP-08"},
           "ROUTE_NOT_RESTORED": {"FLAP-01", "FLAP-10"},
       }, diagnosis="NOT_PERSISTENT")  # fmt: skip
def no_post_up(lab: Lab) -> None:
    lab.host.remove(LINK_HOOK)
    # Present rules and routes stay until the next change of the interface.
    lab.host.write(INTERFACES, interfaces(loopback=(), uplink=()))


@fault("rule-beside-without-priority", "The rules were typed by hand, and the stanza adds another without a priority",
       on=SCENARIO, breaks={
           "NOT_PERSISTENT": {"PERSIST-01", "FLAP-03", "FLAP-08"},
           "RULES_ACCUMULATE": {"PERSIST-02"},
           "LEAK_WHILE_DOWN": {"FLAP-06"},
       }, diagnosis="NOT_PERSISTENT")  # fmt: skip
def rule_beside_without_priority(lab: Lab) -> None:
    lab.host.ip("rule", "add", "priority", "32765", "from", AGENT_SUBNET, "lookup", "201")
    # ip-rule(8) takes 'table' for 'lookup'. The table has a route, so that the packets would leave by it.
    lab.host.ip("route", "add", "default", "via", "10.10.40.1", "dev", "eth0", "table", "201")
    other = f"post-up ip rule add from {AGENT_SUBNET} table 201"
    route = "post-up ip route replace default via 10.10.40.1 dev eth0 table 201"
    lab.host.write(INTERFACES, interfaces(loopback=BACKSTOP, uplink=(route, other, *UPLINK_ROUTE)))


@fault("no-link-hook", "No link watcher restores the route after a link flap", on=SCENARIO,
       breaks={"FLAP-01", "FLAP-10"}, diagnosis="ROUTE_NOT_RESTORED")  # fmt: skip
def no_link_hook(lab: Lab) -> None:
    lab.host.remove(LINK_HOOK)


@fault("nexthop-object", "The route uses a nexthop object, which the kernel removes when the carrier is lost",
       on=SCENARIO, breaks={"FLAP-02"}, diagnosis="ROUTE_NOT_RESTORED")  # fmt: skip
def nexthop_object(lab: Lab) -> None:
    lab.host.ip("nexthop", "add", "id", "7", "via", "10.10.50.1", "dev", "wlan0")
    lab.host.ip("route", "replace", "default", "nhid", "7", "table", str(TABLE))


@fault("post-up-without-priority", "The stanza of wlan0 adds the rule without a priority", on=SCENARIO,
       breaks={"PERSIST-02", "FLAP-03"}, diagnosis="RULES_ACCUMULATE")  # fmt: skip
def post_up_without_priority(lab: Lab) -> None:
    # The kernel puts such a rule before all present rules, so the rule for local networks must be added later.
    _rewrite(lab, interfaces(loopback=BACKSTOP, uplink=(GUIDES_LINES[0], *LOCAL_RULES, *UPLINK_ROUTE)))


@fault("post-up-without-del", "The stanza of wlan0 adds the rule with a fixed priority and never deletes it",
       on=SCENARIO, breaks={"PERSIST-02", "FLAP-03"}, diagnosis="NOT_IDEMPOTENT")  # fmt: skip
def post_up_without_del(lab: Lab) -> None:
    _rewrite(lab, interfaces(loopback=(*LOCAL_RULES, *BACKSTOP), uplink=(AGENT_RULES[1], *UPLINK_ROUTE)))


@fault("guard-never-true", "The guard before the rule's command looks for a text that ip never prints",
       on=SCENARIO, breaks={"PERSIST-02", "FLAP-03"}, diagnosis="RULES_ACCUMULATE")  # fmt: skip
def guard_never_true(lab: Lab) -> None:
    # Only a run shows the mistake: ip prints the registered name where the guard looks for a number.
    guarded = f"post-up ip rule show | grep -q 'lookup {TABLE}' || ip rule add from {AGENT_SUBNET} lookup {TABLE}"
    _rewrite(lab, interfaces(loopback=BACKSTOP, uplink=(guarded, *LOCAL_RULES, *UPLINK_ROUTE)))


@fault("name-not-registered", "The stanza uses a table name that is no longer registered", on=SCENARIO,
       breaks={"ROUTE-01", "PERSIST-02", "FLAP-03", "FLAP-08"}, diagnosis="TABLE_NAME_MISSING")  # fmt: skip
def name_not_registered(lab: Lab) -> None:
    lab.host.write(RT_TABLES, lab.host.read(RT_TABLES).replace(f"{TABLE} {TABLE_NAME}\n", ""))


@fault("ignore-linkdown", "The kernel ignores routes without carrier, and the table has no backstop", on=SCENARIO,
       breaks={"ROUTE-07", "FLAP-06"}, diagnosis="FAIL_OPEN")  # fmt: skip
def ignore_linkdown(lab: Lab) -> None:
    lab.host.sysctl("net/ipv4/conf/wlan0/ignore_routes_with_linkdown", "1")
    lab.host.ip("route", "del", "unreachable", "default", "table", str(TABLE))


@fault("failover-script", "ifdown adds a route by the other uplink to the agent's table", on=SCENARIO,
       breaks={"FLAP-06"}, diagnosis="LEAK_WHILE_DOWN")  # fmt: skip
def failover_script(lab: Lab) -> None:
    other = f"default via 10.10.40.1 dev eth0 metric 50 table {TABLE}"
    # When the interface is up, its own route precedes this route, by its metric 0.
    lab.host.write(INTERFACES, interfaces(uplink=(*UPLINK_ROUTE, f"post-down ip route replace {other}",
                                                  f"post-up ip route del {other} || true")))  # fmt: skip


@fault("no-restart-policy", "The agent's container has no restart policy, so the engine does not start it", on="nat",
       breaks={"FLAP-05"}, diagnosis="AGENT_NOT_RUNNING", flavour="engine")  # fmt: skip
def no_restart_policy(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.containers.set_restart_policy(lab.agent_container, "no")


@fault("cannot-start-again", "The container's program is missing, so it cannot start again", on="nat",
       breaks={"FLAP-04", "FLAP-05"}, diagnosis="AGENT_NOT_RUNNING", flavour="engine")  # fmt: skip
def cannot_start_again(lab: Lab) -> None:
    assert lab.engine is not None
    no_restart_policy(lab)
    lab.engine.containers.execute(lab.agent_container, ["rm", "/bin/sleep"])
