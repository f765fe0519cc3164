"""``./viacheck docs``: writes the tables of docs/ from the code that they describe; a test holds them in step."""

from __future__ import annotations

import importlib
import inspect
import sys

from fixtures.check import Check
from netns_lab.faults import FAULTS
from netns_lab.scenarios import SCENARIOS
from viacheck.atomic_file import write_file
from viacheck.diagnosis.codes import CODES
from viacheck.installation import ROOT

HEADER = "<!-- Written by './viacheck docs' from the code; change the code, not this file. -->\n\n"


def all_checks() -> list[Check]:
    """Every declared check, by id."""
    found = []
    for path in sorted((ROOT / "checks").glob("test_*.py")):
        module = importlib.import_module(f"checks.{path.stem}")
        found += [function.check for _name, function in inspect.getmembers(module, inspect.isfunction)
                  if hasattr(function, "check")]  # fmt: skip
    return sorted(found, key=lambda check: check.id)


def checks_page() -> str:
    """docs/checks.md: every check, what must be true, what it needs, where it applies."""
    rows = ["| id | what must be true | needs | guide | faults that break it |", "| --- | --- | --- | --- | --- |"]
    for check in all_checks():
        breaking = ", ".join(f"`{fault.name}`" for fault in FAULTS.values() if check.id in fault.breaks)
        rows.append(f"| {check.id} | {check.title} | {check.needs} | {check.guide} | {breaking} |")
    return "# Checks\n\n" + HEADER + "\n".join(rows) + "\n"


def faults_page() -> str:
    """docs/faults.md: the fault matrix."""
    rows = ["| fault | what is broken | on | checks that get worse | diagnosis |", "| --- | --- | --- | --- | --- |"]
    for fault in FAULTS.values():
        flavour = " (engine)" if fault.flavour == "engine" else ""
        rows.append(
            f"| `{fault.name}` | {fault.title} | {', '.join(fault.on)}{flavour} | {', '.join(sorted(fault.breaks))} | "
            f"`{fault.diagnosis}` |"
        )
    return "# Faults\n\n" + HEADER + "\n".join(rows) + "\n"


def labs_page() -> str:
    """docs/labs.md: every lab."""
    rows = ["| lab | what it is | guide | leaves by |", "| --- | --- | --- | --- |"]
    for name, describe in SCENARIOS.items():
        plan = describe()
        rows.append(f"| `{name}`, `engine:{name}` | {plan.title} | {plan.guide} | {plan.intent.egress.uplink} |")
    return "# Labs\n\n" + HEADER + "\n".join(rows) + "\n"


def diagnoses_page() -> str:
    """docs/diagnoses.md: every code, and the faults that provoke it."""
    rows = ["| code | what it means | faults that provoke it |", "| --- | --- | --- |"]
    for code, meaning in CODES.items():
        provoking = ", ".join(f"`{fault.name}`" for fault in FAULTS.values() if fault.diagnosis == code)
        rows.append(f"| `{code}` | {meaning} | {provoking} |")
    return "# Diagnoses\n\n" + HEADER + "\n".join(rows) + "\n"


PAGES = {"checks.md": checks_page, "faults.md": faults_page, "labs.md": labs_page, "diagnoses.md": diagnoses_page}


def main(argv: list[str]) -> int:
    """Write the pages; returns 0, or 4 for words that it does not know."""
    if argv:
        sys.stderr.write("usage: ./viacheck docs\n")
        return 4
    for name, page in PAGES.items():
        write_file(ROOT / "docs" / name, page())
    return 0
