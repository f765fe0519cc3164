"""Growth with the number of rules and routes: everything that the model and the causes make of a host's state.

The state is a lab's with more rules and routes in it, as data: the kernel itself takes minutes to add 100,000 rules.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

from netns_lab.lab_specs import LabSpec
from viacheck.analysis.classes import class_partition
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.bench.figures import Measurement
from viacheck.bench.growth import growth_figures
from viacheck.bench.large_host import FIRST_PRIORITY, FULL_TABLE, OTHER_TABLES
from viacheck.diagnosis.priority import causes
from viacheck.model.diff import changes
from viacheck.model.intent import Intent
from viacheck.model.measurements import Measurements
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.model.snapshot import Snapshot
from viacheck.model.snapshot_json import read_snapshot, snapshot_json

SIZES = (1_000, 10_000, 100_000)
LAB = LabSpec("policy-routing")


def measure(quick: bool) -> Measurement:
    """Judge the state of a host with that many rules and as many routes, and write and read it."""
    target = LAB.open()
    try:
        intent, snapshot = target.intent, target.snapshot
    finally:
        target.close()
    sizes = SIZES[:2] if quick else SIZES
    actions = {size: partial(judge, intent, enlarged(snapshot, size)) for size in sizes}
    figures = growth_figures(actions, "{} rules and as many routes: classes, causes, saved and read", 1 if quick else 3)
    return Measurement(name="growth-state", title="Growth with rules and routes (CPU time)", figures=figures)


def enlarged(snapshot: Snapshot, size: int) -> Snapshot:
    """Return a snapshot with that many more rules before the lab's own, and as many routes."""
    hops = (Nexthop(gateway="10.10.40.1", interface="eth0"),)
    rules = [
        Rule(family=4, priority=FIRST_PRIORITY + number % 30_000, source=f"12.{_octets(number)}/32",
             table=1000 + number % OTHER_TABLES)
        for number in range(size)
    ]  # fmt: skip
    rules = sorted([*rules, *snapshot.host.rules], key=lambda rule: (rule.family, rule.priority))
    routes = [
        Route(family=4, table=FULL_TABLE if number % 2 else TABLE_MAIN, destination=f"11.{_octets(number)}/32",
              nexthops=hops)
        for number in range(size)
    ]  # fmt: skip
    return replace(snapshot, host=replace(snapshot.host, rules=tuple(rules), routes=(*snapshot.host.routes, *routes)))


def judge(intent: Intent, snapshot: Snapshot) -> None:
    """Evaluate the model, find every cause, and compare the state with the one that was saved of it."""
    resolved = ResolvedIntent(intent, snapshot)
    for _ in class_partition(resolved).classes:
        pass
    causes(resolved, Measurements())
    changes(snapshot, read_snapshot(json.loads(json.dumps(snapshot_json(snapshot)))))


def _octets(number: int) -> str:
    return f"{number >> 16}.{number >> 8 & 255}.{number & 255}"
