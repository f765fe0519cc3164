"""Faults in the files of systemd-networkd, and in rules and routes that are in none of its files."""

from __future__ import annotations

from netns_lab.faults.fault import fault
from netns_lab.lab import Lab
from netns_lab.scenarios.nat import TABLE, TABLE_NAME
from netns_lab.scenarios.networkd import (
    BACKSTOP,
    CONF,
    KEEP_RULES,
    LOOPBACK,
    OWN_INTERFACES,
    RADIO,
    conf,
    loopback,
    route,
    rules,
    uplink,
)
from netns_lab.scenarios.survival import AGENT_RULES as AGENT_COMMANDS
from netns_lab.scenarios.survival import BACKSTOP as BACKSTOP_COMMANDS
from netns_lab.scenarios.survival import INTERFACES, LOCAL_RULES

SCENARIO = "policy-routing-networkd"
RULE_COMMANDS = (*LOCAL_RULES, *AGENT_COMMANDS)
TABLE_CONF = "/etc/systemd/networkd.conf.d/20-tables.conf"


def _restart(lab: Lab) -> None:
    """Restart networkd with its present files."""
    assert lab.networkd is not None
    lab.networkd.restart()
    lab.networkd.settle()


def _by_ifupdown(lab: Lab, *commands: str) -> None:
    """Bring lo up by ifupdown, with these commands, beside networkd."""
    lab.host.write(INTERFACES, OWN_INTERFACES + "".join(f"    {line}\n" for line in commands))
    lab.host.run("ifup", "--force", "lo")


@fault("foreign-rules-purged", "ifupdown sets the rules, beside a systemd-networkd with its defaults", on=SCENARIO,
       breaks={"PERSIST-02", "FLAP-09"}, diagnosis="FOREIGN_RULES_PURGED")  # fmt: skip
def foreign_rules_purged(lab: Lab) -> None:
    lab.host.remove(CONF)
    lab.host.write(LOOPBACK, loopback())
    _restart(lab)
    _by_ifupdown(lab, *RULE_COMMANDS, *BACKSTOP_COMMANDS)


@fault("foreign-route-purged", "ifupdown sets the backstop, beside a systemd-networkd that keeps foreign rules only",
       on=SCENARIO, breaks={"FLAP-09"}, diagnosis="ROUTE_NOT_RESTORED")  # fmt: skip
def foreign_route_purged(lab: Lab) -> None:
    lab.host.write(CONF, conf(KEEP_RULES))
    lab.host.write(LOOPBACK, loopback(rules()))
    _restart(lab)
    _by_ifupdown(lab, *BACKSTOP_COMMANDS)


@fault("own-rules-purged", "systemd-networkd has its defaults, so at its start it removes the rules that it had added",
       on=SCENARIO, breaks={"PERSIST-02"}, diagnosis="FOREIGN_RULES_PURGED")  # fmt: skip
def own_rules_purged(lab: Lab) -> None:
    lab.host.remove(CONF)


@fault("rules-under-uplink", "Rules and backstop are in the uplink's .network file, so a loss of carrier removes them",
       on=SCENARIO, breaks={"PERSIST-02", "FLAP-06"}, diagnosis="LEAK_WHILE_DOWN")  # fmt: skip
def rules_under_uplink(lab: Lab) -> None:
    lab.host.write(LOOPBACK, loopback())
    lab.host.write(RADIO, uplink(rules(), route(), BACKSTOP))
    _restart(lab)


@fault("networkd-without-rule", "The .network files no longer have the rules and the route", on=SCENARIO,
       breaks={"PERSIST-01", "FLAP-08", "FLAP-09"}, diagnosis="NOT_PERSISTENT")  # fmt: skip
def networkd_without_rule(lab: Lab) -> None:
    # Present rules and routes stay until networkd reads its files again.
    lab.host.write(LOOPBACK, loopback())
    lab.host.write(RADIO, uplink())


@fault("networkd-table-name", "The .network files use a table name that networkd.conf no longer defines",
       on=SCENARIO, breaks={"PERSIST-02", "FLAP-08", "FLAP-09"}, diagnosis="TABLE_NAME_MISSING")  # fmt: skip
def networkd_table_name(lab: Lab) -> None:
    lab.host.write(TABLE_CONF, conf(f"RouteTable={TABLE_NAME}:{TABLE}\n"))
    lab.host.write(LOOPBACK, loopback(rules(TABLE_NAME), BACKSTOP))
    lab.host.write(RADIO, uplink(route(TABLE_NAME)))
    _restart(lab)
    lab.host.remove(TABLE_CONF)
