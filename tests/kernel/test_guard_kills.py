"""Runs that end at random moments of an event, in every way in which a run can end: the host is as it was.

``--soak`` ends 200 runs, not 20. The host is compared attribute by attribute, as ``ip -d -j`` and /proc/sys show it.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from tests.helpers.guarded_events import ENDS, EVENTS, FAKETIME, TERMINAL_LOST, end_in_the_middle
from tests.helpers.guarded_host import GuardedHost
from tests.helpers.long_runs import KILLS, SOAK_KILLS
from viacheck.guard.lock import acquire
from viacheck.guard.saved_state import FINISHED, UNFINISHED


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moment" in metafunc.fixturenames:
        metafunc.parametrize("moment", range(SOAK_KILLS if metafunc.config.option.soak else KILLS))


def test_a_run_that_ends_in_the_middle_of_an_event_leaves_the_host_as_it_was(tmp_path: Path, moment: int) -> None:
    events, ends = list(EVENTS), [*ENDS, TERMINAL_LOST]
    event, end = events[moment % len(events)], ends[(moment + moment // len(events)) % len(ends)]
    if event == "clock-jump" and not FAKETIME.exists():
        pytest.skip("the package faketime is not installed")
    folder = tmp_path / "state"
    with contextlib.closing(GuardedHost()) as host:
        before = host.state()
        assert sum(line.startswith("sysctls: ") for line in before) > 100
        log = end_in_the_middle(host, folder, event, end, random.Random(moment))
        assert host.state() == before, f"{event}, {end}:\n{log}"
    assert (folder / FINISHED).exists()
    assert not (folder / UNFINISHED).exists()
    acquire(str(folder), "the next run").release()
