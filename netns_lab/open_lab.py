"""Builds the lab or the replica of a specification: the machines, then the faults, then the user's scripts."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Protocol

from netns_lab.apply_script import ScriptFailed, apply_script
from netns_lab.builder import build
from netns_lab.docker_engine import podman
from netns_lab.docker_engine.engine_builder import build_with_engine, build_with_podman
from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.faults import Fault
from netns_lab.lab import Lab, LabCommandError, closed_on_failure
from netns_lab.networkd_daemon import PROGRAM_FOLDERS
from netns_lab.plan import LabPlan
from netns_lab.replica import ReplicaImpossible, build_replica, plan_replica
from netns_lab.rtnetlink_batch import LabBuildError
from netns_lab.scenarios import Flavour
from netns_lab.script import Script
from netns_lab.virtual_machine.guest_kernel import processor
from netns_lab.virtual_machine.wired_lab import build_on_own_kernel
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, RELEASES, BaseRoot, BaseRootFailed
from netns_lab.whole_host.copied_files import release_of_this_host
from netns_lab.whole_host.copied_host import CopyImpossible, build_copy, plan_copy
from netns_lab.whole_host.host_lab import build_whole_host
from netns_lab.whole_host.host_requirements import base_root
from netns_lab.whole_host.stacked_uplinks import details_of_this_host
from viacheck.host.docker import client_config_problem
from viacheck.model.intent import Intent
from viacheck.model.snapshot import Snapshot
from viacheck.targets.local import LocalSpec, LocalTarget
from viacheck.targets.specs import TargetNotOpened, TargetUnavailable

PATH = ":".join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *PROGRAM_FOLDERS))
"""The folders of a lab's programs: an ordinary user's own PATH may lack root's, and no PATH has systemd's."""


class Buildable(Protocol):
    """What can be built: the specification of a lab, of a replica, or of a copy of this host."""

    @property
    def scripts(self) -> Sequence[Script]:
        """The scripts to run on its host before the checks."""

    def build(self) -> Lab:
        """Build it.

        Raises:
            TargetUnavailable: something that it needs is missing here.
            LabBuildError: the kernel or the engine refused.
            LabCommandError: a fault's command failed.
        """


def open_lab(spec: Buildable) -> Lab:
    """Build a lab with its faults, a replica, or a copy of this host, and run the specification's scripts on its host.

    Raises:
        TargetUnavailable: something that the lab needs is missing here, or the snapshot that a replica needs.
        TargetNotOpened: the kernel, the engine, a fault's command or a script failed.
    """
    try:
        lab = spec.build()
        with closed_on_failure(lab):
            for script in spec.scripts:
                lab.change_output.append((script.name, apply_script(lab, script)))
    except ScriptFailed as error:
        raise TargetNotOpened(str(error), error.run) from error
    except (LabBuildError, LabCommandError) as error:
        raise TargetNotOpened(str(error)) from error
    return lab


def build_lab(name: str, plan: LabPlan, flavour: Flavour, release: str | None, faults: Sequence[Fault]) -> Lab:
    """Build a lab and apply its faults; ``name`` is the lab's on the command line.

    Raises:
        TargetUnavailable: something that the lab needs is missing here.
        LabBuildError: the kernel or the engine refused.
        LabCommandError: a fault's command failed.
    """
    if flavour in ("engine", "host") and (problem := client_config_problem()) is not None:
        raise TargetUnavailable(problem)
    if flavour == "host":
        return _with_faults(build_whole_host(plan, _base_root(release or DEFAULT_RELEASE)), faults)
    if flavour == "vm":
        if processor() is None:
            raise TargetUnavailable(f"lab {name} runs in a virtual machine: viacheck --lab {name} starts one")
        return _with_faults(build_on_own_kernel(plan), faults)
    needs = dict(plan.needs)
    for fault in faults:
        needs |= fault.needs
    missing = sorted({package for program, package in needs.items() if shutil.which(program, path=PATH) is None})
    if missing:
        raise TargetUnavailable(
            f"lab {name} needs packages that are not installed: apt-get install {' '.join(missing)}"
        )
    if flavour == "engine" and release == podman.NAME:
        lab = build_with_podman(plan, _base_root(podman.RELEASE).path)
    elif flavour == "engine":
        base = _base_root(release) if release is not None else None
        reason = missing_requirement(packages=base is None)
        if reason is not None:
            raise TargetUnavailable(reason)
        lab = build_with_engine(plan, base.path if base is not None else None)
    else:
        lab = build(plan)
    return _with_faults(lab, faults)


def _base_root(release: str) -> BaseRoot:
    try:
        return base_root(release, lambda line: sys.stderr.write(f"viacheck: {line}\n"))
    except BaseRootFailed as error:
        raise TargetUnavailable(str(error)) from error


def _with_faults(lab: Lab, faults: Sequence[Fault]) -> Lab:
    with closed_on_failure(lab):
        for fault in faults:
            fault.apply(lab)
    return lab


def build_replica_of(host: str, intent: Intent, snapshot: Snapshot | None) -> Lab:
    """Build the replica of a host; without a snapshot, of the host that the run was started on.

    Raises:
        TargetUnavailable: the snapshot does not hold what a replica needs.
        LabBuildError: the kernel refused.
    """
    try:
        return build_replica(plan_replica(snapshot or _state_of_this_host(intent), intent, host))
    except ReplicaImpossible as error:
        raise TargetUnavailable(f"no replica of {host}: {error}") from None


def build_copy_of_this_host(host: str, intent: Intent) -> Lab:
    """Boot this host's own network files in a whole host of its release.

    Raises:
        TargetUnavailable: this host has a part that no copy can have, or a whole host cannot run here.
        LabBuildError: the copy does not boot, or its engine refuses.
    """
    codename, release = release_of_this_host()
    if codename not in RELEASES:
        raise TargetUnavailable(
            f"no copy of {host}: this host runs {release}, and a whole host is a Debian {', '.join(RELEASES)}"
        )
    snapshot = _state_of_this_host(intent)
    try:
        plan = plan_copy(snapshot, intent, host, details_of_this_host())
    except CopyImpossible as error:
        raise TargetUnavailable(f"no copy of {host}: {error}") from None
    return build_copy(plan, snapshot, _base_root(codename))


def _state_of_this_host(intent: Intent) -> Snapshot:
    host = LocalTarget(LocalSpec(intent, ""))
    try:
        return host.snapshot
    finally:
        host.close()
