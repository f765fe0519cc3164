"""``viacheck fleet``: checks many hosts, and makes one report of their results."""

from __future__ import annotations

import argparse
import datetime
import getpass
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reports.text import clip, counted, escape_unprintable, one_line
from viacheck.atomic_file import write_file
from viacheck.cli.command import CommandFailed, named_folder
from viacheck.installation import reports_folder
from viacheck.model.exit_status import STATUS_BY_SIGNAL, ExitStatus, UsageError
from viacheck.private_folder import FILE_MODE, make_private_folder

if TYPE_CHECKING:
    from reports.fleet_report import HostSummary
    from viacheck.fleet.fleet_run import Judge
    from viacheck.fleet.remote_host import SSHConnections

SENTENCE_SHOWN = 100
PARALLEL, MOST_PARALLEL = 20, 500
HOST_SECONDS = 300


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the sub-commands and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="run|report")
    report = actions.add_parser("report", help="make one report of results that are there")
    report.add_argument("folder", type=Path, metavar="DIR", help="the folder of the results: */result.json, NAME.json")
    run_ = actions.add_parser("run", help="check many hosts over OpenSSH, and make one report")
    run_.add_argument(
        "--inventory", type=Path, required=True, metavar="FILE",
        help="the hosts: a list of names, an ssh_config, an inventory of Ansible (INI, YAML) or of Nornir",
    )  # fmt: skip
    sites = run_.add_mutually_exclusive_group(required=True)
    sites.add_argument("--sites", type=Path, metavar="DIR", help="the site files: DIR/NAME.toml for each host")
    sites.add_argument(
        "--site-template",
        type=Path,
        metavar="FILE",
        help="a Jinja2 template of the site file, with the inventory's variables",
    )
    run_.add_argument("--limit", metavar="PATTERN[,...]", help="only hosts or groups of these names (shell patterns)")
    run_.add_argument(
        "-P", "--parallel", type=_number_of_hosts, default=PARALLEL, metavar="N", help=f"hosts at once ({PARALLEL})"
    )
    run_.add_argument("-k", dest="select", metavar="EXPRESSION", help="only checks that match, as pytest's -k")
    run_.add_argument("--report-dir", type=named_folder, metavar="DIR", help="where the results and the report go")
    run_.add_argument("--resume", action="store_true", help="judge only hosts that have no result in --report-dir yet")
    run_.add_argument(
        "--collect-only", action="store_true",
        help="run only the collect script on the hosts (no Python, no packets), and judge its bundles here",
    )  # fmt: skip
    run_.add_argument("--pack", type=Path, metavar="FILE", help="the file of 'viacheck pack' (default: packed now)")
    run_.add_argument("--ssh-config", type=Path, metavar="FILE", help="the ssh_config (default: the user's own)")
    run_.add_argument(
        "--host-timeout", type=_seconds, default=HOST_SECONDS, metavar="SECONDS",
        help=f"how long a host may take ({HOST_SECONDS})",
    )  # fmt: skip
    run_.add_argument("--ask-become-pass", action="store_true", help="ask once for the password of sudo")


def _number_of_hosts(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_PARALLEL:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST_PARALLEL}")
    return int(text)


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 10 <= int(text) <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 10 to 86400")
    return int(text)


def run(options: argparse.Namespace) -> ExitStatus:
    """Make the report, after a run over the hosts if that is asked for; return FAILED when a host is not good.

    Raises:
        UsageError: an input is wrong, or the report cannot be written.
        CommandFailed: the file for the hosts cannot be packed.
    """
    return report_of(options.folder) if options.action == "report" else _run_fleet(options)


def report_of(
    folder: Path, notes: Sequence[str] = (), known: Mapping[Path, Sequence[HostSummary]] | None = None
) -> ExitStatus:
    """Write the report of all results below a folder, and print a line for each host that is not good.

    ``known`` are hosts whose results are not read again, by the path of the result.

    Raises:
        UsageError: when there is no result, or the report cannot be written.
    """
    from reports.fleet_page import render_fleet
    from reports.fleet_report import INDEX, summarise

    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a directory")
    hosts = summarise(folder, known=known)
    if not hosts:
        raise UsageError(f"{folder}: holds no result (*/result.json, or NAME.json)")
    index = folder / INDEX
    try:
        write_file(index, render_fleet(hosts, datetime.datetime.now().astimezone(), notes), mode=FILE_MODE)
    except OSError as error:
        raise UsageError(f"{index}: cannot be written: {error.strerror}") from None
    sys.stdout.writelines(f"{escape_unprintable(line)}\n" for line in fleet_summary(hosts, notes))
    sys.stdout.write(f"report: {escape_unprintable(str(index))}\n")
    return ExitStatus.OK if all(host.verdict == "pass" for host in hosts) else ExitStatus.FAILED


