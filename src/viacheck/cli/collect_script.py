"""``./viacheck collect-script``: prints the shell script that collects a bundle where nothing may be installed."""

from __future__ import annotations

import sys
from pathlib import Path

from fixtures.recorder import own_version

USAGE_ERROR = 4
SCRIPT = Path(__file__).parent.parent / "bundle" / "collect.sh"
VERSION_MARK = "@VERSION@"


def main(argv: list[str]) -> int:
    """Print the script; returns 0, or 4 for words that it does not know."""
    if argv:
        sys.stderr.write(
            "usage: ./viacheck collect-script >collect.sh   (on the host: sh collect.sh --site site.toml)\n"
        )
        return USAGE_ERROR
    sys.stdout.write(SCRIPT.read_text(encoding="utf-8").replace(VERSION_MARK, own_version()))
    return 0
