"""A host with 10,000 rules and 100,000 routes: read its state, check its routing, and compare other readers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pyroute2 import IPRoute

from fixtures.check_runner import CheckRunner
from netns_lab.builder import build
from netns_lab.scenarios import SCENARIOS
from reports.report_files import RESULT
from viacheck.bench.figures import BenchFailed, Figure, Limit, Measurement, milliseconds
from viacheck.bench.front_door import report_folder, run
from viacheck.host.namespace import Namespace
from viacheck.installation import CHECKS
from viacheck.model.intent import Intent
from viacheck.model.verdict import Verdict
from viacheck.targets.namespace_target import NamespaceTarget

SCENARIO = "policy-routing"
RULES, ROUTES = 10_000, 100_000
FIRST_PRIORITY = 1000
"""The rules come before the lab's own, so that the kernel evaluates each of them before the rule that decides."""
OTHER_TABLES, FULL_TABLE = 50, 300
"""The rules look up tables from 1000 on; half of the routes are in the table 300, half in main."""
JUDGED = frozenset({"ROUTE-01", "ROUTE-02", "ROUTE-03", "ROUTE-04", "ROUTE-05", "ROUTE-07"})
BATCH_TIMEOUT = 300.0
SITE = """\
schema = 1
[site]
name = "large-host"
[agent]
netns = "/run/netns/agent"
[agent.attach]
mode = "nat"
bridge = "docker0"
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[egress]
uplink = "wlan0"
table = 200
table_name = "wlan0rt"
persist = "none"
[host]
default_exit = "eth0"
[probe]
target = "198.51.100.1"
timeout = "400ms"
"""


def measure(quick: bool) -> Measurement:
    """Read and check the host several times; the slowest reader runs once, and with ``--quick`` not at all."""
    rounds = 1 if quick else 5
    checks = "ROUTE-01 to 05 and 07"
    whole = Figure(what=f"snapshot, model and {checks}", unit="ms", limit=Limit(at_most=3000))
    snapshot = Figure(what="of that, the snapshot", unit="ms")
    model = Figure(what="of that, the model's index and first decision", unit="ms")
    judging = Figure(what="of that, the checks", unit="ms")
    listing = Figure(what="`ip -json` of rules and routes, read by Python's json", unit="ms")
    dump = Figure(what="pyroute2's dump of rules and routes", unit="ms")
    front = Figure(
        what="`./viacheck --local --site …`: every check, real probes, the report", unit="ms",
        limit=Limit(at_most=5000),
    )  # fmt: skip
    with large_host() as (host, intent):
        for _ in range(rounds):
            target = NamespaceTarget("local:large-host", "local", intent, host)
            try:
                snapshot.values.append(milliseconds(lambda: target.snapshot))  # noqa: B023 - called at once
                model.values.append(milliseconds(lambda: target.resolved.agent_decision()))  # noqa: B023
                judging.values.append(milliseconds(lambda: _judge(target)))  # noqa: B023
            finally:
                target.close()
            whole.values.append(snapshot.values[-1] + model.values[-1] + judging.values[-1])
            listing.values.append(milliseconds(partial(_list, host)))
        with report_folder() as folder:
            site = folder / "site.toml"
            site.write_text(SITE)
            for _ in range(rounds):
                duration = run("--local", "--site", str(site), "--report-dir", str(folder / "report"), namespace=host)
                front.values.append(duration * 1000)
            front.remark = _size_of_report(folder / "report")
        if quick:
            dump.remark = "left out by --quick"
        else:
            dump.values.append(milliseconds(lambda: host.call(_dump)))
    return Measurement(
        name="large-host", title=f"A host with {RULES:,} rules and {ROUTES:,} routes",
        figures=[whole, snapshot, model, judging, listing, dump, front],
    )  # fmt: skip


@contextmanager
def large_host() -> Iterator[tuple[Namespace, Intent]]:
    """The policy-routing lab's host, with that many more rules and routes, and what must be true of it."""
    lab = build(SCENARIOS[SCENARIO]())
    try:
        # The routes first: the kernel walks through every rule to check the gateway of each route that is added.
        lab.host.write("/run/batch", "".join(_routes()) + "".join(_rules()))
        done = lab.host.namespace.run(["ip", "-batch", "/run/batch"], BATCH_TIMEOUT)
        if not done.ok:
            raise BenchFailed(f"{done.command}: exit {done.exit_code}: {done.stderr.strip().splitlines()[-1]}")
        yield lab.host.namespace, lab.plan.intent
    finally:
        lab.close()


def _routes() -> Iterator[str]:
    for number in range(ROUTES):
        table = FULL_TABLE if number % 2 else "main"
        yield f"route add 11.{_octets(number)} via 10.10.40.1 dev eth0 table {table}\n"


def _rules() -> Iterator[str]:
    for number in range(RULES):
        table = 1000 + number % OTHER_TABLES
        yield f"rule add priority {FIRST_PRIORITY + number} from 12.{_octets(number)} lookup {table}\n"


def _octets(number: int) -> str:
    return f"{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _judge(target: NamespaceTarget) -> None:
    """Run the checks of routing: they must pass, or be an advisory."""
    with TemporaryDirectory() as captures:
        for result in CheckRunner((str(CHECKS / "test_routing.py"),), JUDGED)(target, Path(captures)):
            if result.verdict not in (Verdict.PASS, Verdict.ADVISORY):
                raise BenchFailed(f"{result.check}: {result.verdict}: {result.observed}")


def _list(host: Namespace) -> None:
    for command in ("rule show", "route show table all"):
        json.loads(host.run(["ip", "-N", "-j", *command.split()]).stdout)


def _dump() -> None:
    with IPRoute() as netlink:
        for messages in (netlink.get_rules(), netlink.get_routes()):
            for _ in messages:
                pass


def _size_of_report(folder: Path) -> str:
    megabytes = (folder / RESULT).stat().st_size / 1e6
    page = (folder / "report.html").stat().st_size / 1e6
    return f"The report of it: result.json {megabytes:.0f} MB, report.html {page:.1f} MB."
