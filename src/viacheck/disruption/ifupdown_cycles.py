"""Boot a host with ifupdown, take its uplink down and up several times, and read the state after each cycle."""

from __future__ import annotations

from collections.abc import Sequence

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.disruption.egress_state import EgressUnreadable, read_egress
from viacheck.disruption.events import CYCLES
from viacheck.host.command import TIMED_OUT
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import PidSandbox
from viacheck.model.check_evidence import CommandEvidence
from viacheck.persistence.replay_result import ReplayCycle

ENDS_WITHIN = 20.0
"""Seconds for one command; it takes a few hundredths of a second to run ``ip``, about one second to get a lease."""
BOOT = (("ifup", "-a"),)
HOTPLUG = ("ifup", "-a", "--allow=hotplug")


class CyclesFailed(Exception):
    """The cycles could not be run; the message says why."""


def run_cycles(
    host: Namespace, resolved: ResolvedIntent, interfaces: Sequence[str], *, hotplugged: bool, writable: Sequence[str]
) -> tuple[ReplayCycle, list[ReplayCycle]]:
    """Boot, then run ``ifdown`` and ``ifup`` of the uplink three times. No process outlives the call.

    Args:
        host: a lab's host, with nothing configured yet.
        resolved: the intent of the host that the lab copies.
        interfaces: those that rule and route depend on, the uplink among them.
        hotplugged: some interface is brought up when it appears.
        writable: the lab's own folders; nothing else can be written.

    Returns:
        The step of the boot, and the steps of the cycles.

    Raises:
        PidSandboxFailed: the processes cannot be isolated.
        CyclesFailed: a command does not end, or the state cannot be read.
    """
    uplink = resolved.uplink
    boot = (*BOOT, HOTPLUG) if hotplugged else BOOT
    with PidSandbox(host, writable) as sandbox:

        def step(moment: str, commands: Sequence[Sequence[str]]) -> ReplayCycle:
            done = tuple(_run(sandbox, argv) for argv in commands)
            not_up = tuple(name for name in interfaces if not _is_up(sandbox, name))
            try:
                state = read_egress(host, None, resolved, (4, 6), time=0.0, moment=moment)
            except EgressUnreadable as error:
                raise CyclesFailed(str(error)) from None
            return ReplayCycle(done, not_up, state)

        first = step("after boot", boot)
        cycle = (("ifdown", uplink), ("ifup", uplink))
        return first, [step(f"after cycle {number + 1} of ifdown and ifup", cycle) for number in range(CYCLES)]


def _run(sandbox: PidSandbox, argv: Sequence[str]) -> CommandEvidence:
    result = sandbox.run(argv, ENDS_WITHIN)
    if result.exit_code == TIMED_OUT:
        raise CyclesFailed(f"'{result.command}' did not end within {ENDS_WITHIN:g} s")
    return result.evidence


def _is_up(sandbox: PidSandbox, interface: str) -> bool:
    """Return whether ifup has recorded the interface as up (ifquery(8)); its exit code alone does not show it."""
    return sandbox.run(["ifquery", "--state", interface], ENDS_WITHIN).exit_code == 0
