"""``./viacheck bench``: measures what viacheck's speed is made of, beside other ways to do the same, in one run."""

from __future__ import annotations

import argparse
import datetime
import secrets
import sys
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

from fixtures.recorder import OUT
from netns_lab.rtnetlink_batch import LabBuildError
from reports.text import escape_unprintable
from viacheck.atomic_file import write_file
from viacheck.bench.bench_table import page
from viacheck.bench.figures import Bench, BenchFailed, Measurement
from viacheck.bench.machine import machine
from viacheck.host.user_namespace import UserNamespacesForbidden, enter_user_namespace_if_needed
from viacheck.targets.open_target import LabUnavailable

USAGE_ERROR, FAILED, INTERRUPTED = 4, 1, 130
SAVED = OUT / "bench"
MODULES = {
    "lab": "viacheck.bench.lab_build",
    "verdict": "viacheck.bench.egress_verdict",
    "run": "viacheck.bench.default_run",
    "load": "viacheck.bench.capture_load",
    "large-host": "viacheck.bench.large_host",
    "engine": "viacheck.bench.engine_lab",
}
"""What can be measured, in the order in which it is."""


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"viacheck bench: {escape_unprintable(message)}\n")


def main(argv: list[str]) -> int:
    """Measure, print the table, save it; returns 0, 1 when something could not be measured, 4 for wrong usage."""
    parser = _Arguments(prog="./viacheck bench", description="Measure what the speed of viacheck is made of.")
    parser.add_argument("--quick", action="store_true", help="few repetitions: whether it works, no figures to quote")
    parser.add_argument("--only", action="append", choices=MODULES, metavar="NAME", help=f"one of {', '.join(MODULES)}")
    options = parser.parse_args(argv)
    try:
        SAVED.mkdir(parents=True, exist_ok=True)
        enter_user_namespace_if_needed()
    except OSError as error:
        parser.error(f"{SAVED}: cannot be written: {error.strerror}")
    except UserNamespacesForbidden as error:
        parser.error(str(error))
    now = datetime.datetime.now(datetime.UTC)
    bench = Bench(
        id=now.strftime("%Y%m%dT%H%M%SZ") + "-" + secrets.token_hex(2),
        taken=now.isoformat(timespec="seconds"), machine=machine(), quick=options.quick, measurements=[],
    )  # fmt: skip
    complete = True
    try:
        for name in options.only or MODULES:
            sys.stderr.write(f"measuring {name}\n")
            measure: Callable[[bool], Measurement] = import_module(MODULES[name]).measure
            try:
                bench.measurements.append(measure(options.quick).judged())
            except (BenchFailed, LabBuildError, LabUnavailable) as error:
                sys.stderr.write(f"viacheck bench: {name}: {escape_unprintable(str(error))}\n")
                complete = False
    except KeyboardInterrupt:
        return INTERRUPTED
    text = page(bench)
    try:
        write_file(SAVED / f"{bench.id}.json", bench.model_dump_json(by_alias=True, indent=1) + "\n")
        write_file(SAVED / f"{bench.id}.md", text)
    except OSError as error:
        parser.error(f"{SAVED}: cannot be written: {error.strerror}")
    sys.stdout.write(f"{text}\nsaved: {SAVED / bench.id}.json and .md\n")
    return 0 if complete else FAILED
