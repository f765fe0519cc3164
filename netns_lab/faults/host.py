"""Faults of the host itself: uplinks, gateways, forwarding, the default exit, the agent, the engine."""

from __future__ import annotations

from netns_lab import nft_rules
from netns_lab.faults.fault import FAULT_TABLE, LEAVES_ELSEWHERE, fault
from netns_lab.lab import Lab
from netns_lab.nft_rules import Forward, ForwardPolicy, SetTTL
from netns_lab.plan import AGENT_PATH
from netns_lab.scenarios import AGENT_SUBNET, USERSPACE_NETWORK

SECOND_NETWORK = "another"


@fault("forwarding-off", "The kernel does not forward IPv4", on=("nat", "policy-routing"),
       breaks={"HOST-04", "ROUTE-05", "EGRESS-01", "ROUTE-06"}, diagnosis="FORWARDING_OFF")  # fmt: skip
def forwarding_off(lab: Lab) -> None:
    lab.host.sysctl("net/ipv4/ip_forward", "0")


@fault("forward-dropped", "The policy of the forward hook is drop", on=("nat", "policy-routing"),
       breaks={"HOST-04", "EGRESS-01", "ROUTE-06"}, diagnosis="FORWARD_DROPPED")  # fmt: skip
def forward_dropped(lab: Lab) -> None:
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [ForwardPolicy(verdict="drop")])


@fault("answers-dropped", "A rule of the forward hook drops the answers to the agent", on=("nat", "policy-routing"),
       breaks={"HOST-04", "EGRESS-03"}, diagnosis="FORWARD_DROPPED")  # fmt: skip
def answers_dropped(lab: Lab) -> None:
    answers = Forward(verdict="drop", source="198.51.100.0/24", destination=AGENT_SUBNET)
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [answers])


@fault("answers-expire", "A rule sets the TTL of all that arrives on the uplink to 1", on="policy-routing",
       breaks={"EGRESS-03"}, diagnosis="TTL_EXPIRES")  # fmt: skip
def answers_expire(lab: Lab) -> None:
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [SetTTL(iif="wlan0", ttl=1)])


@fault("drop-beside-the-path", "The rule is lost, and the uplink that is no longer used drops the agent's packets",
       on="policy-routing", breaks={"RULE_MISSING": {"ROUTE-02", *LEAVES_ELSEWHERE}, "FORWARD_DROPPED": {"HOST-04"}},
       diagnosis="RULE_MISSING")  # fmt: skip
def drop_beside_the_path(lab: Lab) -> None:
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [Forward(verdict="drop", oif="wlan0")])
    lab.host.ip("rule", "del", "from", AGENT_SUBNET)


@fault("uplink-missing", "The uplink does not exist", on="policy-routing",
       breaks={"HOST-02", "HOST-03", "ROUTE-04", "ROUTE-06", *LEAVES_ELSEWHERE},
       diagnosis="UPLINK_MISSING")  # fmt: skip
def uplink_missing(lab: Lab) -> None:
    lab.host.ip("link", "del", "dev", "wlan0")


@fault("uplink-down", "The uplink is administratively down", on="policy-routing",
       breaks={"HOST-02", "HOST-03", "ROUTE-04", "ROUTE-06", *LEAVES_ELSEWHERE},
       diagnosis="UPLINK_DOWN")  # fmt: skip
