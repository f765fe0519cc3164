"""Runs the steps of a remedy on a lab's host: argument lists, never a shell.

The arguments hold names of the host that the lab replicates, and a bundle may come from anywhere. In a replica only the
programs of :data:`viacheck.targets.remedy_check.REPLICA_PROGRAMS` run, where each file of this machine is read-only.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from netns_lab.apply_script import NO_ENGINE, TIMEOUT, ScriptFailed, settle
from netns_lab.docker_engine import podman
from netns_lab.lab import Lab
from viacheck.host.command import CommandResult
from viacheck.model.diagnosis_record import OutputOf, RemedyStep
from viacheck.targets.remedy_check import runs_in_replica

CONTAINER_PROCESS = "{{.State.Pid}}"
"""The format by which a remedy asks the engine for a container's process."""


def run_steps(lab: Lab, name: str, steps: Sequence[RemedyStep]) -> None:
    """Run the steps of a remedy in order; ``name`` is the remedy's in messages.

    Raises:
        ScriptFailed: a step failed; the steps after it did not run.
    """
    for step in steps:
        if lab.replica_of is not None and not runs_in_replica(step):
            raise ScriptFailed(f"{name}: {step.argv[0]} does not run in a replica")
        argv = [argument if isinstance(argument, str) else _output_of(lab, name, argument) for argument in step.argv]
        _run(lab, name, argv, step.stdin)
    settle(lab)


def _output_of(lab: Lab, name: str, argument: OutputOf) -> str:
    output = _run(lab, name, argument.command, None).stdout.strip()
    if lab.engine is not None and CONTAINER_PROCESS in argument.command:
        return str(lab.engine.hosts_pid(int(output)))
    return output


def _run(lab: Lab, name: str, argv: Sequence[str], text: str | None) -> CommandResult:
    # In a lab without an engine no socket has this address: the step must not reach this machine's own engine.
    engine = f"DOCKER_HOST={lab.engine.hosts_url if lab.engine is not None else NO_ENGINE}"
    if argv[0] == podman.NAME and lab.engine is not None:
        # Its programs and files are the engine's own.
        argv = ["nsenter", "--target", str(lab.engine.pid), "--mount", "--pid", "--net", *argv]
    result = lab.host.namespace.run(["env", engine, *argv], TIMEOUT, stdin=text)
    if not result.ok:
        lines = result.stderr.splitlines()
        raise ScriptFailed(
            f"{name}: {shlex.join(argv)}: exit {result.exit_code}: {lines[-1] if lines else 'no output'}"
        )
    return result
