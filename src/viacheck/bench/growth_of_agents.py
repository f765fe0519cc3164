"""Growth with the number of agents in one site file: the file is read, and the report of all of them is made."""

from __future__ import annotations

from functools import partial
from typing import Any

from netns_lab.lab_specs import LabSpec
from reports.console import summary
from reports.junit import junit
from reports.report_page import render
from viacheck.bench.figures import Measurement
from viacheck.bench.growth import growth_figures
from viacheck.model.result import CheckResult, Run, RunResult, TargetRecord
from viacheck.model.site_agents import MOST_AGENTS, parse_agents
from viacheck.model.verdict import Verdict

SIZES = (1, 10, MOST_AGENTS)
LAB = LabSpec("policy-routing")
CHECKS_OF_EACH = 59
WIDTH = 120


def measure(quick: bool) -> Measurement:
    """Read a site file with that many agents, and report a check that fails on each of them."""
    target = LAB.open()
    try:
        record = target.record()
    finally:
        target.close()
    # The first page compiles the template.
    _report(record, 1)
    actions = {size: partial(_report, record, size) for size in SIZES}
    figures = growth_figures(actions, "{} agents: site file, page, console, JUnit", 1 if quick else 5)
    return Measurement(name="growth-agents", title="Growth with agents (CPU time)", figures=figures)


def _report(record: TargetRecord, agents: int) -> None:
    parse_agents(_site(record.intent, agents), source="site.toml")
    names = [f"agent{number}" for number in range(agents)]
    targets = [record.model_copy(update={"id": f"local:site:{name}", "agent": name}) for name in names]
    results = [
        CheckResult(
            check=f"HOST-{1 + number % 7:02d}", target=target.id, title="a check", seconds=0.1,
            verdict=Verdict.FAIL if number == 0 else Verdict.PASS, expected="expected", observed="observed",
        )
        for target in targets
        for number in range(CHECKS_OF_EACH)
    ]  # fmt: skip
    run = Run(id="growth", started="2026-01-01T00:00:00Z", finished="2026-01-01T00:00:01Z", command="viacheck")
    outcome = RunResult(run=run, targets=targets, results=results)
    render(outcome)
    junit(outcome)
    summary(outcome, None, colour=False, width=WIDTH)
    outcome.model_dump_json()


def _site(intent: dict[str, Any], agents: int) -> dict[str, Any]:
    """Return a site file in which that many agents share the host of an intent, each with a table of its own."""
    common = {key: value for key, value in intent.items() if key not in ("agent", "egress")}
    egress = {key: value for key, value in intent["egress"].items() if key != "table_name"}
    tables = {
        f"agent{number}": {
            "netns": f"/run/netns/agent{number}", "attach": intent["agent"]["attach"],
            "egress": {**egress, "table": 300 + number},
        }
        for number in range(agents)
    }  # fmt: skip
    return {**common, "agents": tables}
