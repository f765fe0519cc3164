"""The tables in docs/ of checks, faults, labs and diagnoses match the code."""

from __future__ import annotations

import re

import pytest

from viacheck.cli.docs import PAGES
from viacheck.installation import ROOT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_matches_the_code(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run './viacheck docs'"


def test_the_contributors_examples_are_real_code() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    examples = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    product = [path.read_text() for top in ("checks", "src", "netns_lab") for path in (ROOT / top).rglob("*.py")]
    assert len(examples) == 4
    for example in examples:
        assert any(example in source for source in product), f"no longer in the code:\n{example}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    missing = {page for page in pages if f"({page})" not in index}
    assert not missing, f"docs/README.md does not list {', '.join(sorted(missing))}"
