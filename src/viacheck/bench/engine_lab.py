"""A run of an engine lab: start a dockerd, run a container, make every check."""

from __future__ import annotations

from netns_lab.docker_engine.requirements import missing_requirement
from viacheck.bench.figures import Figure, Limit, Measurement
from viacheck.bench.front_door import report_folder, run

LAB = "policy-routing"


def measure(quick: bool) -> Measurement:
    """Run the lab with an engine, and the same lab without an engine."""
    rounds = 1 if quick else 5
    own = Figure(what=f"`./viacheck --lab engine:{LAB}`", unit="s", limit=Limit(at_most=8))
    without = Figure(what=f"`./viacheck --lab {LAB}`: no engine", unit="s")
    reason = missing_requirement()
    if reason is not None:
        own.remark = f"not measured: {reason}"
    with report_folder() as folder:
        for _ in range(rounds):
            if reason is None:
                own.values.append(run("--lab", f"engine:{LAB}", "--report-dir", str(folder)))
            without.values.append(run("--lab", LAB, "--report-dir", str(folder)))
    return Measurement(name="engine", title="A run with a real Docker engine", figures=[own, without])
