"""The tables in docs/ of checks, faults, labs and diagnoses match the code."""

from __future__ import annotations

import pytest

from viacheck.cli.docs import PAGES
from viacheck.installation import ROOT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_matches_the_code(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run './viacheck docs'"
