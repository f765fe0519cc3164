"""Faults that only a whole host shows: its units and engine at boot, and the files of NetworkManager and netplan."""

from __future__ import annotations

from netns_lab.faults.fault import fault
from netns_lab.faults.host import second_network
from netns_lab.lab import Lab
from netns_lab.plan import RESOLVER
from netns_lab.scenarios.bridge import PARENT
from netns_lab.scenarios.managers import (
    LOOPBACK_PROFILE,
    NETPLAN,
    NETPLAN_NM_POLICY,
    NETPLAN_NM_RULES,
    NM_ROUTE,
    RADIO_PROFILE,
    loopback_profile,
    netplan_nm_yaml,
    netplan_yaml,
    radio_profile,
)
from netns_lab.scenarios.nat import AGENT_SUBNET, TABLE_NAME
from netns_lab.scenarios.survival import BACKSTOP, INTERFACES, interfaces
from netns_lab.whole_host.root_files import UNITS

RULES_UNIT = "agent-rules.service"
RULES_UNIT_TEXT = f"""\
[Unit]
Description=Policy routing of the measurement agent
After=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=sleep 3
ExecStart=ip rule add priority 990 from {AGENT_SUBNET} lookup main suppress_prefixlength 0
ExecStart=ip rule add priority 1000 from {AGENT_SUBNET} lookup {TABLE_NAME}

[Install]
WantedBy=multi-user.target
"""


@fault("rule-after-docker", "The agent's rules are added by a unit that starts after Docker",
       on="policy-routing-ifupdown", breaks={"FLAP-08"}, diagnosis="LEAK_AT_BOOT", flavour="host")  # fmt: skip
def rule_after_docker(lab: Lab) -> None:
    # Docker's unit is ready only when the containers with a restart policy have been started. Such units often sleep
    # until "everything is up"; a busy machine needs the time for the agent's first packet.
    lab.host.write(INTERFACES, interfaces(loopback=BACKSTOP))
    lab.host.write(f"{UNITS}/{RULES_UNIT}", RULES_UNIT_TEXT)
    lab.host.run("systemctl", "enable", "--quiet", RULES_UNIT)


@fault("container-not-started", "The agent's container has no restart policy, so no engine starts it again",
       on=("policy-routing-networkd", "macvlan-ifupdown"), breaks={"FLAP-05", "FLAP-08"}, diagnosis="AGENT_NOT_RUNNING",
       flavour="host")  # fmt: skip
