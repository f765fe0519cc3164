"""``./viacheck collect``: writes a bundle of this host without sending a packet, and says what it could not collect."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from fixtures.recorder import BUNDLE, CAPTURES, own_version
from reports.text import escape_unprintable
from viacheck.bundle.manifest import DEFAULT, MODES
from viacheck.bundle.recorded_commands import Recorded
from viacheck.bundle.writer import STRICT_CAPTURES, Case, write_bundle
from viacheck.installation import reports_folder
from viacheck.model.intent import IntentError, load_intent
from viacheck.targets.open_target import open_target
from viacheck.targets.specs import LocalSpec

USAGE_ERROR = 4
LATEST_CAPTURES = reports_folder() / "latest" / CAPTURES


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"viacheck collect: {escape_unprintable(message)}\n")


def main(argv: list[str]) -> int:
    """Write a bundle; returns 0, or 4 for a wrong site file or a place that cannot be written."""
    parser = _Arguments(prog="./viacheck collect", description="Write a bundle of this host; no packet is sent.")
    parser.add_argument("--site", type=Path, required=True, help="the intent file")
    parser.add_argument("-o", "--output", type=Path, default=Path(BUNDLE), help=f"the bundle (default: {BUNDLE})")
    parser.add_argument("--redact", choices=MODES, default=DEFAULT, help="what is blackened (default: secrets)")
    parser.add_argument("--with-captures", action="store_true", help="add the captures of the latest run")
    options = parser.parse_args(argv)
    if options.with_captures and options.redact == "strict":
        parser.error(STRICT_CAPTURES)
    try:
        intent = load_intent(options.site)
    except IntentError as error:
        parser.exit(USAGE_ERROR, "".join(f"viacheck collect: {escape_unprintable(one)}\n" for one in error.mistakes))
    target = open_target(LocalSpec(intent, str(options.site)))
    try:
        record = target.record()
        assert record.snapshot is not None, "a live host has a snapshot"
        case = Case(
            version=own_version(), intent=record.intent, snapshot=record.snapshot,
            commands=list(map(Recorded.of, target.recorded)),
            captures=sorted(LATEST_CAPTURES.glob("*.pcapng")) if options.with_captures else (),
        )  # fmt: skip
        written = write_bundle(options.output, case, options.redact)
    except OSError as error:
        parser.error(f"{options.output}: cannot be written: {error.strerror}")
    finally:
        target.close()
    for line in written.could_not:
        sys.stdout.write(escape_unprintable(f"could not collect {line}") + "\n")
    if written.map_path is not None:
        sys.stdout.write(
            escape_unprintable(f"{written.map_path}: what was renamed to what; keep it, do not send it") + "\n"
        )
    sys.stdout.write(
        escape_unprintable(f"{written.path}: redaction {options.redact}; nothing was sent, nothing changed") + "\n"
    )
    return 0
