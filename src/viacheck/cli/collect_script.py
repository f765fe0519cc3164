"""``viacheck collect-script``: prints the shell script that collects a bundle where nothing may be installed."""

from __future__ import annotations

import argparse
import sys

from viacheck.bundle.script_file import collect_script
from viacheck.model.exit_status import ExitStatus


def configure(parser: argparse.ArgumentParser) -> None:
    """Say how the script is used."""
    parser.usage = "viacheck collect-script >collect.sh   (on the host: sh collect.sh)"


def run(_options: argparse.Namespace) -> ExitStatus:
    """Print the script."""
    sys.stdout.write(collect_script())
    return ExitStatus.OK
