"""Faults that only the events of others show: a firewall is restarted, another interface is configured again."""

from __future__ import annotations

from netns_lab.faults.fault import fault
from netns_lab.lab import Lab
from netns_lab.scenarios.nat import AGENT_SUBNET, TABLE, TABLE_NAME
from netns_lab.scenarios.networkd import BACKSTOP, CONF, KEEP_ROUTES, LOOPBACK, OFFICE, conf, loopback, rules
from netns_lab.whole_host.root_files import UNITS
from viacheck.disruption.manager_waits import WAIT_ONLINE

SCENARIO = "policy-routing-networkd"
NFTABLES = "/etc/nftables.conf"
NFTABLES_TEXT = """\
#!/usr/sbin/nft -f

flush ruleset

table inet filter {
	chain input {
		type filter hook input priority filter; policy accept;
	}
}
"""
"""As Debian's own: it removes every rule before it adds its own."""
SAVED_RULES = "/etc/iptables/rules.v4"
SAVED_BEFORE_THE_ENGINE = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
"""
"""What iptables-save(8) prints without rules: iptables-restore(8) empties each table that it names."""
RULES_UNIT = "agent-rules.service"
RULES_UNIT_TEXT = f"""\
[Unit]
Description=Policy routing of the measurement agent
After=systemd-networkd.service
PartOf=systemd-networkd.service
Before=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip rule add priority 990 from {AGENT_SUBNET} lookup main suppress_prefixlength 0
ExecStart=ip rule add priority 1000 from {AGENT_SUBNET} lookup {TABLE_NAME}
ExecStop=-ip rule del priority 990
ExecStop=-ip rule del priority 1000

[Install]
WantedBy=multi-user.target
"""


@fault("nftables-flushes-nat", "nftables.service removes every rule when it is restarted, the engine's NAT too",
       on=SCENARIO, breaks={"FLAP-12"}, diagnosis="MASQUERADE_MISSING", flavour="host")  # fmt: skip
def nftables_flushes_nat(lab: Lab) -> None:
    # At boot the unit comes before the engine, which does no harm; so does a start from an empty file.
    lab.host.write(NFTABLES, "")
    lab.host.run("systemctl", "enable", "--now", "nftables.service")
    lab.host.write(NFTABLES, NFTABLES_TEXT)


@fault("saved-rules-without-nat", "netfilter-persistent restores rules that were saved before the engine was there",
       on=SCENARIO, breaks={"FLAP-12"}, diagnosis="MASQUERADE_MISSING", flavour="host", release="forky")  # fmt: skip
def saved_rules_without_nat(lab: Lab) -> None:
    # At boot the unit comes before the engine, which does no harm; so does a start without a file.
    lab.host.run("systemctl", "enable", "--now", "netfilter-persistent.service")
    lab.host.write(SAVED_RULES, SAVED_BEFORE_THE_ENGINE)


@fault("zone-not-permanent", "firewalld accepts the agent by a command without --permanent, so a reload forgets it",
       on=SCENARIO, breaks={"FLAP-12"}, diagnosis="FORWARD_DROPPED", flavour="host", release="forky")  # fmt: skip
def zone_not_permanent(lab: Lab) -> None:
    # The engine has no zone, as firewalld did not run when it started: its bridge is in the default one, which rejects.
    # It is not enabled: after a boot with it the engine makes its zone, or finds no answer yet, by chance.
    lab.host.run("systemctl", "start", "firewalld.service")
    lab.host.run("firewall-cmd", "--zone=trusted", f"--add-source={AGENT_SUBNET}")


@fault("engine-before-firewalld", "The engine started before firewalld answered, so it has no zone there",
       on=SCENARIO, breaks={"HOST-04", "EGRESS-01", "ROUTE-06"}, diagnosis="FORWARD_DROPPED", flavour="host",
       release="forky")  # fmt: skip
def engine_before_firewalld(lab: Lab) -> None:
    # At a boot this is a matter of chance: firewalld's unit is started before firewalld answers.
    lab.host.run("systemctl", "enable", "--quiet", "firewalld.service")
    lab.host.run("systemctl", "start", "firewalld.service")
    lab.host.run("firewall-cmd", "--state")


def _rules_by_a_unit(lab: Lab) -> None:
    """Let a unit set the rules whenever systemd-networkd starts, which has its defaults for rules."""
    lab.host.write(CONF, conf(KEEP_ROUTES))
    lab.host.write(LOOPBACK, loopback(BACKSTOP))
    lab.host.write(f"{UNITS}/{RULES_UNIT}", RULES_UNIT_TEXT)
    lab.host.run("systemctl", "enable", "--quiet", RULES_UNIT)
    lab.host.run("systemctl", "restart", "systemd-networkd.service")
    lab.host.run("systemctl", "start", RULES_UNIT)


@fault("reconfigure-purges-rules", "A unit sets the rules when systemd-networkd starts; networkd has its defaults",
       on=SCENARIO, breaks={"FLAP-12"}, diagnosis="FOREIGN_RULES_PURGED", flavour="host")  # fmt: skip
def reconfigure_purges_rules(lab: Lab) -> None:
    _rules_by_a_unit(lab)


@fault("reload-purges-rules", "A unit sets the rules; the file of another link changed, and networkd has not read it",
       on=SCENARIO, breaks={"FLAP-12"}, diagnosis="FOREIGN_RULES_PURGED", flavour="host")  # fmt: skip
def reload_purges_rules(lab: Lab) -> None:
    # A reload does nothing as long as no file has changed.
    _rules_by_a_unit(lab)
    lab.host.write(OFFICE, f"{lab.host.read(OFFICE)}\n[Link]\nRequiredForOnline=no\n")


BRIDGES = "/etc/systemd/network/50-bridges.network"


@fault("new-bridge-purges-rules", "A unit sets the rules; networkd configures each bridge that Docker adds",
       on=SCENARIO, breaks={"FLAP-12"}, diagnosis="FOREIGN_RULES_PURGED", flavour="host")  # fmt: skip
def new_bridge_purges_rules(lab: Lab) -> None:
    lab.host.write(BRIDGES, "[Match]\nName=br-*\n\n[Network]\nLinkLocalAddressing=no\n")
    _rules_by_a_unit(lab)


WATCH, WATCH_UNIT = "/usr/local/sbin/agent-watch", "agent-watch.service"
_RULE = f"ip rule add priority 1000 from {AGENT_SUBNET} lookup {TABLE} protocol static"
WATCH_TEXT = f"""\
#!/bin/sh
# The agent's rule is there as long as its container runs.
{_RULE} 2>/dev/null
docker events --filter type=container --filter event=start --filter event=die --format '{{{{.Action}}}}' |
while read -r action; do
    case $action in
    start) {_RULE} ;;
    die) ip rule del priority 1000 ;;
    esac
