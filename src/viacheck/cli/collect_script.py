"""``viacheck collect-script``: prints the shell script that collects a bundle where nothing may be installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from viacheck import __version__
from viacheck.model.exit_status import ExitStatus

SCRIPT = Path(__file__).parent.parent / "bundle" / "collect.sh"
VERSION_MARK = "@VERSION@"


def configure(parser: argparse.ArgumentParser) -> None:
    """Say how the script is used."""
    parser.usage = "viacheck collect-script >collect.sh   (on the host: sh collect.sh)"


def run(_options: argparse.Namespace) -> ExitStatus:
    """Print the script."""
    sys.stdout.write(SCRIPT.read_text(encoding="utf-8").replace(VERSION_MARK, __version__))
    return ExitStatus.OK
