"""The engine flavour of a lab: the same host and uplinks, but a real dockerd makes the network and the container."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from netns_lab import macvlan_network, pipework_host
from netns_lab.builder import build
from netns_lab.docker_engine.daemon import DockerDaemon, EngineFailed
from netns_lab.docker_engine.podman import NAME as PODMAN
from netns_lab.docker_engine.podman import USER_NETWORK, PodmanEngine
from netns_lab.lab import AGENT_CONTAINER, Lab, closed_on_failure
from netns_lab.plan import LabPlan, without_agent
from netns_lab.rtnetlink_batch import LabBuildError
from netns_lab.scenarios import AGENT_SUBNET, AGENT_SUBNET6, BRIDGE
from netns_lab.services.dhcp_client import DHCPClient, NoLease
from viacheck.model.intent import Intent, NatAttach, PipeworkDhcpAttach, PipeworkStaticAttach
from viacheck.model.intent_file import parse_intent

DEFAULT_NETWORK = "bridge"
"""The network of Docker's containers for which none is named."""
PODMAN_NOTE = "the engine is podman: netavark makes the agent's network, and no daemon stops it with a restart"
ATTACHED_WITHIN, LOOKS = 10.0, 100
"""Seconds, and how often to look, for a host's own unit to run pipework once the container has started."""


def engine_intent(plan: LabPlan, network: str = DEFAULT_NETWORK) -> Intent:
    """Return the scenario's intent, with a container as the agent; ``network``: the engine's own, for NAT."""
    document = plan.intent.as_json()
    attach = document["agent"]["attach"]
    if isinstance(plan.intent.agent.attach, NatAttach) and plan.intent.agent.attach.network == DEFAULT_NETWORK:
        attach = {"mode": "nat", "network": network}
    sources = {"source": document["agent"]["source"]} if plan.intent.agent.source else {}
    document["agent"] = {"container": AGENT_CONTAINER, "attach": attach, **sources}
    return parse_intent(document, source=f"lab engine:{plan.name}")


def build_with_engine(plan: LabPlan, base: Path | None = None) -> Lab:
    """Build a lab, start an engine on its host, and run a container as the agent.

    Args:
        plan: the lab.
        base: the root of another release that has the engine's programs; None for this machine's.

    Raises:
        LabBuildError: when the lab cannot be built or the engine does not start; the message has its last log lines.
    """
    lab = build(_host_alone(plan))
    settings: dict[str, object] = {}
    if plan.intent.probe.target6 is not None:
        settings = {"ipv6": True, "fixed-cidr-v6": AGENT_SUBNET6}
    with closed_on_failure(lab, f"lab engine:{plan.name}", EngineFailed, NoLease):
        lab.engine = DockerDaemon.start(lab.host.namespace, subnet=AGENT_SUBNET, settings=settings, base=base)
        attach_agent(lab, plan)
    return lab


def build_with_podman(plan: LabPlan, base: Path) -> Lab:
    """Build a lab, start podman on its host, and run a container as the agent.

    Args:
        plan: the lab.
        base: the root of the release that has podman.

    Raises:
        LabBuildError: when the lab cannot be built or podman refuses.
    """
    intent = engine_intent(plan, PODMAN)
    lab = build(replace(_host_alone(plan), intent=intent, notes=(*plan.notes, PODMAN_NOTE)))
    with closed_on_failure(lab, f"lab engine:{plan.name}@{PODMAN}", EngineFailed, NoLease):
        attach = intent.agent.attach
        rootless = isinstance(attach, NatAttach) and attach.network == USER_NETWORK
        lab.engine = engine = PodmanEngine.start(lab.host.namespace, subnet=AGENT_SUBNET, base=base, rootless=rootless)
        if plan.leased is not None:
            macvlan_network.create_leased(engine, intent)
            macvlan_network.run_agent(lab, macvlan_network.intended(intent).name)
        else:
            attach_agent(lab, plan)
    return lab


