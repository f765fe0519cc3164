"""Has ifupdown boot a host and take its uplink down and up, and reads after each round what is there."""

from __future__ import annotations

from collections.abc import Sequence

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.disruption.egress_state import EgressUnreadable, read_egress
from viacheck.disruption.events import CYCLES
from viacheck.host.command import TIMED_OUT
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import PidSandbox
from viacheck.model.result import CommandEvidence
from viacheck.persistence.replay_result import ReplayCycle

ENDS_WITHIN = 20.0
"""Seconds for one command; with nothing but ``ip`` to run it takes a few hundredths, with a lease about one."""
BOOT = (("ifup", "-a"),)
HOTPLUG = ("ifup", "-a", "--allow=hotplug")


class CyclesFailed(Exception):
    """The rounds could not be made; the message says what stood in the way."""


def run_cycles(
    host: Namespace, resolved: ResolvedIntent, interfaces: Sequence[str], *, hotplugged: bool, writable: Sequence[str]
) -> tuple[ReplayCycle, list[ReplayCycle]]:
    """Boot, then ``ifdown`` and ``ifup`` of the uplink three times; no process is left of it.

    Args:
        host: a lab's, which has nothing configured yet.
        resolved: of the host that it copies.
        interfaces: those that rule and route hang on, the uplink among them.
        hotplugged: some interface is brought up when it appears.
        writable: the lab's own folders; nothing else can be written.

    Returns:
        What came of the boot, and of each round.

    Raises:
        PidSandboxFailed: when the processes cannot be kept apart.
        RoundsFailed: when a command does not end, or the state cannot be read.
    """
    uplink = resolved.uplink
    boot = (*BOOT, HOTPLUG) if hotplugged else BOOT
    with PidSandbox(host, writable) as space:

        def step(moment: str, commands: Sequence[Sequence[str]]) -> ReplayCycle:
            done = tuple(_run(space, argv) for argv in commands)
            not_up = tuple(name for name in interfaces if not _is_up(space, name))
            try:
                state = read_egress(host, None, resolved, (4, 6), time=0.0, moment=moment)
            except EgressUnreadable as error:
                raise CyclesFailed(str(error)) from None
            return ReplayCycle(done, not_up, state)

        first = step("after boot", boot)
        again = (("ifdown", uplink), ("ifup", uplink))
        return first, [step(f"after round {number + 1} of ifdown and ifup", again) for number in range(CYCLES)]


def _run(space: PidSandbox, argv: Sequence[str]) -> CommandEvidence:
    result = space.run(argv, ENDS_WITHIN)
    if result.exit_code == TIMED_OUT:
        raise CyclesFailed(f"'{result.command}' did not end within {ENDS_WITHIN:g} s")
    return result.evidence


def _is_up(space: PidSandbox, interface: str) -> bool:
    """What ifup itself has written down (ifquery(8)): its exit code alone does not tell."""
    return space.run(["ifquery", "--state", interface], ENDS_WITHIN).exit_code == 0
