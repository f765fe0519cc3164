"""How long each part of the harness's own tests takes, for the summary at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tests.helpers.scheduling import file_of

LONGEST_SHOWN = 12


def duration_lines(seconds: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Yield a line for each part of the tests and for the longest files.

    Args:
        seconds: a test's node id and how long one of its phases took.
    """
    files = Counter[str]()
    for nodeid, duration in seconds:
        files[file_of(nodeid)] += duration  # type: ignore[assignment]
    parts = Counter[str]()
    for name, duration in files.items():
        parts[name.partition("/")[0]] += duration
    for part, duration in sorted(parts.items()):
        yield f"{duration:8.1f} s  {part}/"
    for name, duration in files.most_common(LONGEST_SHOWN):
        yield f"{duration:8.1f} s  {name}"
