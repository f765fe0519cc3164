"""Guarded runs in whose middle the machine's clock is set. A virtual machine runs it: it has a clock of its own."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from netns_lab.virtual_machine.guest_kernel import processor
from tests.helpers.guarded_events import ENDS, EVENTS, TERMINAL_LOST, end_in_the_middle, run_through
from tests.helpers.guarded_host import STEPS, GuardedHost

CLOCK_SET = "clock-set"
GOES_THROUGH = "goes through"
MOMENTS = 1
"""Runs that end in each way."""
_LATER, _EARLIER = "date --set '400 days'", "date --set '800 days ago'"


def _clock_set(_host: GuardedHost, _folder: Path) -> Sequence[str]:
    return [STEPS[0], _LATER, *STEPS[1:5], _EARLIER, *STEPS[5:], _LATER]


def main() -> int:
    """Print a line of JSON for each run: how it ended, what differs then, and the watchdog's log.

    Returns:
        0; 2 outside of a virtual machine, whose clock is not set.
    """
    if processor() is None:
        return 2
    EVENTS[CLOCK_SET] = _clock_set
    for number, end in enumerate([GOES_THROUGH, *[*ENDS, TERMINAL_LOST] * MOMENTS]):
        differing, log = _run(end, random.Random(number))
        sys.stdout.write(json.dumps({"end": end, "differing": differing, "log": log}) + "\n")
        sys.stdout.flush()
    return 0


def _run(end: str, moment: random.Random) -> tuple[list[str], str]:
    with tempfile.TemporaryDirectory() as name, contextlib.closing(GuardedHost()) as host:
        folder, before = Path(name) / "files" / "state", host.state()
        if end == GOES_THROUGH:
            log = _go_through(host, folder)
        else:
            log = end_in_the_middle(host, folder, CLOCK_SET, end, moment)
        return list(_difference(before, host.state())), log


def _go_through(host: GuardedHost, folder: Path) -> str:
    folder.parent.mkdir()
    with run_through(host, folder, CLOCK_SET) as run:
        run.outcome()
        return run.log()


def _difference(before: list[str], after: list[str]) -> Iterator[str]:
    yield from (f"- {line}" for line in before if line not in after)
    yield from (f"+ {line}" for line in after if line not in before)