def uplink_down(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", "wlan0", "down")


@fault("no-carrier", "The uplink has no carrier", on="policy-routing",
       breaks={"HOST-02", "HOST-03", "EGRESS-01", "ROUTE-06"}, diagnosis="NO_CARRIER")  # fmt: skip
def no_carrier(lab: Lab) -> None:
    lab.gateway("wlan0").ip("link", "set", "dev", "lan0", "down")
    lab.wait_for_carrier("wlan0", present=False)


@fault("no-address", "The uplink has no address", on="policy-routing",
       breaks={"HOST-02", "ROUTE-04", "ROUTE-06", *LEAVES_ELSEWHERE}, diagnosis="NO_ADDRESS")  # fmt: skip
def no_address(lab: Lab) -> None:
    lab.host.ip("-4", "address", "flush", "dev", "wlan0")


@fault("gateway-silent", "The gateway does not answer ARP", on="policy-routing",
       breaks={"HOST-03", "EGRESS-01", "ROUTE-06"}, diagnosis="GATEWAY_SILENT")  # fmt: skip
def gateway_silent(lab: Lab) -> None:
    lab.gateway("wlan0").ip("link", "set", "dev", "lan0", "arp", "off")
    lab.host.ip("neigh", "flush", "dev", "wlan0")


@fault("subnet-overlap", "The host has a route to a part of the agent's subnet", on=("nat", "policy-routing"),
       breaks={"HOST-05"}, diagnosis="SUBNET_OVERLAP")  # fmt: skip
def subnet_overlap(lab: Lab) -> None:
    lab.host.ip("route", "add", "172.17.128.0/17", "via", "10.10.40.1", "dev", "eth0")


@fault("default-exit-wrong", "The host's default route leaves by the agent's uplink", on="policy-routing",
       breaks={"HOST-06", "EGRESS-04"}, diagnosis="DEFAULT_EXIT_WRONG")  # fmt: skip
def default_exit_wrong(lab: Lab) -> None:
    lab.host.ip("route", "replace", "default", "via", "10.10.50.1", "dev", "wlan0")


@fault("default-exit-missing", "The host has no default route", on="policy-routing",
       breaks={"HOST-06", "EGRESS-04"}, diagnosis="DEFAULT_EXIT_MISSING")  # fmt: skip
def default_exit_missing(lab: Lab) -> None:
    lab.host.ip("route", "del", "default")


@fault("agent-gone", "The agent does not run", on=("nat", "policy-routing"),
       breaks={"HOST-07"}, diagnosis="AGENT_NOT_RUNNING", flavour="netns")  # fmt: skip
def agent_gone(lab: Lab) -> None:
    lab.host.run("umount", AGENT_PATH)
    lab.host.run("rm", AGENT_PATH)


@fault("agent-stopped", "The agent's container is stopped", on=("nat", "policy-routing"),
       breaks={"HOST-07"}, diagnosis="AGENT_NOT_RUNNING", flavour="engine")  # fmt: skip
def agent_stopped(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.containers.stop(lab.agent_container)


@fault("agent-paused", "The agent's container is paused", on="nat",
       breaks={"HOST-07"}, diagnosis="AGENT_NOT_RUNNING", flavour="engine")  # fmt: skip
def agent_paused(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.containers.pause(lab.agent_container)


@fault("other-docker-network", "The container is on a network that docker compose made, not on the intended one",
       on="nat", breaks={"NAT-03"}, diagnosis="AGENT_NOT_ATTACHED", flavour="engine")  # fmt: skip
def other_docker_network(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.containers.remove(lab.agent_container)
    lab.engine.networks.create_bridge("te_default", "172.30.0.0/24")
    lab.engine.containers.run(lab.agent_container, network="te_default", restart="unless-stopped")
    lab.set_agent_namespace(lab.engine.containers.namespace(lab.agent_container))


@fault("second-network", "The container was connected to a second network, which has its default route",
       on="policy-routing", breaks={"ROUTE-05", "EGRESS-01", "EGRESS-05", "EGRESS-08"},
       diagnosis="DEFAULT_BY_OTHER_NETWORK", flavour="engine")  # fmt: skip
def second_network(lab: Lab) -> None:
    assert lab.engine is not None
    # Its name sorts before bridge, which decides before Docker 28.
    lab.engine.networks.create_bridge(SECOND_NETWORK, "172.31.0.0/24")
    lab.engine.networks.connect(SECOND_NETWORK, lab.agent_container, gateway_priority=1)


@fault("userspace-network", "Podman was started with --network slirp4netns, whose packets are the host's own",
       on="policy-routing", breaks={"NAT-03", "ROUTE-05", "EGRESS-01", "EGRESS-05", "EGRESS-08"},
       diagnosis="AGENT_ON_USERSPACE_NETWORK", flavour="podman")  # fmt: skip
def userspace_network(lab: Lab) -> None:
    assert lab.engine is not None
    lab.host.sysctl("net/ipv4/ping_group_range", "0 2147483647")
    lab.engine.containers.remove(lab.agent_container)
    lab.engine.containers.run(lab.agent_container, network=USERSPACE_NETWORK)
    lab.set_agent_namespace(lab.engine.containers.namespace(lab.agent_container))


@fault("engine-stopped", "The Docker engine does not answer", on=("nat", "policy-routing"),
       breaks={"HOST-01", "HOST-07"}, diagnosis="ENGINE_UNREACHABLE", flavour="engine")  # fmt: skip
def engine_stopped(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.stop_daemon()
