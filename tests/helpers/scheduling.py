"""How pytest-xdist shares the harness's own tests among workers.

A test file stays on one worker, so that its module and session fixtures are made once. Files whose tests share nothing
are shared test by test. The longest files are started first, so that no worker waits for another at the end. The
readers of the fault matrix come after others, so that no worker waits for its result, and so does the second file that
needs a release's base root, which the first builds where there is none yet.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

IN_ORDER = (
    "labs/test_fault_matrix.py",
    "labs/test_whole_host.py",
    "labs/test_engine_remedies.py",
    "labs/test_engine_releases.py",
    "labs/test_fleet_run.py",
    "labs/test_launcher.py",
    "labs/test_field_bridge.py",
    "labs/test_podman.py",
    "labs/test_live_whole_host.py",
    "labs/test_local_bridge.py",
    "labs/test_interrupt.py",
    "labs/test_shell_command.py",
    "labs/test_bundle_judging.py",
    "labs/test_replica.py",
    "labs/test_remedies.py",
    "labs/test_field_routes.py",
    "labs/test_field_filters.py",
    "labs/test_field_nat.py",
    "labs/test_local.py",
    "labs/test_ifupdown_replay.py",
    "labs/test_site_draft.py",
    "labs/test_disruption_events.py",
    "labs/test_rootless.py",
    "labs/test_bridge_labs.py",
    "labs/test_pack.py",
    "unit/test_house_style.py",
    "labs/test_bundle_redaction.py",
    "labs/test_bad_input.py",
    "unit/test_bundle_reader.py",
    "unit/test_bundle_cost.py",
    "kernel/test_guard.py",
)
"""Files below tests/ that are started first. The summary at the end of a run shows how long each takes."""
INDEPENDENT = {
    "labs/test_bad_input.py",
    "labs/test_field_filters.py",
    "labs/test_field_nat.py",
    "labs/test_field_routes.py",
    "labs/test_ifupdown_replay.py",
    "labs/test_interrupt.py",
    "labs/test_local.py",
    "labs/test_local_bridge.py",
    "labs/test_site_draft.py",
    "unit/test_bundle_reader.py",
}
"""Files whose tests share no costly fixture: their tests may run on different workers."""
SHARING = {"labs/test_bundle_matrix.py": "labs/test_fault_matrix.py"}
"""Files that read a session fixture of another file's worker."""


def start_workers(config: pytest.Config, spare: int) -> None:
    """Start a worker for each core, and spare ones that use the time in which others wait."""
    workers = len(os.sched_getaffinity(0)) + spare
    # All that '-n' sets, as xdist's own hook may have run already.
    config.option.numprocesses, config.option.dist, config.option.tx = workers, "load", ["popen"] * workers


class TestFileScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Assigns whole test files to workers, but for files whose tests are independent."""

    __test__ = False

    def __init__(self, config: pytest.Config, log: Any) -> None:
        """Keep the order of collection: :func:`place` has put the longest first."""
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        name = file_of(nodeid)
        return nodeid if name in INDEPENDENT else SHARING.get(name, name)


def file_of(nodeid: str) -> str:
    """Return the path of a test's file below tests/: ``unit/test_iproute.py``."""
    return nodeid.partition("::")[0].removeprefix("tests/")


def place(nodeid: str) -> int:
    """Return a test's rank in the order of a run that is shared among workers."""
    name = file_of(nodeid)
    name = SHARING.get(name, name)
    return IN_ORDER.index(name) if name in IN_ORDER else len(IN_ORDER)
