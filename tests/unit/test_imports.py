"""Imports point one way, libraries are met where they belong, and no two things have one name. Read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

BASE = {"model", "installation", "atomic_file", "collector_pause", "ending_signals", "private_folder", "user_file"}
PURE = {"model", "parsers", "analysis", "persistence", "diagnosis"}
HOST = BASE | PURE | {"netlink", "packets", "host"}
TARGETS = HOST | {"guard", "disruption", "bundle", "targets"}
ABOVE = TARGETS | {"netns_lab", "reports"}
BELOW: dict[str, set[str]] = {
    "viacheck": {"fixtures", "installation"},
    "model": {"user_file"},
    "installation": set(),
    "atomic_file": {"private_folder", "user_file"},
    "collector_pause": set(),
    "ending_signals": {"model"},
    "private_folder": set(),
    "user_file": set(),
    "parsers": {"model"},
    "analysis": {"model", "parsers"},
    "persistence": {"model", "parsers", "analysis"},
    "diagnosis": {"model", "parsers", "analysis", "persistence"},
    "netlink": {"model", "parsers"},
    "packets": {"model", "parsers", "analysis", "netlink", "host", "atomic_file"},
    "host": {"model", "parsers", "analysis", "persistence", "netlink", "collector_pause", "user_file"},
    "guard": HOST - {"diagnosis"},
    "disruption": HOST | {"guard"},
    "bundle": HOST,
    "targets": TARGETS - {"targets"},
    "netns_lab": TARGETS,
    "reports": {"model", "atomic_file", "collector_pause", "private_folder", "user_file"},
    "fixtures": ABOVE,
    "fleet": ABOVE,
    "flight_recorder": TARGETS | {"reports"},
    "bench": ABOVE | {"fixtures", "checks", "fleet"},
    "cli": ABOVE | {"bench", "fleet", "flight_recorder"},
    "__main__": {"cli"},
    "checks": {"model", "analysis", "persistence", "fixtures"},
}
"""What each room may import of the others. A room is a folder of src/viacheck/ or of the checkout."""
CHECKS_MAY_IMPORT = {"fixtures.check", "fixtures.expect"}
"""Of the fixtures; everything else is handed to a check by its name."""
HOMES = {
    "pytest": {"fixtures", "cli", "bench", "checks"},
    "docker": {"host", "disruption", "netns_lab"},
    "testinfra": {"host"},
    "pyroute2": {"host", "netns_lab", "bench"},
    "scapy": {"packets", "bench"},
    "jinja2": {"reports", "fleet"},
    "nornir": {"fleet"},
    "rich": {"fleet"},
}
"""The rooms that use a library."""
COSTLY = {"docker", "scapy", "nornir", "rich"}
"""Libraries that are imported where they are used, so that a run without them does not pay for them."""
ACTING = {"subprocess", "os", "shutil", "tempfile", "select", "selectors", "threading", "fcntl", "ctypes", "time"}
"""Modules that pure rooms do not need."""
NAMED_BY_CHAPTER = {"cli", "diagnosis", "checks", "fixtures", "bench"}
"""Rooms whose files are named by command, chapter or measurement: their names may recur elsewhere."""


@dataclass(frozen=True)
class Import:
    """One import statement."""

    module: str
    names: tuple[str, ...]
    line: int
    at_top: bool


@cache
def sources() -> tuple[Path, ...]:
    """Return every module of the product."""
    tops = ("src/viacheck", "fixtures", "netns_lab", "reports", "checks")
    return tuple(sorted(path for top in tops for path in (ROOT / top).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    """Return a module's name as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "src" else parts).removesuffix(".__init__")


def room(module: str) -> str | None:
    """Return the room of a module; None for libraries."""
    parts = module.split(".")
    if parts[0] == "viacheck":
        return parts[1] if len(parts) > 1 else "viacheck"
    return parts[0] if parts[0] in BELOW else None


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Return the imports of a module that happen when it runs, without those for the type checker alone."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    module = tree(path)
    for_types = {
        id(node)
        for block in ast.walk(module)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(module):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node.lineno, node in module.body)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = tuple(alias.asname or alias.name for alias in node.names)
            yield Import(node.module or "", names, node.lineno, node in module.body)


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_folder_is_a_room() -> None:
    folders = {path.name for path in (ROOT / "src" / "viacheck").iterdir() if (path / "__init__.py").exists()}
    assert not folders - set(BELOW), "say in BELOW what they may import"
    files = {path.stem for path in (ROOT / "src" / "viacheck").glob("*.py")} - {"__init__", "__main__"}
    assert not files - BASE, "a module beside the rooms belongs into one of them"


