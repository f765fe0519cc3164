"""The house's style is part of the tests: ruff (lint and format) and strict mypy, as pyproject.toml sets them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT


@pytest.mark.parametrize("words", ["ruff check .", "ruff format --check .", "mypy"])
def test_the_house_style_is_kept(words: str) -> None:
    done = subprocess.run([sys.executable, "-m", *words.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{words} says:\n{done.stdout}{done.stderr}"
