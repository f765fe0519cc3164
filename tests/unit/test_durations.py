"""The summary at the end of a run of tests: how long each part took, and how well the workers shared it."""

from __future__ import annotations

import pytest

from tests.helpers.durations import ProcessorTime, duration_lines


def report(worker: str, file: str, start: float, stop: float) -> pytest.TestReport:
    return pytest.TestReport(
        f"tests/{file}::test", (file, 1, "test"), {}, "passed", None, "call", (), stop - start, start, stop,
        worker_id=worker,
    )  # fmt: skip


def test_each_part_and_the_last_worker_are_shown() -> None:
    reports = [
        report("gw0", "unit/a.py", 0.0, 2.0),
        report("gw1", "labs/b.py", 1.0, 5.5),
        report("gw0", "labs/b.py", 2.0, 3.0),
    ]
    assert list(duration_lines(reports, 0.25)) == [
        "     5.5 s  labs/", "     2.0 s  unit/", "     5.5 s  labs/b.py", "     2.0 s  unit/a.py",
        "    25.0 %  of the processors' time was used",
        "     2.5 s  between the ends of the first worker and the last",
    ]  # fmt: skip


def test_one_process_has_no_other_to_wait_for() -> None:
    assert "between" not in "".join(duration_lines([report("", "unit/a.py", 0.0, 2.0)], 1.0))


def test_the_processors_time_is_that_of_all_of_them() -> None:
    assert ProcessorTime(130, 190).share_since(ProcessorTime(100, 100)) == 0.25
    before = ProcessorTime.now()
    assert 0.0 <= ProcessorTime.now().share_since(before) <= 1.0
