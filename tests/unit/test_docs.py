"""What docs/ says of checks, faults and labs is what the code says."""

from __future__ import annotations

import pytest

from viacheck.cli.docs import PAGES
from viacheck.installation import ROOT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_in_step_with_the_code(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run './viacheck docs'"
