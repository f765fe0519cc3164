"""The shell script that writes a bundle where nothing may be installed, with this version in it."""

from __future__ import annotations

from pathlib import Path

from viacheck import __version__

SCRIPT = Path(__file__).with_name("collect.sh")
VERSION_MARK = "@VERSION@"


def collect_script() -> str:
    """Return the text of the script."""
    return SCRIPT.read_text(encoding="utf-8").replace(VERSION_MARK, __version__)
