"""Builds the lab of a whole host: the machines around it, then its disk, then its boot."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from netns_lab.builder import build
from netns_lab.docker_engine.daemon import EngineFailed
from netns_lab.docker_engine.engine_builder import attach_agent, engine_intent
from netns_lab.lab import Lab, closed_on_failure
from netns_lab.plan import LabPlan, without_agent
from netns_lab.scenarios import BRIDGE
from netns_lab.whole_host.base_root import BaseRoot
from netns_lab.whole_host.docker_service import DockerService
from netns_lab.whole_host.networkd_service import NetworkdService
from netns_lab.whole_host.power import WholeHost, WholeHostFailed
from netns_lab.whole_host.root_files import RootFile, root_files
from netns_lab.whole_host.unit_states import failed_units
from viacheck.host.namespace import Namespace

NOTE = (
    "the host is a Debian {release} with systemd as PID 1 in namespaces; its own Docker engine runs the agent's "
    "container"
)
SANDBOXES = "/run/docker/netns"
"""Where the engine binds the network namespace of each container, under an id of its own (libnetwork)."""
_SANDBOX = re.compile("[0-9a-f]{12}")


def build_whole_host(plan: LabPlan, base: BaseRoot) -> Lab:
    """Build a lab whose host boots from a disk of its own.

    Args:
        plan: the lab; its files are written on the host's disk.
        base: a base root that is built.

    Raises:
        LabBuildError: the host does not boot, or its engine does not run the agent.
    """
    lab, whole_host = boot_host(plan, base, root_files(plan))
    with closed_on_failure(lab, f"lab host:{plan.name}", EngineFailed, OSError):
        if plan.networkd:
            lab.networkd = NetworkdService(lab.host.namespace, [link.name for link in plan.host.state.links])
        lab.engine = DockerService(whole_host)
        attach_agent(lab, plan)
    return lab


def boot_host(plan: LabPlan, base: BaseRoot, files: Mapping[str, RootFile]) -> tuple[Lab, WholeHost]:
    """Build the machines around a whole host, and boot it; nothing runs the agent yet.

    Args:
        plan: the lab.
        base: a base root that is built.
        files: the files on the host's disk, by absolute path.

    Raises:
        LabBuildError: the host does not boot.
    """
    notes = (NOTE.format(release=base.release),)
    lab = build(_before_boot(replace(plan, notes=notes)))
    with closed_on_failure(lab, f"lab host:{plan.name}", WholeHostFailed, OSError):
        whole_host = WholeHost(lab.host.namespace, base.path, files)
        lab.whole_host = whole_host
        lab.on_close(whole_host.close)
        whole_host.power_on()
        if whole_host.wait_until_booted() != "running":
            lab.notes.append(f"units that failed at boot: {failed_units(lab.host.namespace)}")
    return lab, whole_host


def _before_boot(plan: LabPlan) -> LabPlan:
    """Return the description of the lab before its host boots: cards and cables, and nothing configured on the host."""
    alone = replace(without_agent(plan, BRIDGE), intent=engine_intent(plan))
    host = replace(alone.host, state=replace(alone.host.state, sysctls={}))
    return replace(
        alone, host=host, files={}, executables=frozenset(), file_links={}, hidden=(), boot=(), daemons=False,
        networkd=False, link_hook=None,
    )  # fmt: skip


def agent_path(host: Namespace) -> str | None:
    """Return the path of the network namespace that the host's engine has made for its container; None without one.

    The engine is not asked: it answers only after it has started its containers, and a question would start it. A file
    on which no namespace is mounted is what an engine that was killed has left.
    """

    def look() -> list[str]:
        try:
            folder = os.stat(SANDBOXES).st_dev
            names = filter(_SANDBOX.fullmatch, os.listdir(SANDBOXES))
            return [name for name in names if os.stat(f"{SANDBOXES}/{name}").st_dev != folder]
        except FileNotFoundError:
            return []

    return next((f"{SANDBOXES}/{name}" for name in host.call(look)), None)
