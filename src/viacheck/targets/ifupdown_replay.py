"""Proves that what is written down for ifupdown can run twice: it is run in a lab that copies the host's addressing.

Nothing of the host is touched. The lab has network, mount and process namespaces of its own; in them real ifupdown
works on private copies of the host's files, which hold only what is known to stay inside (see
:mod:`viacheck.persistence.replayable_files`). A bundle's lines are not run for its reader: they are somebody
else's.
"""

from __future__ import annotations

import dataclasses
import shutil

from netns_lab.lab import LabCommandError
from netns_lab.replica import WRITABLE, ReplicaImpossible, build_replica, leasable, plan_replica, unconfigured
from netns_lab.rtnetlink_batch import LabBuildError
from viacheck.disruption.ifupdown_cycles import CyclesFailed, run_cycles
from viacheck.host.persistence_files import ifupdown_files
from viacheck.host.pid_sandbox import PATH, PidSandboxFailed
from viacheck.model.measurements import NotReplayed, ReplayResult
from viacheck.model.snapshot import Snapshot
from viacheck.persistence.assess import Persistence, assess_persistence
from viacheck.persistence.manager_config import OWN_NAMES
from viacheck.persistence.replay_result import Replay, judge_rounds
from viacheck.persistence.replayable_files import ReplayableFiles, replayable_files
from viacheck.targets.base import Target
from viacheck.targets.bundle import BundleTarget

NAMES_OF_TABLES = ("/etc/iproute2/", "/usr/share/iproute2/")
SCRIPT_FOLDERS = ("if-pre-up.d", "if-up.d", "if-down.d", "if-post-down.d")


def replaying(target: Target) -> Replay:
    """What a check calls to have its target's files run; they are run once, at the first call."""

    def replay() -> ReplayResult | NotReplayed:
        if target.measurements.replay is None:
            target.measurements.replay = _prove(target)
        return target.measurements.replay

    return replay


def _prove(target: Target) -> ReplayResult | NotReplayed:
    persistence = assess_persistence(target.resolved)
    obstacle = _obstacle(target, persistence)
    if obstacle is not None:
        return NotReplayed(obstacle)
    try:
        return _run(target, persistence)
    except (ReplicaImpossible, LabBuildError, LabCommandError, PidSandboxFailed, CyclesFailed) as error:
        return NotReplayed(f"no lab could be made of it: {error}")


def _obstacle(target: Target, persistence: Persistence) -> str | None:
    """Why nothing is run, without a look at the files."""
    if persistence.manager != "ifupdown":
        name = OWN_NAMES[persistence.manager] if persistence.manager is not None else "nobody"
        return f"it is written for {name}, and only ifupdown is run in a lab"
    if isinstance(target, BundleTarget):
        return "the lines of a bundle are not run on its reader's machine"
    if (elsewhere := target.obstacle_to("reboot")) is not None:
        return elsewhere
    if target.missing_capability is not None:
        return f"a lab needs {target.missing_capability}"
    if shutil.which("ifup", path=PATH) is None:
        return "ifupdown is not installed here"
    return None


def _run(target: Target, persistence: Persistence) -> ReplayResult | NotReplayed:
    resolved = target.resolved
    twin = plan_replica(_addressing(resolved.snapshot), resolved.intent, resolved.intent.site.name)
    devices = {link.name for link in resolved.snapshot.host.links}
    copy = replayable_files(ifupdown_files(target.host), devices, leasable(twin))
    reason = _not_representative(copy, persistence, resolved.uplink)
    if reason is not None:
        return NotReplayed(reason)
    if copy.leased and shutil.which("dhclient", path=PATH) is None:
        return NotReplayed(f"{', '.join(copy.leased)} asks for a lease, and isc-dhcp-client is not installed here")
    lab = build_replica(unconfigured(twin, copy.files, copy.interfaces, copy.leased))
    try:
        lab.host.run("mkdir", "--parents", *(f"/etc/network/{folder}" for folder in SCRIPT_FOLDERS))
        on = sorted({resolved.uplink} | {one.interface for one in persistence.entries if one.interface is not None})
        boot, rounds = run_cycles(lab.host.namespace, resolved, on, hotplugged=copy.hotplugged, writable=WRITABLE)
    finally:
        lab.close()
    if resolved.uplink not in copy.leased and not boot.state.addresses and not rounds[-1].state.addresses:
        return NotReplayed(f"{resolved.uplink} gets its address from something else than ifupdown")
    left_out = [str(one) for one in copy.left_out]
    return judge_rounds(boot, rounds, resolved.uplink, left_out, route_written=bool(persistence.routes))


def _addressing(snapshot: Snapshot) -> Snapshot:
    """What a lab needs to know of the host: its own network, and the names of its tables."""
    files = tuple(file for file in snapshot.files if file.path.startswith(NAMES_OF_TABLES))
    problems = tuple(one for one in snapshot.problems if one.missing is None)
    return dataclasses.replace(snapshot, agent=None, engine=None, files=files, problems=problems)


def _not_representative(copy: ReplayableFiles, persistence: Persistence, uplink: str) -> str | None:
    """Why the copy lacks what is to be proven; None when it has it all."""
    if uplink not in copy.methods:
        reasons = [str(out) for out in copy.left_out if out.interface == uplink]
        return reasons[0] if reasons else f"no file that may be copied has a stanza of {uplink}"
    lines = {file.path: file.text.split("\n") for file in copy.files}
    for entry in persistence.written["ifupdown"].entries:
        path, number = entry.place.path, entry.place.line
        if not "".join(lines.get(path, [])[number - 1 : number]).strip():
            why = [out.reason for out in copy.left_out if out.place.path == path and number >= out.place.line]
            return f"{entry.place} concerns rules or routes, and is left out" + (f" ({why[-1]})" if why else "")
    return None
