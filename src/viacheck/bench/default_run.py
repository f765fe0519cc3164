"""The whole default run: every netns lab, every check, the report, and the start of Python."""

from __future__ import annotations

from netns_lab.lab_specs import default_labs
from viacheck.bench.figures import Figure, Limit, Measurement
from viacheck.bench.front_door import report_folder, run


def measure(quick: bool) -> Measurement:
    """Run viacheck on all labs, on a single lab, and without any lab."""
    rounds = 1 if quick else 5
    labs = default_labs()
    whole = Figure(what=f"`./viacheck`: {len(labs)} labs", unit="s", limit=Limit(at_most=6))
    single = Figure(what="`./viacheck --lab policy-routing`: one lab", unit="s")
    start = Figure(what="`./viacheck --lab list`: start and stop alone", unit="s")
    with report_folder() as folder:
        for _ in range(rounds):
            report = ("--report-dir", str(folder))
            whole.values.append(run(*report))
            single.values.append(run("--lab", "policy-routing", *report))
            start.values.append(run("--lab", "list"))
    return Measurement(name="run", title="The whole default run", figures=[whole, single, start])
