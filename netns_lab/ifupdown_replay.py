"""Runs a host's ifupdown configuration in a lab that copies the host's addressing, to see whether it can run twice.

The host itself is not touched. The lab has network, mount and process namespaces of its own; in them real ifupdown
works on private copies of the host's files, without every line that could act outside the lab (see
:mod:`viacheck.persistence.replayable_files`). Lines from a bundle are never run.
"""

from __future__ import annotations

import dataclasses
import shutil

from netns_lab.lab import LabCommandError
from netns_lab.replica import WRITABLE, ReplicaImpossible, build_replica, leasable, plan_replica, unconfigured
from netns_lab.rtnetlink_batch import LabBuildError
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.disruption.ifupdown_cycles import CyclesFailed, run_cycles
from viacheck.host.namespace import Namespace
from viacheck.host.persistence_files import ifupdown_files
from viacheck.host.pid_sandbox import PATH, PidSandboxFailed
from viacheck.model.measurements import NotReplayed, ReplayResult
from viacheck.model.snapshot import Snapshot
from viacheck.persistence.assess import Persistence, assess_persistence
from viacheck.persistence.manager_config import OWN_NAMES
from viacheck.persistence.replay_result import judge_replay
from viacheck.persistence.replayable_files import ReplayableFiles, replayable_files
from viacheck.targets.base import Target

NAMES_OF_TABLES = ("/etc/iproute2/", "/usr/share/iproute2/")
SCRIPT_FOLDERS = ("if-pre-up.d", "if-up.d", "if-down.d", "if-post-down.d")


def replay_ifupdown(target: Target) -> ReplayResult | NotReplayed:
    """Run the target's ifupdown configuration in a lab: a boot, then the uplink down and up several times."""
    persistence = assess_persistence(target.resolved)
    obstacle = _obstacle(target, persistence)
    if obstacle is not None:
        return NotReplayed(obstacle)
    assert target.host is not None, "a target without a host's namespace has a replay obstacle"
    try:
        return _run(target.resolved, target.host, persistence)
    except (ReplicaImpossible, LabBuildError, LabCommandError, PidSandboxFailed, CyclesFailed) as error:
        return NotReplayed(f"the lab for it could not be built: {error}")


def _obstacle(target: Target, persistence: Persistence) -> str | None:
    """Return why the configuration is not run, as far as that is known before its files are read."""
    if persistence.manager != "ifupdown":
        manager = OWN_NAMES[persistence.manager] if persistence.manager is not None else "no known manager"
        return f"it is written for {manager}, and only ifupdown is run in a lab"
    if target.replay_obstacle is not None:
        return target.replay_obstacle
    if not _has(target.host, "ifup"):
        return "ifupdown is not installed here"
    return None


def _has(host: Namespace | None, program: str) -> bool:
    """Return whether the machine has a program: the host around it where this process is in viacheck's container."""
    return host is not None and host.call(lambda: shutil.which(program, path=PATH)) is not None


def _run(resolved: ResolvedIntent, host: Namespace, persistence: Persistence) -> ReplayResult | NotReplayed:
    replica = plan_replica(_addressing(resolved.snapshot), resolved.intent, resolved.intent.site.name)
    devices = {link.name for link in resolved.snapshot.host.links}
    copy = replayable_files(ifupdown_files(host), devices, leasable(replica))
    reason = _not_representative(copy, persistence, resolved.uplink)
    if reason is not None:
        return NotReplayed(reason)
    if copy.leased and not _has(host, "dhclient"):
        return NotReplayed(f"{', '.join(copy.leased)} asks for a lease, and isc-dhcp-client is not installed here")
    lab = build_replica(unconfigured(replica, copy.files, copy.interfaces, copy.leased))
    try:
        lab.host.run("mkdir", "--parents", *(f"/etc/network/{folder}" for folder in SCRIPT_FOLDERS))
        on = sorted(
            {resolved.uplink} | {entry.interface for entry in persistence.entries if entry.interface is not None}
        )
        boot, rounds = run_cycles(lab.host.namespace, resolved, on, hotplugged=copy.hotplugged, writable=WRITABLE)
    finally:
        lab.close()
    if resolved.uplink not in copy.leased and not boot.state.addresses and not rounds[-1].state.addresses:
        return NotReplayed(f"{resolved.uplink} gets its address from something other than ifupdown")
    left_out = [str(line) for line in copy.left_out]
    return judge_replay(boot, rounds, resolved.uplink, left_out, route_written=bool(persistence.routes))


def _addressing(snapshot: Snapshot) -> Snapshot:
    """Return the part of the snapshot that the lab needs: the host's own network, and the names of its tables."""
    files = tuple(file for file in snapshot.files if file.path.startswith(NAMES_OF_TABLES))
    problems = tuple(problem for problem in snapshot.problems if problem.missing is None)
    return dataclasses.replace(snapshot, agent=None, engine=None, files=files, problems=problems)


def _not_representative(copy: ReplayableFiles, persistence: Persistence, uplink: str) -> str | None:
    """Return why the copy lacks a line that the replay is about; None when it has all of them."""
    if uplink not in copy.methods:
        reasons = [str(out) for out in copy.left_out if out.interface == uplink]
        return reasons[0] if reasons else f"no file that can be copied has a stanza of {uplink}"
    lines = {file.path: file.text.split("\n") for file in copy.files}
    for entry in persistence.configs["ifupdown"].entries:
        path, number = entry.place.path, entry.place.line
        if not "".join(lines.get(path, [])[number - 1 : number]).strip():
            why = [out.reason for out in copy.left_out if out.place.path == path and number >= out.place.line]
            return f"{entry.place} concerns rules or routes, and is left out" + (f" ({why[-1]})" if why else "")
    return None
