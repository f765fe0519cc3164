"""The start of a command with next to nothing to do, beside the start of Python and of pytest alone."""

from __future__ import annotations

import sys
from pathlib import Path

from netns_lab.lab_specs import LabSpec
from viacheck import __version__
from viacheck.bench.figures import Figure, Limit, Measurement
from viacheck.bench.front_door import VIACHECK, report_folder, seconds
from viacheck.bundle.manifest import DEFAULT
from viacheck.bundle.writer import Case, write_bundle
from viacheck.model.site_agents import SOLE_AGENT
from viacheck.model.snapshot_json import snapshot_json

BUNDLE_LIMIT, START_LIMIT = 600, 350
"""Milliseconds."""


def measure(quick: bool) -> Measurement:
    """Start each command several times; the first start, which may compile modules, does not count."""
    rounds = 1 if quick else 11
    with report_folder() as folder:
        bundle = folder / "case.tar.gz"
        _write_bundle(bundle)
        viacheck = VIACHECK
        commands = [
            ("`viacheck --lab list`", [*viacheck, "--lab", "list"], START_LIMIT),
            ("`viacheck --version`", [*viacheck, "--version"], START_LIMIT),
            ("`viacheck --help`", [*viacheck, "--help"], START_LIMIT),
            (
                "`viacheck explain --bundle`",
                [*viacheck, "explain", "--bundle", str(bundle), "--to", "203.0.113.9"],
                BUNDLE_LIMIT,
            ),
            ("`python -c pass`", [sys.executable, "-I", "-c", "pass"], None),
            ("`pytest --version`", [sys.executable, "-I", "-m", "pytest", "--version"], None),
        ]
        figures = [
            Figure(what=name, unit="ms", limit=None if limit is None else Limit(at_most=limit))
            for name, _argv, limit in commands
        ]
        for figure, (_name, argv, _limit) in zip(figures, commands, strict=True):
            seconds(argv)
            figure.values = [seconds(argv) * 1000 for _ in range(rounds)]
    return Measurement(name="start", title="Start of a command", figures=figures)


def _write_bundle(path: Path) -> None:
    """Write a bundle of the policy-routing lab."""
    target = LabSpec("policy-routing").open()
    try:
        case = Case(
            version=__version__, intents={SOLE_AGENT: target.intent.as_json()},
            snapshots={SOLE_AGENT: snapshot_json(target.snapshot)}, commands=[],
        )  # fmt: skip
        write_bundle(path, case, DEFAULT)
    finally:
        target.close()
