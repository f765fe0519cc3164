"""The clock of a machine is really set in the middle of an event: the host is as it was, and no limit has passed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from netns_lab.virtual_machine.emulator import GuestFolders, VirtualMachine
from netns_lab.virtual_machine.guest_program import SHARE_IN_GUEST, unpack_program, write_command
from netns_lab.virtual_machine.guest_requirements import guest_root, missing_for_guest
from netns_lab.virtual_machine.guest_root import GuestRoot
from tests.helpers.clock_steps import GOES_THROUGH, MOMENTS
from tests.helpers.guarded_events import ENDS
from tests.helpers.paths import ROOT
from viacheck.fleet.pack import Platform, build
from viacheck.guard.watchdog.process import RUN_ENDED, TIMED_OUT

PROGRAM = "viacheck.pyz"
HELPERS = ("clock_steps", "guarded_events", "guarded_host", "host_attributes", "paths")
START = f"""
import sys
from viacheck.installation import add_to_import_path
add_to_import_path()
sys.path.append("{SHARE_IN_GUEST}/checkout")
from tests.helpers.clock_steps import main
sys.exit(main())
"""
RUN_WITHIN = 1800.0
_MISSING = missing_for_guest(GuestRoot())
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def test_a_clock_that_is_set_in_the_middle_of_an_event_ends_nothing_and_changes_nothing(tmp_path: Path) -> None:
    runs = _runs_in_guest(tmp_path)
    assert len(runs) == 1 + MOMENTS * (len(ENDS) + 1)
    assert not [run for run in runs if run["differing"]]
    assert not [run for run in runs if TIMED_OUT in run["log"]]
    (whole,) = [run for run in runs if run["end"] == GOES_THROUGH]
    assert RUN_ENDED in whole["log"]


def _runs_in_guest(folder: Path) -> list[dict[str, Any]]:
    root = guest_root(GuestRoot(), print)
    share, report = folder / "share", folder / "report"
    helpers = share / "checkout" / "tests" / "helpers"
    helpers.mkdir(parents=True)
    report.mkdir()
    for name in HELPERS:
        shutil.copy(ROOT / "tests" / "helpers" / f"{name}.py", helpers)
    (share / PROGRAM).write_bytes(build([Platform.parse(f"{root.python}-x86_64")]))
    python = unpack_program(root, share, PROGRAM)
    write_command(share, [python, "-I", "-c", START], {"REPORT": "/root/report"})
    printed = bytearray()
    VirtualMachine(root, GuestFolders(share, report)).run(printed.extend, RUN_WITHIN)
    assert (share / "status").read_text().strip() == "0", printed.decode()
    return [json.loads(line) for line in printed.decode().splitlines()]
