"""Causes in the files that run pipework again: an event without such a line, and a line that fails when repeated."""

from __future__ import annotations

import re
from collections.abc import Iterator

from viacheck.analysis.pipework_facts import pipework_attach
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.attachment import PIPEWORK_INTERFACE, pipework_command, pipework_guest
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.disruption import CHECK_OF, REBOOT
from viacheck.diagnosis.engine_start import DOCKER
from viacheck.diagnosis.remedy import Command, in_agent, only_if, remedy_of, run_unless, shell_text, systemd_exec_shell
from viacheck.model.check_evidence import FileEvidence, StateEvidence
from viacheck.model.measurements import Measurements
from viacheck.parsers.unit_names import device_unit
from viacheck.persistence import ifupdown
from viacheck.persistence.boot_files import RC_LOCAL
from viacheck.persistence.file_edit import Edit, ReversibleEdit, in_diffs, insert_lines, new_file, replace_line
from viacheck.persistence.pipework import OCCASIONS, Occasion, Rerun, Reruns, reruns_of

WATCHER = "pipework-watch"
"""The first part of the names of the script and the unit that wait for a container's start."""
_NOT_IN_NAMES = re.compile("[^A-Za-z0-9_.-]")
_ENGINE_RUNS = ("systemctl", "is-active", "--quiet", DOCKER)