def fleet_summary(hosts: Sequence[HostSummary], notes: Sequence[str] = ()) -> list[str]:
    """Return the lines of the console: hosts that are not good, then the diagnoses."""
    from reports.fleet_report import cause_groups

    good = sum(host.verdict == "pass" for host in hosts)
    lines = [
        f"{host.verdict:<13} {host.name}: {clip(one_line(host.sentence), SENTENCE_SHOWN)}"
        for host in hosts
        if host.verdict != "pass"
    ]
    lines += [f"{group.code} on {counted(len(group.hosts), 'host')} ({group.verdict})" for group in cause_groups(hosts)]
    return [*lines, *notes, f"{good} of {counted(len(hosts), 'host')} pass"]


def _run_fleet(options: argparse.Namespace) -> ExitStatus:
    from viacheck.fleet.fleet_run import FleetRun, judged_before, result_path
    from viacheck.fleet.host_progress import HostProgress
    from viacheck.fleet.inventory import read_inventory
    from viacheck.fleet.remote_host import SSHConnections
    from viacheck.fleet.site_files import site_files

    if options.resume and options.report_dir is None:
        raise UsageError("--resume: needs the --report-dir of the run that it continues")
    if options.collect_only and options.pack is not None:
        raise UsageError("--pack: with --collect-only nothing but the collect script is run on a host")
    hosts = read_inventory(options.inventory, options.limit)
    folder = options.report_dir or _new_folder()
    known: dict[Path, Sequence[HostSummary]] = {}
    if options.resume:
        done_before = judged_before(folder, hosts)
        known |= {result_path(folder, name): rows for name, rows in done_before.items()}
        hosts = [host for host in hosts if host.name not in done_before]
        _say(f"{counted(len(done_before), 'host')} judged before, {counted(len(hosts), 'host')} to judge")
    sites = site_files(hosts, options.sites, options.site_template)
    interrupted, unwritten = None, list[str]()
    if hosts:
        password = getpass.getpass("sudo password: ") if options.ask_become_pass else None
        connections = SSHConnections(options.ssh_config, password)
        judge = _judge(options, connections)
        try:
            make_private_folder(folder)
        except OSError as error:
            raise UsageError(f"--report-dir: {error.filename or folder}: {error.strerror}") from None
        with HostProgress(len(hosts), sys.stdout) as progress:
            fleet = FleetRun(folder, sites, judge, connections, progress.add)
            interrupted, unwritten = fleet.run(hosts, options.parallel), fleet.unwritten
        known |= fleet.hosts
    notes = (
        [f"This run was interrupted by {interrupted}: hosts that are not-run were not judged."] if interrupted else []
    )
    status = report_of(folder, [*notes, *unwritten], known)
    if interrupted:
        return STATUS_BY_SIGNAL[interrupted]
    return ExitStatus.FAILED if unwritten else status


def _judge(options: argparse.Namespace, connections: SSHConnections) -> Judge:
    """Return the way in which the hosts are judged: by viacheck on each host, or by its bundle here."""
    from viacheck.fleet.pack import digest_of
    from viacheck.fleet.remote_bundle import BundleJudge
    from viacheck.fleet.remote_host import RemoteCollection, RemoteProgram, judge

    selection = ("-k", options.select) if options.select else ()
    if options.collect_only:
        return BundleJudge(RemoteCollection(seconds=options.host_timeout), connections, selection)
    packed = _packed(options.pack)
    program = RemoteProgram(
        packed=packed, digest=digest_of(packed), options=("-q", *selection), seconds=options.host_timeout
    )
    return lambda host, site, _folder: judge(host, site, program, connections)


def _new_folder() -> Path:
    moment = datetime.datetime.now(datetime.UTC)
    return reports_folder() / f"fleet-{moment:%Y%m%dT%H%M%SZ}"


def _packed(path: Path | None) -> bytes:
    """Return the file for the hosts: the named file, or one that is packed now for every Python and processor.

    Raises:
        UsageError: the named file cannot be used.
        CommandFailed: it cannot be packed.
    """
    from viacheck.fleet.pack import PLATFORMS, PackFailed, build, digest_of
    from viacheck.user_file import read_file

    try:
        if path is None:
            _say("packing viacheck for the hosts; --pack names a file of 'viacheck pack' instead")
            return build(PLATFORMS)
        packed = read_file(path)
        digest_of(packed)
    except OSError as error:
        raise UsageError(f"--pack: {path}: {error.strerror}") from None
    except PackFailed as error:
        if path is None:
            raise CommandFailed(str(error)) from None
        raise UsageError(f"--pack: {path}: {error}") from None
    return packed


def _say(line: str) -> None:
    sys.stdout.write(f"{escape_unprintable(line)}\n")
    sys.stdout.flush()
