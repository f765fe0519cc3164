"""What several test modules read: one run over every lab and every fault that needs no engine, events included."""

from __future__ import annotations

import pytest

from netns_lab.faults import FAULTS
from netns_lab.scenarios import SCENARIOS
from tests.helpers.front_door import Finished, viacheck

BROKEN = [f"{lab}+{fault.name}" for fault in FAULTS.values() if fault.flavour != "engine" for lab in fault.on]


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run: with two workers, through the front door."""
    labs = ",".join([*SCENARIOS, *BROKEN])
    return viacheck("--lab", labs, "-n", "2", "-q", report_dir=tmp_path_factory.mktemp("matrix"))
