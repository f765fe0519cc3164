"""``viacheck watch``: a flight recorder for the fault that comes at night. It changes nothing on the host."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reports.text import escape_unprintable
from viacheck import __version__
from viacheck.bundle.manifest import DEFAULT, MODES
from viacheck.cli.command import CommandFailed, named_folder, opened
from viacheck.ending_signals import ending_signals
from viacheck.host.link_monitors import FLIGHT_RECORDER
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.model.intent_values import seconds
from viacheck.model.site_agents import SOLE_AGENT, agent_chosen, load_agents, named
from viacheck.private_folder import make_writable_folder

if TYPE_CHECKING:
    from viacheck.flight_recorder.flight_start import FlightStart
    from viacheck.flight_recorder.record_file import RecordFile
    from viacheck.flight_recorder.recording import Recording
    from viacheck.targets.namespace_target import NamespaceTarget
    from viacheck.targets.specs import TargetSpec

STATE = Path("/var/lib/viacheck/watch")
REPORTS = "report"
DISK, MOST_DISK = 32, 4096
"""MiB of a record."""
INTERVAL, LONGEST_INTERVAL = 60.0, "1h"
TIME, LONGEST_TIME = 24 * 3600.0, "400d"
SHORTEST = "100ms"


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.epilog = (
        "The record goes to a folder of bounded size; a recorder that is started again goes on with it. SIGTERM, "
        "SIGINT and SIGHUP end it with a report. docs/watch.md has a systemd unit."
    )
    parser.add_argument(
        "--site", type=Path, metavar="FILE", help="watch this host, by its site file; with --lab blank, its lab"
    )
    parser.add_argument("--lab", metavar="LAB", help="watch a lab, to try the recorder")
    parser.add_argument("--report", type=Path, metavar="DIR", help="only make the report of the record in this folder")
    parser.add_argument("--agent", metavar="NAME", help="of several agents in the site file, this one")
    parser.add_argument("--for", dest="time", type=_time, default=TIME, metavar="TIME", help="how long (default: 24h)")
    parser.add_argument(
        "--interval", type=_interval, default=INTERVAL, metavar="TIME",
        help="from one round of probes to the next (default: 60s)",
    )  # fmt: skip
    parser.add_argument(
        "--state-dir",
        type=named_folder,
        metavar="DIR",
        help=f"the folder of the record (default: {STATE}/NAME OF THE SITE)",
    )
    parser.add_argument(
        "--report-dir",
        type=named_folder,
        metavar="DIR",
        help=f"where the report goes (default: {REPORTS}/ in the state folder)",
    )
    parser.add_argument(
        "--disk", type=_disk, default=DISK, metavar="MIB", help=f"the limit of the record in MiB (default: {DISK})"
    )
    parser.add_argument(
        "--redact", choices=MODES, default=DEFAULT, help=f"redaction of the bundle (default: {DEFAULT})"
    )


def run(options: argparse.Namespace) -> ExitStatus:
    """Record, and make the report.

    Raises:
        UsageError: the site file, the lab or a folder is wrong, the agent is not there, or a capability is missing.
        CommandFailed: the target cannot be watched.
    """
    from reports.report_page import page_template
    from viacheck.cli.flight_report import write_flight_report
    from viacheck.flight_recorder.flight_start import read_start

    # The report is made hours later, when an upgrade may have replaced these files.
    page_template()
    if options.report is not None:
        if options.site is not None or options.lab is not None:
            raise UsageError("--report excludes --site and --lab: the record says what was watched")
        start = read_start(options.report)
        if start is None:
            raise UsageError(f"{options.report}: holds no record of viacheck watch")
        _prepare_report(options.report_dir)
        return write_flight_report(
            options.report, start, options.report_dir or options.report / REPORTS, options.redact
        )
    spec = _spec(options)
    name = named(spec.intent.site.name, options.agent or "")
    folder: Path = options.state_dir or STATE / re.sub(r"[^A-Za-z0-9._-]", "_", name)
    _prepare_report(options.report_dir)
    with _record(folder, options.disk) as record:
        start = _watch(spec, folder, record, options)
        return write_flight_report(folder, start, options.report_dir or folder / REPORTS, options.redact)


def _spec(options: argparse.Namespace) -> TargetSpec:
    from viacheck.host.outer_host import require_access
    from viacheck.targets.local import LocalSpec

    if options.lab is None:
        if options.site is None:
            raise UsageError("needs --site FILE, --lab LAB or --report DIR")
        require_access(options.site)
        intents = load_agents(options.site)
        chosen = agent_chosen(intents, options.agent, str(options.site))
        return LocalSpec(intents[chosen], str(options.site), agent=chosen)
    from netns_lab.lab_specs import parse_labs
    from viacheck.host.user_namespace import enter_user_namespace_if_needed

    labs = parse_labs(options.lab, options.site, options.agent)
    if len(labs) != 1:
        raise UsageError(f"--lab: watch takes one lab, not {len(labs)}")
    if options.state_dir is None:
        raise UsageError("--lab needs --state-dir DIR for its record")
    enter_user_namespace_if_needed()
    return labs[0]


def _prepare_report(folder: Path | None) -> None:
    """Refuse a folder that cannot be written to before hours are watched for its report."""
    if folder is None:
        return
    try:
        make_writable_folder(folder)
    except OSError as error:
        raise UsageError(
            f"--report-dir: {error.filename or folder}: {error.strerror}; name a directory that can be written"
        ) from None


@contextlib.contextmanager
def _record(folder: Path, mebibytes: int) -> Iterator[RecordFile]:
    from viacheck.flight_recorder.record_file import RecordFile, RecordInUse

    try:
        record = RecordFile(folder, mebibytes << 20)
    except RecordInUse as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        root = "; a watch needs root" if error.errno == errno.EACCES and os.geteuid() != 0 else ""
        raise UsageError(f"--state-dir: {error.filename or folder}: {error.strerror}{root}") from None
    with contextlib.closing(record):
        yield record


def _watch(spec: TargetSpec, folder: Path, record: RecordFile, options: argparse.Namespace) -> FlightStart:
    """Record until the time is up or a signal comes; return how the recording began."""
    from viacheck.flight_recorder.flight_start import read_start, save_start
    from viacheck.flight_recorder.recording import Recording
    from viacheck.targets.namespace_target import NamespaceTarget

    earlier = read_start(folder)
    last_ns = _last_line(folder) if earlier is not None else None
    if earlier is not None and last_ns is not None and earlier.target.intent != spec.intent.as_json():
        raise UsageError(
            f"{folder}: holds an unfinished record of another site file; "
            f"'viacheck watch --report {shlex.quote(str(folder))}' reports it, then remove the folder"
        )
    if options.lab is None:
        # A lab's process acts on link changes in the name of the lab's own link monitor.
        Path("/proc/self/comm").write_text(FLIGHT_RECORDER, encoding="ascii")
    with opened(spec) as target:
        assert isinstance(target, NamespaceTarget)
        if target.missing_capability is not None:
            raise UsageError(f"a watch needs {target.missing_capability}")
        snapshot = target.snapshot
        if target.agent is None:
            problem = snapshot.problem("agent") or snapshot.problem("container") or snapshot.problem("engine")
            table = f"agents.{options.agent}" if options.agent else "agent"
            key = "container" if spec.intent.agent.container is not None else "netns"
            reason = problem.reason if problem is not None else f"{spec.intent.agent.name}: cannot be opened"
            raise UsageError(f"{table}.{key}: {reason}; a watch begins when its agent is there")
        resumed = earlier is not None and last_ns is not None
        recording = Recording(target, record, interval=options.interval, say=_say)
        with _ended_by_signals(recording):
            try:
                recording.open()
                now = time.time_ns()
                if earlier is not None and resumed:
                    start, entry = earlier, {"t": now, "kind": "resume", "since": last_ns}
                else:
                    record.clear()
                    start, entry = _start(target, recording, now, options), {"t": now, "kind": "start"}
                    save_start(folder, start)
                _announce(spec, target, start, folder, resumed=resumed)
            except OSError as error:
                raise UsageError(f"cannot begin to watch: {error.strerror or error}") from None
            try:
                recording.run(entry, start.until_ns)
            except OSError as error:
                raise CommandFailed(f"cannot watch: {error.strerror or error}") from None
        return start


def _last_line(folder: Path) -> int | None:
    """Return the time of the last line of a record that has not ended; None for one that has, or has no line."""
    from viacheck.cli.flight_report import readable
    from viacheck.flight_recorder.record_file import read_entries

    last = None
    with readable(folder):
        for entry in read_entries(folder):
            last = entry
    return None if last is None or last["kind"] == "end" else int(last["t"])


def _start(target: NamespaceTarget, recording: Recording, now: int, options: argparse.Namespace) -> FlightStart:
    from viacheck.bundle.recorded_commands import of_agent
    from viacheck.flight_recorder.flight_start import FlightStart

    return FlightStart(
        id=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(2),
        version=__version__,
        command=shlex.join(["viacheck", *sys.argv[1:]]),
        target=target.record(),
        agent=options.agent or SOLE_AGENT,
        commands=of_agent(target.recorded, options.agent or SOLE_AGENT),
        started_ns=now,
        until_ns=now + int(options.time * 1e9),
        interval=options.interval,
        uplink=recording.plan.uplink,
        interfaces=list(recording.plan.interfaces),
        classes=[each.text for each in recording.plan.classes],
        remarks=recording.remarks,
        not_counted=recording.not_counted,
    )


def _announce(spec: TargetSpec, target: NamespaceTarget, start: FlightStart, folder: Path, *, resumed: bool) -> None:
    left = max((start.until_ns - time.time_ns()) / 1e9, 0)
    _say(f"{'goes on' if resumed else 'begins'}: {spec.name}, {left:,.0f} s left, record in {folder}")
    _say(
        f"each {start.interval:g} s and when the way changes: one probe from the agent for each of "
        f"{len(start.classes)} classes of traffic, and a frame to itself on every interface that is watched"
    )
    for line in (
        *start.remarks,
        *(f"packets on {name} are not counted: {why}" for name, why in start.not_counted.items()),
    ):
        _say(line)
    if target.kind == "lab":
        _say(f"a shell on the lab's host: nsenter --net={target.host.path}")


def _ended_by_signals(recording: Recording) -> contextlib.AbstractContextManager[None]:
    return ending_signals(lambda number, _frame: recording.end(signal.Signals(number).name))


def _say(line: str) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    sys.stdout.write(f"{now} viacheck watch: {escape_unprintable(line)}\n")
    sys.stdout.flush()


def _seconds(text: str, longest: str) -> float:
    is_time = re.fullmatch(r"[0-9]+(\.[0-9]+)?(ms|s|m|h|d)", text) is not None
    if not is_time or not seconds(SHORTEST) <= seconds(text) <= seconds(longest):
        limits = f"{SHORTEST} to {longest}"
        raise argparse.ArgumentTypeError(
            f"invalid time {text!r}; allowed: {limits}, a number with its unit: 30s, 5m, 24h, 7d"
        )
    return seconds(text)


def _time(text: str) -> float:
    return _seconds(text, LONGEST_TIME)


def _interval(text: str) -> float:
    return _seconds(text, LONGEST_INTERVAL)


def _disk(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_DISK:
        raise argparse.ArgumentTypeError(f"invalid size {text!r}; allowed: 1 to {MOST_DISK}")
    return int(text)
