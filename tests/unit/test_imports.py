"""Imports point one way: plain data, reasoning over it, access to a target, labs, pytest glue. Read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

MODEL, REASONING, ACCESS = "viacheck.model", "fixtures.reasoning", "fixtures.access"
GUARD, BUNDLE, BENCH, GLUE = "viacheck.guard", "viacheck.bundle", "viacheck.bench", "fixtures"
LABS, REPORTS, CHECKS = "netns_lab", "reports", "checks"
BELOW: dict[str, set[str]] = {
    MODEL: set(),
    REASONING: {MODEL},
    ACCESS: {MODEL, REASONING},
    GUARD: {MODEL, REASONING, ACCESS},
    REPORTS: {MODEL},
    BUNDLE: {MODEL, REASONING, ACCESS, REPORTS},
    LABS: {MODEL, REASONING, ACCESS},
    GLUE: {MODEL, REASONING, ACCESS, GUARD, BUNDLE, BENCH, LABS, REPORTS},
    BENCH: {MODEL, REASONING, ACCESS, GUARD, BUNDLE, LABS, REPORTS, GLUE, CHECKS},
    CHECKS: {MODEL, REASONING, ACCESS, GLUE},
}
"""What each layer may import of the others. Modules right below fixtures/ are the pytest glue and the commands."""
CHECKS_MAY_IMPORT = {"fixtures.check", "fixtures.expect"}
"""Of the glue; everything else is handed to a check by its name."""
HOMES = {
    "pytest": {GLUE, BENCH, CHECKS},
    "docker": {ACCESS, LABS},
    "testinfra": {ACCESS},
    "pyroute2": {ACCESS, LABS, BENCH},
    "scapy": {ACCESS, BENCH},
    "jinja2": {REPORTS},
}
"""Where a library is met."""
COSTLY = {"docker"}
"""Imported where it is used: 145 ms, which a run without an engine need not pay."""
ACTING = {"subprocess", "os", "shutil", "tempfile", "select", "selectors", "threading", "fcntl", "ctypes", "time"}
"""What pure reasoning has no use for."""


@dataclass(frozen=True)
class Import:
    """One import statement."""

    module: str
    names: tuple[str, ...]
    line: int
    at_top: bool


@cache
def sources() -> tuple[Path, ...]:
    """Every module of the program itself."""
    return tuple(
        sorted(path for top in ("fixtures", "netns_lab", "reports", "checks") for path in (ROOT / top).rglob("*.py"))
    )


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[Import]:
    """The imports of a module that happen when it runs: those for the type checker alone are left out."""
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
            for one in node.names:
                yield Import(one.name, (), node.lineno, node in module.body)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written whole"
            names = tuple(one.asname or one.name for one in node.names)
            yield Import(node.module or "", names, node.lineno, node in module.body)


def layer(module: str) -> str | None:
    """The layer that a module belongs to; None for what is not ours."""
    found = [one for one in BELOW if module == one or module.startswith(f"{one}.")]
    return max(found, key=len, default=None)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_every_folder_has_its_layer() -> None:
    packages = {name_of(path / "x.py").removesuffix(".x") for path in (ROOT / "fixtures").iterdir() if path.is_dir()}
    unknown = {one for one in packages if not one.endswith("__pycache__")} - set(BELOW)
    assert not unknown, f"say in BELOW what {', '.join(sorted(unknown))} may import"


def test_imports_point_one_way() -> None:
    wrong = []
    for path in sources():
        own = layer(name_of(path))
        assert own is not None
        for one in imports(path):
            other = layer(one.module)
            if other is not None and other != own and other not in BELOW[own]:
                wrong.append(f"{path.relative_to(ROOT)}:{one.line}: {own} imports {one.module}")
    assert not wrong, "\n".join(wrong)


def test_libraries_are_met_where_they_belong() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{one.line}: {one.module}"
        for path in sources()
        for one in imports(path)
        if (library := one.module.partition(".")[0]) in HOMES and layer(name_of(path)) not in HOMES[library]
    ]
    assert not wrong, "\n".join(wrong)


def test_what_costs_much_is_imported_where_it_is_used() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{one.line}: {one.module}"
        for path in sources()
        for one in imports(path)
        if one.at_top and one.module.partition(".")[0] in COSTLY
    ]
    assert not wrong, "\n".join(wrong)


def test_scapy_enters_by_one_door() -> None:
    """Its import reads routes, interfaces and a cache: scapy_setup.py keeps it from that."""
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.name != "scapy_setup.py" and any(one.module.partition(".")[0] == "scapy" for one in imports(path))
    ]
    # The bench measures scapy as it is.
    assert wrong in ([], ["src/viacheck/bench/scapy_sniffer.py"])


def test_reasoning_is_pure() -> None:
    wrong = []
    for path in sources():
        if layer(name_of(path)) != REASONING:
            continue
        wrong += [f"{path.name}:{one.line}: {one.module}" for one in imports(path) if one.module in ACTING]
        wrong += [
            f"{path.name}:{node.lineno}: {node.func.id}()"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "print", "exec")
        ]
    assert not wrong, "\n".join(wrong)


def test_checks_meet_access_as_types_only() -> None:
    """A check is handed what it looks at; it opens, runs and sends nothing itself."""
    wrong = []
    for path in sources():
        if layer(name_of(path)) != CHECKS:
            continue
        glue = {one.module for one in imports(path) if layer(one.module) == GLUE}
        wrong += [f"{path.name}: imports {module}" for module in glue - CHECKS_MAY_IMPORT]
        names = {name for one in imports(path) if layer(one.module) == ACCESS for name in one.names}
        types = {id(node) for part in _types(tree(path)) for node in ast.walk(part)}
        wrong += [
            f"{path.name}:{node.lineno}: uses {node.id}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Name) and node.id in names and id(node) not in types
        ]
    assert not wrong, "\n".join(wrong)


def _types(module: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(module):
        found = node.returns if isinstance(node, ast.FunctionDef) else getattr(node, "annotation", None)
        if isinstance(node, ast.ExceptHandler):
            found = node.type
        if isinstance(found, ast.expr):
            yield found


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("fixtures.plugin", ["docker", "scapy.all"]),
        ("netns_lab.builder", ["pytest", "docker", "scapy", "jinja2"]),
        (
            "reports.report_files",
            ["pytest", "docker", "scapy", "pyroute2", "testinfra", "fixtures.access", "netns_lab"],
        ),
        ("viacheck.diagnosis", ["pytest", "docker", "scapy", "pyroute2", "fixtures.access", "netns_lab"]),
        ("viacheck.model.result", ["pytest", "fixtures.reasoning", "fixtures.access", "netns_lab", "reports"]),
    ],
)
def test_what_an_import_brings_along(module: str, unwanted: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
