"""``viacheck docs``: writes the tables of docs/ from the code that they describe; a test compares them."""

from __future__ import annotations

import argparse
import importlib
import inspect

from netns_lab.faults import FAULTS
from netns_lab.scenarios import PODMAN_ONLY, SCENARIOS, VIRTUAL_MACHINES, WHOLE_HOSTS
from netns_lab.site_lab import SITE_LAB, SITE_LAB_TITLE
from viacheck.atomic_file import write_file
from viacheck.flight_recorder.flight_result import TITLES
from viacheck.installation import CHECKS, ROOT
from viacheck.model.check import Check
from viacheck.model.diagnosis_codes import CODES
from viacheck.model.exit_status import ExitStatus

HEADER = "<!-- Written by './viacheck docs' from the code; change the code, not this file. -->\n\n"


def all_checks() -> list[Check]:
    """Return every declared check, sorted by id."""
    modules = [importlib.import_module(f"checks.{path.stem}") for path in CHECKS.glob("test_*.py")]
    functions = [function for module in modules for _name, function in inspect.getmembers(module, inspect.isfunction)]
    checks: list[Check] = [function.check for function in functions if hasattr(function, "check")]
    return sorted(checks, key=lambda check: check.id)


def checks_page() -> str:
    """Return docs/checks.md: every check, its title, its needs and the faults that break it."""
    rows = ["| id | what must be true | needs | guide | faults that break it |", "| --- | --- | --- | --- | --- |"]
    for check in all_checks():
        breaking = ", ".join(f"`{fault.name}`" for fault in FAULTS.values() if check.id in fault.breaks)
        rows.append(f"| {check.id} | {check.title} | {check.needs} | {check.guide} | {breaking} |")
    rows += ["", "Those of the flight recorder, whose verdicts [watch.md](watch.md#verdicts) explains:", ""]
    rows += [
        "| id | what must be true |",
        "| --- | --- |",
        *(f"| {check} | {title} |" for check, title in TITLES.items()),
    ]
    return "# Checks\n\n" + HEADER + "\n".join(rows) + "\n"


def faults_page() -> str:
    """Return docs/faults.md: the fault matrix."""
    rows = ["| fault | what is broken | on | checks that get worse | diagnosis |", "| --- | --- | --- | --- | --- |"]
    for fault in FAULTS.values():
        needed = " ".join(filter(None, (fault.flavour, fault.release)))
        flavour = f" ({needed})" if fault.flavour in ("engine", "podman", "host") else ""
        rows.append(
            f"| `{fault.name}` | {fault.title} | {', '.join(fault.on)}{flavour} | {', '.join(sorted(fault.breaks))} | "
            f"`{fault.diagnosis}` |"
        )
    return "# Faults\n\n" + HEADER + "\n".join(rows) + "\n"


def labs_page() -> str:
    """Return docs/labs.md: every lab."""
    rows = ["| lab | what it is | guide | leaves by |", "| --- | --- | --- | --- |"]
    for name, describe in (SCENARIOS | PODMAN_ONLY | WHOLE_HOSTS | VIRTUAL_MACHINES).items():
        plan = describe()
        names = [f"`{name}`", f"`engine:{name}`"] if name in SCENARIOS else []
        names += [f"`engine:{name}@podman`"] if name in PODMAN_ONLY else []
        names += [f"`host:{name}`"] if name in WHOLE_HOSTS else []
        names += [f"`vm:{name}`"] if name in VIRTUAL_MACHINES else []
        rows.append(f"| {', '.join(names)} | {plan.title} | {plan.guide} | {plan.intent.egress.uplink} |")
    rows.append(f"| `{SITE_LAB}` with `--site FILE` | {SITE_LAB_TITLE} | | as the file says |")
    return "# Labs\n\n" + HEADER + "\n".join(rows) + "\n"


def diagnoses_page() -> str:
    """Return docs/diagnoses.md: every code and the faults that provoke it."""
    rows = ["| code | what it means | faults that provoke it |", "| --- | --- | --- |"]
    for code, meaning in CODES.items():
        provoking = ", ".join(f"`{fault.name}`" for fault in FAULTS.values() if fault.diagnosis == code)
        rows.append(f"| `{code}` | {meaning} | {provoking} |")
    return "# Diagnoses\n\n" + HEADER + "\n".join(rows) + "\n"


PAGES = {"checks.md": checks_page, "faults.md": faults_page, "labs.md": labs_page, "diagnoses.md": diagnoses_page}


def configure(parser: argparse.ArgumentParser) -> None:
    """Take no options."""
    del parser


def run(_options: argparse.Namespace) -> ExitStatus:
    """Write the pages."""
    for name, page in PAGES.items():
        write_file(ROOT / "docs" / name, page())
    return ExitStatus.OK
