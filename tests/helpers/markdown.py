"""Reads the examples in docs/."""

from __future__ import annotations

import re

from viacheck.installation import ROOT


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)\n```", (ROOT / "docs" / page).read_text(), re.DOTALL)