def not_persistent(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find an occasion on which nothing runs pipework again."""
    if pipework_attach(resolved) is None:
        return
    reruns = reruns_of(resolved)
    if not reruns.missing:
        return
    occasions = " or ".join(OCCASIONS[occasion] for occasion in reruns.missing)
    yield Cause(
        "PIPEWORK_NOT_PERSISTENT", "PIPEWORK-05",
        f"nothing runs pipework again after {occasions}"
        + "".join(f"; {place}: {reason}" for place, reason in reruns.ineffective),
        remedy_of(
            in_diffs(
                resolved.snapshot,
                (edit for occasion in reruns.missing for edit in _run_again(resolved, occasion, reruns)),
            )
        ),
        frozenset(
            [
                *(("FLAP-04", "FLAP-05") if "restart" in reruns.missing else ()),
                *(("FLAP-08",) if "reboot" in reruns.missing else ()),
            ]
        ),
        tuple(
            FileEvidence(path=place.path, line=place.line, text=f"{place.text}\n({reason})")
            for place, reason in reruns.ineffective
        ),
    )  # fmt: skip


def boot_waits_for_engine(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find a boot that hangs: a hook of the parent asks the engine, which systemd starts after the network."""
    result = measurements.disruptions.get(REBOOT)
    if pipework_attach(resolved) is None or result is None or DOCKER not in (result.failure or ""):
        return
    asking = [rerun for rerun in reruns_of(resolved).effective if rerun.hook and not rerun.asks_if_engine_runs]
    if not asking or resolved.intent.agent.container is None:
        return
    edits = [replace_line(rerun.place.path, rerun.place.line, _guarded(resolved, rerun)) for rerun in asking]
    yield Cause(
        "BOOT_WAITS_FOR_ENGINE", CHECK_OF[REBOOT],
        f"{asking[0].place} asks the engine while the network comes up. At boot {DOCKER} is started after the network, "
        "and docker.socket lets the question wait for it: each waits for the other until a time-out, and the parent's "
        f"ifup fails ({result.failure})",
        remedy_of(in_diffs(resolved.snapshot, edits)),
    )  # fmt: skip


def not_idempotent(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find a line that runs pipework again while its interface exists, which fails."""
    if pipework_attach(resolved) is None:
        return
    reruns = reruns_of(resolved).not_idempotent
    if not reruns:
        return
    edits = [replace_line(rerun.place.path, rerun.place.line, _guarded(resolved, rerun)) for rerun in reruns]
    yield Cause(
        "NOT_IDEMPOTENT", "PIPEWORK-05",
        f"{reruns[0].place} runs pipework even if the agent has its interface: the second time it fails ('File "
        "exists'), leaves an interface behind, and ifup fails with it",
        remedy_of(in_diffs(resolved.snapshot, edits)), frozenset({"FLAP-03"}),
        tuple(
            StateEvidence(title=f"instead of {rerun.place}", lines=[_guarded(resolved, rerun)]) for rerun in reruns
        ),
    )  # fmt: skip


def _interface_test(resolved: ResolvedIntent) -> Command:
    """Return the command that succeeds while the agent has pipework's interface."""
    interface = resolved.bridged_link.name if resolved.bridged_link is not None else PIPEWORK_INTERFACE
    return in_agent(resolved.intent, "ip", "link", "show", "dev", interface)


def _guarded(resolved: ResolvedIntent, rerun: Rerun) -> str:
    """Return the line of a rerun with the test for the interface before pipework.

    A hook of ifupdown also runs at boot, when a question would wait for an engine that waits for the network.
    """
    before, _, after = rerun.place.text.partition("pipework")
    lead, space, folder = before.rpartition(" ")
    guard = "" if rerun.guarded else run_unless(_interface_test(resolved), ())
    line = f"{lead}{space}{guard}{folder}pipework{after}"
    if not rerun.hook or rerun.asks_if_engine_runs or resolved.intent.agent.container is None:
        return line
    option, command = line.lstrip().split(None, 1)
    return f"{line[: -len(line.lstrip())]}{option} {only_if(_ENGINE_RUNS, command)}"


def _run_again(resolved: ResolvedIntent, occasion: Occasion, reruns: Reruns) -> Iterator[Edit]:
    """Return the edits that run pipework on one occasion."""
    if occasion == "reboot":
        yield from _in_rc_local(resolved, reruns)
    elif occasion == "interface":
        yield from _with_interface(resolved)
    else:
        yield from _at_container_start(resolved)


def _in_rc_local(resolved: ResolvedIntent, reruns: Reruns) -> Iterator[Edit]:
    line = shell_text(pipework_command(resolved))
    file = resolved.snapshot.file(RC_LOCAL)
    if file is None or not file.exists:
        yield new_file(resolved.snapshot, RC_LOCAL, f"#!/bin/sh -e\n{line}\nexit 0\n", "755")
        return
    if not file.mode & 0o111:
        yield ReversibleEdit(("chmod", "a+x", RC_LOCAL), ("chmod", f"{file.mode:04o}", RC_LOCAL))
        if any(place.path == RC_LOCAL for place, _reason in reruns.ineffective):
            return
    lines = file.text.rstrip("\n").split("\n")
    end = next((number for number, text in enumerate(lines, 1) if text.startswith("exit")), len(lines) + 1)
    yield insert_lines(RC_LOCAL, end - 1, f"{line}\n")


def _with_interface(resolved: ResolvedIntent) -> Iterator[Edit]:
    parent = resolved.parent
    assert parent is not None
    line = run_unless(_interface_test(resolved), pipework_command(resolved))
    end = ifupdown.last_line(resolved.snapshot.files, parent)
    if end is not None:
        hook = line if resolved.intent.agent.container is None else only_if(_ENGINE_RUNS, line)
        yield insert_lines(end.path, end.line, f"    post-up {hook}\n")
        return
    device = device_unit(parent)
    unit = (
        f"[Unit]\nAfter={device} docker.service\nBindsTo={device}\n\n[Service]\nType=oneshot\n"
        f"ExecStart={systemd_exec_shell(line)}\n\n[Install]\nWantedBy={device}\n"
    )
    yield from _enabled_unit(resolved, f"pipework-{_unit_part(pipework_guest(resolved))}-{_unit_part(parent)}", unit)


def _at_container_start(resolved: ResolvedIntent) -> Iterator[ReversibleEdit]:
    guest = pipework_guest(resolved)
    # Each agent has a script and a unit of its own: the fix of one does not replace that of another.
    name = _unit_part(guest)
    watcher = f"/usr/local/sbin/{WATCHER}-{name}"
    events = shell_text((
        "docker", "events", "--filter", "type=container", "--filter", "event=start", "--filter", f"container={guest}",
    ))  # fmt: skip
    script = f"#!/bin/sh\n{events} |\nwhile read -r _; do {shell_text(pipework_command(resolved))}; done\n"
    unit = (
        f"[Unit]\nDescription=Runs pipework whenever {name} starts\nAfter=docker.service\n\n"
        f"[Service]\nExecStart={watcher}\nRestart=always\n\n[Install]\nWantedBy=multi-user.target\n"
    )
    yield new_file(resolved.snapshot, watcher, script, "755")
    yield from _enabled_unit(resolved, f"{WATCHER}-{name}", unit)


def _enabled_unit(resolved: ResolvedIntent, name: str, text: str) -> Iterator[ReversibleEdit]:
    unit = f"{name}.service"
    yield new_file(resolved.snapshot, f"/etc/systemd/system/{unit}", text)
    yield ReversibleEdit(("systemctl", "enable", unit), ("systemctl", "disable", unit))


def _unit_part(name: str) -> str:
    """Return a name as a part of the names of a unit and a script, which systemd takes as they are."""
    return _NOT_IN_NAMES.sub("_", name)
