"""Compiled templates are kept beside Python's byte code, and never used for another template or compiler."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reports import document


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A template of its own, in a folder of templates, with an empty folder for byte code."""
    folder = tmp_path / "templates"
    folder.mkdir()
    monkeypatch.setattr(document, "TEMPLATES", folder)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "pycache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = folder / "page.html"
    path.write_text("before {{ value }}")
    return path


def rendered() -> str:
    # A new environment stands for the environment of another process.
    return document.environment.__wrapped__().get_template("page.html").render(value="<")


def kept(tmp_path: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in tmp_path.rglob("*.jinja2")}


def test_a_compiled_template_is_used_again(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rendered() == "before &lt;"
    assert len(kept(tmp_path)) == 1

    def compile_again(*_source: object) -> None:
        raise AssertionError("the template is compiled again")

    monkeypatch.setattr(document._Environment, "compile", compile_again)
    assert rendered() == "before &lt;"


def test_another_template_or_compiler_is_compiled_again(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered()
    first = kept(tmp_path)
    template.write_text("after {{ value }}")
    assert rendered() == "after &lt;"
    assert kept(tmp_path).keys() == first.keys(), "the compiled template is replaced"
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "another")
    assert rendered() == "after &lt;"
    assert len(kept(tmp_path)) == 2, "another version of Jinja2 has a file of its own"


def test_a_page_is_rendered_where_nothing_can_be_kept(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pycache").write_text("no folder")
    assert rendered() == "before &lt;"
    monkeypatch.setattr(sys, "pycache_prefix", "/proc")
    assert rendered() == "before &lt;"
    monkeypatch.setattr(sys, "pycache_prefix", None)
    assert rendered() == "before &lt;"