done
"""
WATCH_UNIT_TEXT = f"""\
[Unit]
Description=Policy routing of the measurement agent
After=docker.service

[Service]
ExecStart={WATCH}
Restart=always

[Install]
WantedBy=multi-user.target
"""


@fault("watch-of-any-container", "A watch of Docker's events removes the agent's rule when any container ends",
       on=SCENARIO, breaks={"FLAP-12"}, diagnosis="RULE_LOST", flavour="host")  # fmt: skip
def watch_of_any_container(lab: Lab) -> None:
    # It has no --filter container=NAME. The agent's own restart does no harm, as the start adds the rule again.
    lab.host.write(WATCH, WATCH_TEXT)
    lab.host.run("chmod", "755", WATCH)
    lab.host.write(f"{UNITS}/{WATCH_UNIT}", WATCH_UNIT_TEXT)
    lab.host.run("systemctl", "enable", "--quiet", "--now", WATCH_UNIT)


@fault("local-rule-for-all", "The rule for local networks has no source, as wg-quick's own, and goes with the VPN",
       on=SCENARIO, breaks={"FLAP-12"}, diagnosis="RULE_LOST", flavour="host")  # fmt: skip
def local_rule_for_all(lab: Lab) -> None:
    lab.host.write(LOOPBACK, loopback(rules().replace(f"From={AGENT_SUBNET}\n", "Family=ipv4\n", 1), BACKSTOP))
    # To the kernel the rule with a source is the same one as long as it is there.
    lab.host.ip("rule", "del", "priority", "990")
    lab.host.run("systemctl", "restart", "systemd-networkd.service")
    lab.host.run(WAIT_ONLINE, "--timeout=10", "--interface=lo:carrier")


BEFORE_RULES = "/etc/ufw/before.rules"
OWN_NAT = """\
*nat
:POSTROUTING ACCEPT [0:0]
-F POSTROUTING
-A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE
COMMIT
"""


@fault("ufw-flushes-nat", "A part *nat of ufw's before.rules empties POSTROUTING, as recipes for a VPN have it",
       on=SCENARIO, breaks={"FLAP-12"}, diagnosis="MASQUERADE_MISSING", flavour="host", release="trixie")  # fmt: skip
def ufw_flushes_nat(lab: Lab) -> None:
    # At boot ufw comes before the engine, which does no harm; so does its start before the line was added.
    lab.host.run("ufw", "--force", "enable")
    lab.host.write(BEFORE_RULES, OWN_NAT + lab.host.read(BEFORE_RULES))
