"""``viacheck collect``: writes a bundle of this host without sending a packet, and lists what it could not collect."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from reports.report_files import BUNDLE, CAPTURES, LATEST
from reports.text import escape_unprintable
from viacheck import __version__
from viacheck.bundle.manifest import DEFAULT, MODES
from viacheck.bundle.recorded_commands import Recorded, of_agent
from viacheck.bundle.writer import STRICT_CAPTURES, Case, write_bundle
from viacheck.cli.command import opened
from viacheck.host.outer_host import require_access
from viacheck.installation import reports_folder
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.model.result import TargetRecord
from viacheck.model.site_agents import load_agents
from viacheck.private_folder import open_private_folder
from viacheck.targets.local import LocalSpec


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--site", type=Path, required=True, metavar="FILE", help="the site file")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(BUNDLE), metavar="FILE", help=f"the bundle (default: {BUNDLE})"
    )
    parser.add_argument("--redact", choices=MODES, default=DEFAULT, help=f"what is redacted (default: {DEFAULT})")
    parser.add_argument("--with-captures", action="store_true", help="add the captures of the latest run")


def run(options: argparse.Namespace) -> ExitStatus:
    """Write a bundle.

    Raises:
        UsageError: when the site file is wrong or the bundle cannot be written.
    """
    if options.with_captures and options.redact == "strict":
        raise UsageError(STRICT_CAPTURES)
    require_access(options.site)
    captures = _latest_captures() if options.with_captures else []
    records: dict[str, TargetRecord] = {}
    commands: list[Recorded] = []
    for agent, intent in load_agents(options.site).items():
        with opened(LocalSpec(intent, str(options.site), agent=agent)) as target:
            first = not records
            records[agent] = target.record()
            commands += of_agent(target.recorded, agent, with_host=first)
    case = Case(
        version=__version__, intents={agent: record.intent for agent, record in records.items()},
        snapshots={agent: record.snapshot for agent, record in records.items() if record.snapshot is not None},
        commands=commands, captures=captures,
    )  # fmt: skip
    try:
        written = write_bundle(options.output, case, options.redact)
    except OSError as error:
        raise UsageError(f"{options.output}: cannot be written: {error.strerror}") from None
    lines = [f"could not collect {line}" for line in written.could_not]
    if written.map_path is not None:
        lines.append(f"{written.map_path}: the original names; keep this file, do not send it")
    lines.append(f"{written.path}: redaction {options.redact}; nothing was sent, nothing changed")
    sys.stdout.writelines(escape_unprintable(line) + "\n" for line in lines)
    return ExitStatus.OK


def _latest_captures() -> list[Path]:
    """Return the captures of the latest run, which must be in a folder of this user's own.

    Raises:
        UsageError: when the folder belongs to another user, or is a link.
    """
    folder = (reports_folder() / LATEST).resolve() / CAPTURES
    try:
        os.close(open_private_folder(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"--with-captures: {folder}: {error.strerror}") from None
    return sorted(folder.glob("*.pcapng"))
