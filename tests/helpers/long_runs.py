"""Longer runs, which a scheduled job makes: ``--fuzz SECONDS``, ``--soak``, ``--releases`` and ``--vm``."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import is_hypothesis_test

KILLS, SOAK_KILLS = 20, 200
"""How many runs are ended in the middle of an event, by default and with ``--soak``."""

HOST_KILLS, SOAK_HOST_KILLS = 2, 60
"""The same on whole hosts, whose container, engine and network manager are really restarted; each takes seconds."""


def add_options(group: pytest.OptionGroup) -> None:
    """Define the options."""
    group.addoption(
        "--fuzz", type=float, metavar="SECONDS", help="run the tests with random inputs only, for so long in all"
    )
    group.addoption(
        "--soak", action="store_true",
        help=f"end {SOAK_KILLS} runs at random moments, not {KILLS}, and {SOAK_HOST_KILLS} on a whole host, not "
        f"{HOST_KILLS}; try 160 changes of the managers' files, not 20, and boot a whole host for each of 160 more; "
        "judge every situation behind NAT from its bundle and in its replica, not every fourth; "
        "a twin of every lab, the remedies and engine drafts of a fault or mode on every lab, a fleet of 50 hosts; "
        "read 10,000 damaged bundles, not 2,500; "
        "type the fixes of a real firewalld",
    )  # fmt: skip
    group.addoption(
        "--releases", action="store_true",
        help="run engines and live hosts of all Debian releases, not of one only; reload firewalls on hosts of forky; "
        "type the fixes of faults that only a whole host shows",
    )  # fmt: skip
    group.addoption(
        "--vm", action="store_true",
        help="run tests/vm only: labs on Debian's kernels in qemu, with --releases on those of all releases",
    )  # fmt: skip


class Fuzzing:
    """Runs each test with random inputs (hypothesis) again and again, for an equal share of the time."""

    def __init__(self, seconds: float) -> None:
        """``seconds``: for all tests together."""
        self._seconds, self._share = seconds, 0.0

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out every other test."""
        kept = [item for item in items if is_hypothesis_test(getattr(item, "obj", None))]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
        self._share = self._seconds / max(len(kept), 1)

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Iterator[None]:
        """Repeat a test until its share is over; hypothesis draws other inputs each time."""
        end = time.monotonic() + self._share
        result = yield
        names = pyfuncitem._fixtureinfo.argnames
        while time.monotonic() < end:
            pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
        return result
