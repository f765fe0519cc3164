"""The time to build the policy-routing lab until it is ready, beside the same lab by other means."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from netns_lab.builder import build
from netns_lab.plan import LabPlan
from netns_lab.scenarios import SCENARIOS
from viacheck.bench import lab_by_ip, lab_by_mininet
from viacheck.bench.figures import BenchFailed, Figure, Limit, Measurement
from viacheck.bench.lab_by_netlink import LabByNetlink
from viacheck.bench.readiness import first_ping
from viacheck.host.namespace import Namespace

SCENARIO = "policy-routing"
TEARDOWN = 0.15
"""Seconds for the kernel to remove a lab, so that its removal does not slow down the next lab."""

Builder = Callable[[], AbstractContextManager[Namespace]]


@contextlib.contextmanager
def _by_viacheck(plan: LabPlan) -> Iterator[Namespace]:
    lab = build(plan)
    try:
        yield lab.agent.namespace
    finally:
        lab.close()


def measure(quick: bool) -> Measurement:
    """Build the lab by each means in turn, several times."""
    rounds = 3 if quick else 21
    plan = SCENARIOS[SCENARIO]()
    floor = LabByNetlink(plan)
    own = Figure(what="viacheck, with private files and services of the far end", unit="ms", limit=Limit(at_most=25))
    raw = Figure(
        what="its network alone, by netlink messages encoded beforehand (the floor)", unit="ms",
        limit=Limit(of="ratio", at_least=0.625),
    )  # fmt: skip
    by_ip = Figure(
        what="its network alone, by an `ip` command for each object", unit="ms", limit=Limit(of="ratio", at_least=4)
    )
    builders: list[tuple[Figure, Builder]] = [(own, lambda: _by_viacheck(plan)), (raw, floor.built)]
    missing = lab_by_ip.unavailable()
    if missing is None:
        builders.append((by_ip, lambda: lab_by_ip.built(plan)))
    else:
        by_ip.remark = f"not measured: {missing}"
    pings: dict[str, list[float]] = {}
    for _ in range(rounds):
        for figure, builder in builders:
            duration, waited = _once(builder, figure.what)
            figure.values.append(duration)
            pings.setdefault(figure.what, []).append(waited)
    own.remark = f"The agent's first ping was answered after at most {max(pings[own.what]):.1f} ms."
    return Measurement(
        name="lab", title=f"The lab {SCENARIO}, until it is ready", figures=[own, raw, by_ip, _mininet(rounds)]
    )


def _once(builder: Builder, what: str) -> tuple[float, float]:
    """Return the milliseconds of the build, and those until the first ping was answered."""
    begin = time.perf_counter()
    with builder() as agent:
        duration = (time.perf_counter() - begin) * 1000
        waited = first_ping(agent, what)
    time.sleep(TEARDOWN)
    return duration, waited


def _mininet(rounds: int) -> Figure:
    figure = Figure(what="its network alone, by mininet", unit="ms")
    python = lab_by_mininet.interpreter()
    if python is None:
        figure.remark = lab_by_mininet.NOT_INSTALLED
        return figure
    try:
        figure.values = lab_by_mininet.milliseconds(python, rounds)
    except BenchFailed as error:
        figure.remark = str(error)
    return figure