def test_imports_point_one_way() -> None:
    wrong = []
    for path in sources():
        own = room(name_of(path))
        assert own is not None
        for imported in imports(path):
            other = room(imported.module)
            if imported.module == "viacheck" and set(imported.names) <= {"__version__"}:
                continue
            if other is not None and other != own and other not in BELOW[own]:
                wrong.append(f"{where(path, imported.line)}: {own} imports {imported.module}")
    assert not wrong, "\n".join(wrong)


def test_libraries_are_met_where_they_belong() -> None:
    wrong = [
        f"{where(path, imported.line)}: {imported.module}"
        for path in sources()
        for imported in imports(path)
        if (library := imported.module.partition(".")[0]) in HOMES and room(name_of(path)) not in HOMES[library]
    ]
    assert not wrong, "\n".join(wrong)


def test_costly_libraries_are_imported_where_they_are_used() -> None:
    wrong = [
        f"{where(path, imported.line)}: {imported.module}"
        for path in sources()
        for imported in imports(path)
        if imported.at_top and imported.module.partition(".")[0] in COSTLY
    ]
    assert not wrong, "\n".join(wrong)


def test_scapy_is_imported_in_one_place() -> None:
    """Its import reads routes, interfaces and a cache: scapy_import.py prevents that."""
    users = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.name != "scapy_import.py"
        and any(imported.module.partition(".")[0] == "scapy" for imported in imports(path))
    ]
    # The bench measures scapy as it is.
    assert users in ([], ["src/viacheck/bench/scapy_sniffer.py"])


def test_pure_rooms_only_compute() -> None:
    wrong = []
    for path in sources():
        if room(name_of(path)) not in PURE:
            continue
        wrong += [
            f"{where(path, imported.line)}: {imported.module}"
            for imported in imports(path)
            if imported.module in ACTING
        ]
        wrong += [
            f"{where(path, node.lineno)}: {node.func.id}()"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "print", "exec")
        ]
    assert not wrong, "\n".join(wrong)


def test_checks_are_handed_what_they_look_at() -> None:
    wrong = [
        f"{where(path, imported.line)}: {imported.module}"
        for path in sources()
        if room(name_of(path)) == "checks"
        for imported in imports(path)
        if room(imported.module) == "fixtures" and imported.module not in CHECKS_MAY_IMPORT
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(where(path, node.lineno))
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not twice, "\n".join(f"{name}: {', '.join(found)}" for name, found in twice.items())


def test_no_two_modules_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources():
        by_chapter = room(name_of(path)) in NAMED_BY_CHAPTER or path.parent.name in ("scenarios", "faults")
        if path.stem not in ("__init__", "__main__") and not by_chapter:
            places[path.stem].append(str(path.relative_to(ROOT)))
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not twice, "\n".join(f"{name}: {', '.join(found)}" for name, found in twice.items())


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("viacheck.cli.main", ["pytest", "docker", "scapy", "pyroute2", "jinja2", "pydantic", "nornir"]),
        ("fixtures.plugin", ["docker", "scapy", "pyroute2", "jinja2", "yaml", "netns_lab"]),
        ("netns_lab.builder", ["pytest", "docker", "scapy", "jinja2"]),
        (
            "reports.report_files",
            ["pytest", "docker", "jinja2", "scapy", "pyroute2", "testinfra", "viacheck.host", "netns_lab"],
        ),
        ("viacheck.diagnosis", ["pytest", "docker", "scapy", "pyroute2", "viacheck.host", "netns_lab"]),
        ("viacheck.model.result", ["pytest", "viacheck.analysis", "viacheck.host", "netns_lab", "reports"]),
    ],
)
def test_what_an_import_brings_along(module: str, unwanted: list[str]) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; "
    code += f"print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