def _host_alone(plan: LabPlan) -> LabPlan:
    """Return the description of the lab before the engine starts."""
    alone = replace(without_agent(plan, BRIDGE), intent=engine_intent(plan))
    if not plan.intent.mode.startswith("pipework"):
        return alone
    # pipework finds a real container by its name, and an installed pipework needs no stand-in.
    links = {path: target for path, target in plan.file_links.items() if not path.startswith("/run/netns/")}
    files = {
        path: text for path, text in plan.files.items() if path != pipework_host.PATH or not pipework_host.installed()
    }
    notes = [note for note in plan.notes if note != pipework_host.NO_CONTAINER_NOTE]
    if not pipework_host.installed():
        notes.insert(0, pipework_host.EQUIVALENT_NOTE)
    return replace(
        alone, file_links=links, files=files, executables=plan.executables & files.keys(), notes=tuple(notes)
    )


def attach_agent(lab: Lab, plan: LabPlan) -> None:
    """Run the agent's container on the lab's engine, and attach it as the plan says.

    Raises:
        docker.errors.APIError: the engine refuses.
        LabBuildError: pipework fails.
        NoLease: no server gives the agent a lease.
    """
    assert lab.engine is not None
    intent = lab.plan.intent
    if intent.mode == "macvlan":
        macvlan_network.connect(lab, macvlan_network.intended(intent))
        return
    attach = intent.agent.attach
    network = attach.network if isinstance(attach, NatAttach) else "none"
    lab.engine.containers.run(AGENT_CONTAINER, network=network, restart="unless-stopped")
    lab.set_agent_namespace(lab.engine.containers.namespace(AGENT_CONTAINER))
    for source in intent.agent.source:
        if source.address is not None:
            # Docker gives an interface one address.
            lab.agent.ip("address", "add", f"{source.address}/{IPv4Network(AGENT_SUBNET).prefixlen}", "dev", "eth0")
    if intent.mode.startswith("pipework") and lab.whole_host is not None:
        wait_for_pipework(lab)
    elif intent.mode.startswith("pipework"):
        apply_pipework(lab)
    if plan.leased is not None:
        start_agents_dhcp_client(lab, plan.leased)


def start_agents_dhcp_client(lab: Lab, interface: str) -> None:
    """Start the lab's own DHCP client on the agent's interface.

    Raises:
        NoLease: when no server gives a lease.
    """
    lab.agent.ip("link", "set", "dev", interface, "up")
    lab.add_dhcp_client(DHCPClient.start(lab.agent.namespace, interface))


def wait_for_pipework(lab: Lab) -> None:
    """Wait until the host's own unit has attached the agent, which it does when the container starts.

    Raises:
        LabBuildError: the unit has not done it within 10 s.
    """
    pause, looks = threading.Event(), 0
    deadline = time.monotonic() + ATTACHED_WITHIN
    while not lab.agent.namespace.run(["ip", "link", "show", "dev", pipework_host.INTERFACE, "up"]).stdout:
        looks += 1
        if time.monotonic() > deadline and looks >= LOOKS:
            raise LabBuildError(f"lab {lab.plan.name}: no unit of the host has attached the agent by pipework")
        pause.wait(0.05)


def apply_pipework(lab: Lab) -> None:
    """Attach the agent by pipework according to the lab's intent; in the DHCP mode without an address yet.

    Raises:
        LabBuildError: when pipework fails, with its error output.
    """
    attach = lab.plan.intent.agent.attach
    assert isinstance(attach, PipeworkStaticAttach | PipeworkDhcpAttach)
    address = pipework_host.NO_ADDRESS
    if isinstance(attach, PipeworkStaticAttach):
        address = f"{attach.address}@{attach.gateway}"
    result = pipework_host.run(lab, attach.parent, lab.agent_container, address)
    if not result.ok:
        raise LabBuildError(f"lab {lab.plan.name}: {result.command}: exit {result.exit_code}: {result.stderr.strip()}")