def container_not_started(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.containers.set_restart_policy(lab.agent_container, "no")


LATE_NAME = "dongle0"
HIDE_UNIT, LATE_UNIT = "hide-parent.service", "late-parent.service"
HIDE_UNIT_TEXT = f"""\
[Unit]
Description=The parent's driver is not loaded yet
DefaultDependencies=no
Before=systemd-udev-trigger.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip link set dev {PARENT} down
ExecStart=ip link set dev {PARENT} name {LATE_NAME}

[Install]
WantedBy=sysinit.target
"""
LATE_UNIT_TEXT = f"""\
[Unit]
Description=The parent's driver is loaded late
After={HIDE_UNIT}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-timeout 6 sh -c 'until systemctl --quiet is-active docker.service; do sleep 0.1; done'
ExecStart=ip link set dev {LATE_NAME} name {PARENT}
ExecStart=ifup {PARENT}

[Install]
WantedBy=multi-user.target
"""
"""It comes when the engine has started, or after six seconds, if the engine waits for the parent."""


@fault("docker-before-parent", "Docker starts before the parent is there, as with a dongle whose driver is loaded late",
       on="macvlan-ifupdown", breaks={"FLAP-08"}, diagnosis="AGENT_NOT_RUNNING", flavour="host")  # fmt: skip
def docker_before_parent(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.containers.set_restart_policy(lab.agent_container, "always")
    # networking.service, and so network-online.target, waits for 'auto' interfaces only.
    lab.host.write(INTERFACES, lab.host.read(INTERFACES).replace(f"auto {PARENT}\n", ""))
    for unit, text in ((HIDE_UNIT, HIDE_UNIT_TEXT), (LATE_UNIT, LATE_UNIT_TEXT)):
        lab.host.write(f"{UNITS}/{unit}", text)
        lab.host.run("systemctl", "enable", "--quiet", unit)


@fault("default-set-by-hand", "Docker gives a second network the default route; a person set it again in the container",
       on="policy-routing-networkd", breaks={"FLAP-04", "FLAP-05", "FLAP-08"}, diagnosis="DEFAULT_BY_OTHER_NETWORK",
       flavour="host")  # fmt: skip
def default_set_by_hand(lab: Lab) -> None:
    assert lab.engine is not None
    # With a second network, Docker 28 sends the agent's DNS queries from the host, unless --dns names the resolver.
    lab.engine.containers.remove(lab.agent_container)
    lab.engine.containers.run(lab.agent_container, restart="unless-stopped", dns=[RESOLVER])
    lab.set_agent_namespace(lab.engine.containers.namespace(lab.agent_container))
    second_network(lab)
    lab.agent.ip("route", "replace", "default", "via", "172.17.0.1", "dev", "eth0")


@fault("networking-not-enabled", "networking.service is not enabled, so nothing reads ifupdown's files at boot",
       on="policy-routing-ifupdown", breaks={"PERSIST-01", "FLAP-08"}, diagnosis="NOT_PERSISTENT",
       flavour="host")  # fmt: skip
def networking_not_enabled(lab: Lab) -> None:
    lab.host.run("systemctl", "disable", "networking.service")


@fault("networkd-not-enabled", "systemd-networkd.service is not enabled, so nothing reads its files at boot",
       on="policy-routing-networkd", breaks={"PERSIST-01", "FLAP-08"}, diagnosis="NOT_PERSISTENT",
       flavour="host")  # fmt: skip
def networkd_not_enabled(lab: Lab) -> None:
    # This disables its socket and systemd-networkd-wait-online.service too: each of them starts it.
    lab.host.run("systemctl", "disable", "systemd-networkd.service")


@fault("nm-not-enabled", "NetworkManager.service is masked, so nothing reads its profiles at boot",
       on="policy-routing-nm", breaks={"PERSIST-01", "FLAP-08"}, diagnosis="NOT_PERSISTENT",
       flavour="host")  # fmt: skip
def nm_not_enabled(lab: Lab) -> None:
    lab.host.run("systemctl", "disable", "NetworkManager.service", "NetworkManager-wait-online.service")
    lab.host.run("systemctl", "mask", "NetworkManager.service")


@fault("nm-without-rule", "The profiles no longer have the rules and the route", on="policy-routing-nm",
       breaks={"PERSIST-01", "FLAP-08"}, diagnosis="NOT_PERSISTENT", flavour="host")  # fmt: skip
def nm_without_rule(lab: Lab) -> None:
    # NetworkManager takes a link that is up as it finds it, so its restart keeps the present rules and routes.
    lab.host.write(LOOPBACK_PROFILE, loopback_profile())
    lab.host.write(RADIO_PROFILE, radio_profile())


@fault("nm-no-autoconnect", "The uplink's profile was activated by hand and does not connect by itself",
       on="policy-routing-nm", breaks={"PERSIST-01", "FLAP-08"}, diagnosis="NOT_PERSISTENT",
       flavour="host")  # fmt: skip
def nm_no_autoconnect(lab: Lab) -> None:
    lab.host.write(RADIO_PROFILE, radio_profile(*NM_ROUTE, automatic=False))


@fault("netplan-without-rule", "netplan's file no longer has the rules and the route", on="policy-routing-netplan",
       breaks={"PERSIST-01", "FLAP-08", "FLAP-11", "FLAP-12"}, diagnosis="NOT_PERSISTENT",
       flavour="host")  # fmt: skip
def netplan_without_rule(lab: Lab) -> None:
    # The files that netplan generated at boot stay until it is applied, or systemd runs its generators again.
    lab.host.write(NETPLAN, netplan_yaml(rules=False, route=False))


GENERATED = "/run/systemd/network/10-netplan-{}.network"


@fault("netplan-generated-edited", "The rules and the route were written into the files that netplan generates",
       on="policy-routing-netplan", breaks={"PERSIST-01", "FLAP-08", "FLAP-11", "FLAP-12"},
       diagnosis="NOT_PERSISTENT", flavour="host")  # fmt: skip
def netplan_generated_edited(lab: Lab) -> None:
    by_hand = {path: lab.host.read(path) for path in map(GENERATED.format, ("lo", "wlan0"))}
    lab.host.write(NETPLAN, netplan_yaml(rules=False, route=False))
    lab.host.run("netplan", "generate")
    for path, text in by_hand.items():
        lab.host.write(path, text)
    lab.host.run("networkctl", "reload")


@fault("netplan-policy-ignored", "The rules are a routing-policy, of which netplan gives NetworkManager nothing",
       on="policy-routing-netplan-nm", breaks={"PERSIST-01", "FLAP-08", "FLAP-11"}, diagnosis="NOT_PERSISTENT",
       flavour="host")  # fmt: skip
def netplan_policy_ignored(lab: Lab) -> None:
    # The profile that netplan generated at boot stays until it is applied.
    backstop = tuple(line for line in NETPLAN_NM_RULES if "route91" in line)
    lab.host.write(NETPLAN, netplan_nm_yaml(policy=NETPLAN_NM_POLICY, passthrough=backstop))
