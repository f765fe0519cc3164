"""The whole default run: every netns lab, every check, the report, and the start of Python."""

from __future__ import annotations

import resource

from netns_lab.lab_specs import default_labs
from viacheck.bench.figures import Figure, Limit, Measurement
from viacheck.bench.front_door import report_folder, run


def measure(quick: bool) -> Measurement:
    """Run viacheck on all labs, on a single lab, and without any lab."""
    rounds = 1 if quick else 5
    labs = default_labs()
    whole = Figure(what=f"`./viacheck`: {len(labs)} labs", unit="s", limit=Limit(at_most=10))
    cpu = Figure(what="its CPU time, in all processes", unit="s", limit=Limit(at_most=12))
    single = Figure(what="`./viacheck --lab policy-routing`: one lab", unit="s")
    start = Figure(what="`./viacheck --lab list`: start and stop alone", unit="s")
    with report_folder() as folder:
        for _ in range(rounds):
            report = ("--report-dir", str(folder))
            before = _cpu_seconds()
            whole.values.append(run(*report))
            cpu.values.append(_cpu_seconds() - before)
            single.values.append(run("--lab", "policy-routing", *report))
            start.values.append(run("--lab", "list"))
    return Measurement(name="run", title="The whole default run", figures=[whole, cpu, single, start])


def _cpu_seconds() -> float:
    """Return the CPU time of the processes that this one has waited for, and of those that these have waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
