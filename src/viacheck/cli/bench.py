"""``viacheck bench``: measures the parts of a run, beside other ways to do the same."""

from __future__ import annotations

import argparse
import datetime
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from viacheck.atomic_file import write_file
from viacheck.bench.bench_table import page
from viacheck.bench.figures import Bench, BenchFailed, Measurement
from viacheck.bench.machine import machine
from viacheck.cli.command import CommandFailed, lab_failures, print_error
from viacheck.host.user_namespace import enter_user_namespace_if_needed
from viacheck.installation import reports_folder
from viacheck.model.exit_status import ExitStatus, UsageError

MODULES = {
    "start": "viacheck.bench.start_time",
    "lab": "viacheck.bench.lab_build",
    "verdict": "viacheck.bench.egress_verdict",
    "run": "viacheck.bench.default_run",
    "load": "viacheck.bench.capture_load",
    "large-host": "viacheck.bench.large_host",
    "silent-resolver": "viacheck.bench.silent_resolver",
    "engine": "viacheck.bench.engine_lab",
    "growth-state": "viacheck.bench.growth_of_state",
    "growth-uplinks": "viacheck.bench.growth_of_uplinks",
    "growth-agents": "viacheck.bench.growth_of_agents",
    "boot": "viacheck.bench.host_boot",
    "hosts": "viacheck.bench.whole_host_runs",
    "fleet": "viacheck.bench.fleet_controllers",
}
"""The module of each measurement, in the order in which they run."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that it works")
    parser.add_argument(
        "--only", action="append", choices=MODULES, metavar="NAME", help=f"measure only this: {', '.join(MODULES)}"
    )


def run(options: argparse.Namespace) -> ExitStatus:
    """Measure, print the table and save it; return FAILED when a measurement was not possible.

    Raises:
        UsageError: when the folder of the saved benchmarks cannot be written.
    """
    folder = reports_folder() / "bench"
    enter_user_namespace_if_needed()
    with _unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    bench = Bench(
        id=now.strftime("%Y%m%dT%H%M%SZ") + "-" + secrets.token_hex(2),
        taken=now.isoformat(timespec="seconds"), machine=machine(), quick=options.quick, measurements=[],
    )  # fmt: skip
    status = ExitStatus.OK
    for name in options.only or MODULES:
        sys.stderr.write(f"measuring {name}\n")
        measure: Callable[[bool], Measurement] = import_module(MODULES[name]).measure
        try:
            with lab_failures():
                bench.measurements.append(measure(options.quick).judged())
        except (BenchFailed, CommandFailed) as error:
            print_error("viacheck bench", f"{name}: {error}")
            status = ExitStatus.FAILED
    text = page(bench)
    with _unwritable(folder):
        write_file(folder / f"{bench.id}.json", bench.model_dump_json(by_alias=True, indent=1) + "\n")
        write_file(folder / f"{bench.id}.md", text)
    sys.stdout.write(f"{text}\nsaved: {folder / bench.id}.json and .md\n")
    return status


@contextmanager
def _unwritable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None
