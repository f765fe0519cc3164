"""How long each part of the harness's own tests takes, for the summary at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from tests.helpers.scheduling import file_of

LONGEST_SHOWN = 12


@dataclass(frozen=True)
class ProcessorTime:
    """What the processors have done since the machine started, for all of its programs, in ticks (proc_stat(5))."""

    busy: int
    idle: int

    @classmethod
    def now(cls) -> ProcessorTime:
        """Read it."""
        with open("/proc/stat") as stat:
            user, nice, system, idle, waiting, *interrupts = map(int, stat.readline().split()[1:9])
        return cls(user + nice + system + sum(interrupts), idle + waiting)

    def share_since(self, before: ProcessorTime) -> float:
        """Return which part of the time since then was used, from 0 to 1."""
        busy, idle = self.busy - before.busy, self.idle - before.idle
        return busy / max(busy + idle, 1)


def duration_lines(reports: Iterable[pytest.TestReport], used: float) -> Iterator[str]:
    """Yield a line for each part of the tests and for the longest files, and how well the run was shared.

    Args:
        reports: those of a run.
        used: the share of the processors' time.
    """
    files, ends = Counter[str](), dict[str, float]()
    for report in reports:
        files[file_of(report.nodeid)] += report.duration  # type: ignore[assignment]
        # An attribute that pytest-xdist adds.
        worker = getattr(report, "worker_id", "")
        ends[worker] = max(ends.get(worker, 0.0), report.stop)
    parts = Counter[str]()
    for name, duration in files.items():
        parts[name.partition("/")[0]] += duration
    for part, duration in sorted(parts.items()):
        yield f"{duration:8.1f} s  {part}/"
    for name, duration in files.most_common(LONGEST_SHOWN):
        yield f"{duration:8.1f} s  {name}"
    yield f"{100 * used:8.1f} %  of the processors' time was used"
    if len(ends) > 1:
        yield f"{max(ends.values()) - min(ends.values()):8.1f} s  between the ends of the first worker and the last"
