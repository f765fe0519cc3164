"""How CPU time grows with the size of a host: quadratic behaviour shows as a ratio far above that of the sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from viacheck.bench.figures import Figure, Limit

TOLERANCE = 1.5
"""By this factor a ratio may exceed that of n log n: caches of the processor are left behind, too."""
N_LOG_N_FROM = 10
"""The least size whose logarithm says how many steps a search takes; smaller ones count as this one."""


def growth_figures(actions: Mapping[int, Callable[[], object]], what: str, rounds: int) -> list[Figure]:
    """Return the CPU time of an action for each size, smallest first, with n log n as the limit of its ratio.

    Args:
        actions: the action by size, in ascending order.
        what: the name of the figures, with ``{}`` for the size.
        rounds: repetitions.
    """
    figures = [Figure(what=what.format(f"{size:,}"), unit="ms") for size in actions]
    least = next(iter(actions))
    for figure, size in zip(figures[1:], list(actions)[1:], strict=True):
        figure.limit = Limit(of="ratio", at_most=round(TOLERANCE * _steps(size) / _steps(least), 1))
    for _ in range(rounds):
        for figure, action in zip(figures, actions.values(), strict=True):
            figure.values.append(_cpu_milliseconds(action))
    return figures


def _steps(size: int) -> float:
    return size * math.log(max(size, N_LOG_N_FROM))


def _cpu_milliseconds(action: Callable[[], object]) -> float:
    begin = time.process_time()
    action()
    return (time.process_time() - begin) * 1000
