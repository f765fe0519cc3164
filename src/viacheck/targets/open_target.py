"""Opens the targets that a run is about: builds a lab with its faults in it, or takes the host as it is."""

from __future__ import annotations

import os
import shutil

from netns_lab.builder import build
from netns_lab.control import NetnsLabControl
from netns_lab.docker_engine.engine_builder import build_with_engine
from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.lab import Lab
from netns_lab.networkd_daemon import PROGRAM_FOLDERS
from netns_lab.reboot import rebooted_plan
from netns_lab.replica import ReplicaImpossible, build_replica, plan_replica
from viacheck.disruption.live import LiveDisruption
from viacheck.host.namespace import Namespace
from viacheck.model.intent import Intent
from viacheck.model.result import TargetRecord
from viacheck.model.snapshot import Snapshot
from viacheck.targets.apply_script import apply_script
from viacheck.targets.base import Target
from viacheck.targets.bundle import BundleTarget
from viacheck.targets.replica import ReplicaTarget
from viacheck.targets.specs import BundleSpec, LabSpec, LocalSpec, ReplicaSpec, TargetSpec, faults_of

PATH = ":".join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *PROGRAM_FOLDERS))
"""Where a lab's programs are looked for: an ordinary user's own PATH may lack root's, and systemd's are in none."""


class LabUnavailable(Exception):
    """The lab cannot be hosted here; the message says what would help."""


def open_lab(spec: LabSpec | ReplicaSpec) -> Lab:
    """Build a lab and break it as the selection says, or the twin of a host; then make the changes to be tried.

    Raises:
        LabUnavailable: when something that the lab needs is missing here, or the snapshot that a twin needs.
        LabBuildError: when the kernel or the engine refuses.
        LabCommandError: when a fault cannot be made.
        RehearsalFailed: when one of the changes to try fails.
    """
    lab = _rebuild(spec) if isinstance(spec, ReplicaSpec) else _build(spec)
    try:
        for change in spec.changes:
            lab.change_output.append((change.name, apply_script(lab, change)))
    except BaseException:
        lab.close()
        raise
    return lab


def _build(spec: LabSpec) -> Lab:
    plan = spec.plan()
    needs = dict(plan.needs)
    for fault in faults_of(spec):
        needs |= fault.needs
    missing = sorted({package for program, package in needs.items() if shutil.which(program, path=PATH) is None})
    if missing:
        raise LabUnavailable(
            f"lab {spec.name} needs packages that are not installed: apt-get install {' '.join(missing)}"
        )
    if spec.flavour == "engine":
        reason = missing_requirement()
        if reason is not None:
            raise LabUnavailable(reason)
        lab = build_with_engine(plan)
    else:
        lab = build(plan)
    try:
        for fault in faults_of(spec):
            fault.apply(lab)
    except BaseException:
        lab.close()
        raise
    return lab


def _rebuild(spec: ReplicaSpec) -> Lab:
    try:
        lab = build_replica(plan_replica(spec.snapshot or _state_of_this_host(spec.intent), spec.intent, spec.host))
    except ReplicaImpossible as error:
        raise LabUnavailable(f"no twin of {spec.host}: {error}") from None
    try:
        target = ReplicaTarget(spec.id, lab)
        lab.notes.append(target.replica_difference)
        target.leave_agent()
    except BaseException:
        lab.close()
        raise
    return lab


def _state_of_this_host(intent: Intent) -> Snapshot:
    host = Namespace.current()
    here = Target("local", "local", intent, host, end=host.close)
    try:
        return here.snapshot
    finally:
        here.close()


def open_target(spec: TargetSpec) -> Target:
    """Open what a check is to judge.

    Raises:
        LabUnavailable, LabBuildError, LabCommandError: as :func:`open_lab` does.
    """
    if isinstance(spec, LocalSpec):
        host = Namespace.current()
        target = Target(spec.id, "local", spec.intent, host, title=spec.intent.site.name, end=host.close)
        target.disruption = LiveDisruption(
            target, spec.site, asked=spec.allow_disruptive, flap_management=spec.flap_management
        )
        return target
    if isinstance(spec, BundleSpec):
        return BundleTarget(spec.id, spec.bundle)
    return target_of(spec, open_lab(spec))


def target_of(spec: LabSpec | ReplicaSpec, lab: Lab) -> Target:
    """A lab as what a check is to judge; closing the target ends the lab."""
    target = ReplicaTarget(spec.id, lab) if isinstance(spec, ReplicaSpec) else _lab_target(spec, lab)
    target.control = NetnsLabControl(lab)
    target.twin = lambda: open_target(spec)
    # A bridged agent's container starts after its parent came up, and no lab has an init to order them.
    if isinstance(spec, LabSpec) and spec.flavour == "netns" and lab.plan.boots and lab.plan.intent.mode == "nat":
        target.rebooted = lambda: target_of(spec, build(rebooted_plan(lab)))
    target.gateways = {name: lab.gateway(name).namespace for name in lab.plan.intent.uplinks}
    target.notes += lab.notes
    for name, said in lab.change_output:
        target.notes.append(f"{name} was run before the checks: {said.strip() or 'it said nothing'}")
    return target


def _lab_target(spec: LabSpec, lab: Lab) -> Target:
    title = "; ".join((lab.plan.title, *(f"fault: {fault.title}" for fault in faults_of(spec))))
    url, proc = (lab.engine.base_url, lab.engine.proc) if lab.engine is not None else (None, "/proc")
    return Target(
        spec.id, "lab", lab.plan.intent, lab.host.namespace,
        title=title, flavour=spec.flavour, engine_url=url, proc=proc, end=lab.close,
    )  # fmt: skip


def unopened(spec: TargetSpec, reason: str) -> TargetRecord:
    """What result.json says of a target that could not be opened; ``reason`` is one line."""
    intent = spec.intent.as_json()
    if isinstance(spec, LocalSpec):
        return TargetRecord(id=spec.id, kind="local", verdict="inconclusive", intent=intent, notes=[reason])
    if isinstance(spec, BundleSpec):
        return TargetRecord(id=spec.id, kind="bundle", verdict="inconclusive", intent=intent, notes=[reason])
    if isinstance(spec, ReplicaSpec):
        return TargetRecord(
            id=spec.id, kind="lab", flavour="netns", verdict="inconclusive", title=f"replica of {spec.host}",
            intent=intent, notes=[reason],
        )  # fmt: skip
    return TargetRecord(
        id=spec.id, kind="lab", flavour=spec.flavour, verdict="inconclusive", title=spec.plan().title,
        intent=intent, notes=[reason],
    )  # fmt: skip
