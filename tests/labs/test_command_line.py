"""The command line as a whole: help, version, unknown words, paths, and what of the caller's environment is ignored."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.bundles import members_of, packed
from tests.helpers.front_door import VIACHECK, by_check, finished, sub_command, viacheck
from tests.helpers.paths import ROOT
from viacheck import __version__
from viacheck.cli.main import CHECKOUT_COMMANDS, COMMANDS
from viacheck.installation import CHECKS
from viacheck.model.verdict import Verdict

HEAVY = ("scapy", "pyroute2", "docker", "jinja2", "pytest", "testinfra", "xdist")
ONE_SCREEN = 45
"""Lines."""


def test_help_is_one_screen_that_names_every_command() -> None:
    done = sub_command("--help", env={"COLUMNS": "100"})
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) <= ONE_SCREEN
    for name in (*COMMANDS, *CHECKOUT_COMMANDS, "--local", "--bundle", "viacheck run --help"):
        assert name in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_the_help_of_a_run_shows_our_options_and_pytests() -> None:
    done = sub_command("run", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: viacheck ")
    for option in ("--local", "--allow-disruptive", "-k EXPRESSION", "--strict"):
        assert option in done.stdout
    assert done.stdout.index("--allow-disruptive") < done.stdout.index("--durations"), "ours come behind 'general'"


@pytest.mark.parametrize("argument", ["--version", "-V", "version"])
def test_version(argument: str) -> None:
    done = sub_command(argument)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"viacheck {__version__}\n", "")


def test_help_is_a_word_too() -> None:
    assert sub_command("help").stdout == sub_command("--help").stdout


@pytest.mark.parametrize("arguments", [("site", "schema"), ("--version",), ("site", "--help"), ("--lab", "list")])
def test_output_that_cannot_be_written_is_one_line(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*VIACHECK, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "viacheck: the output cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("arguments", ["nosuch", "site check nowhere.toml", "--lab nosuch"])
def test_an_error_that_cannot_be_written_leaves_its_exit_status(arguments: str) -> None:
    with open("/dev/full", "w") as full:
        assert subprocess.run([*VIACHECK, *arguments.split()], stderr=full, check=False).returncode == 4


@pytest.mark.parametrize(
    ("redirection", "arguments", "status"),
    [(">&-", "--version", 0), (">&-", "nosuch", 4), ("<&- >&- 2>&-", "--lab nat -k HOST-02 --report-dir report", 0)],
)
def test_streams_may_be_closed(redirection: str, arguments: str, status: int, tmp_path: Path) -> None:
    command = f"exec {shlex.join(VIACHECK)} {arguments} {redirection}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [*COMMANDS, *CHECKOUT_COMMANDS])
def test_every_command_has_help(name: str) -> None:
    done = sub_command(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: viacheck {name}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("exlain", "--lab", "nat"), "viacheck: unknown command 'exlain'; did you mean explain? "),
        (("colect-script",), "viacheck: unknown command 'colect-script'; did you mean collect-script? "),
        (("\x1b[31m",), "viacheck: unknown command '\\x1b[31m'; allowed: run, "),
        (("explain", "--lab", "nat"), "viacheck explain: the following arguments are required: --to"),
        (("explain", "--lab", "nat", "--too", "x"), "viacheck explain: unknown option '--too', did you mean --to? ("),
        (("export", "x", "--fromat", "tap"), "viacheck export: unknown option '--fromat', did you mean --format? ("),
        (("site", "inti"), "viacheck site: argument schema|init|check: invalid choice: 'inti' (choose from "),
        (("diff", "a.json", "b.json", "c.json"), "viacheck diff: unknown argument 'c.json' ("),
        (("collect", "--site", "nowhere.toml"), "viacheck collect: nowhere.toml: cannot be read: No such file"),
        (("explain", "--bundle", "nowhere", "--to", "203.0.113.9"), "viacheck explain: nowhere: cannot be read: "),
        (("report", "nowhere.json"), "viacheck report: nowhere.json: cannot be read: No such file or directory"),
        (("fleet",), "viacheck fleet: the following arguments are required: run|report"),
        (("shell",), "viacheck shell: the following arguments are required: LAB\n"),
        (("site",), "viacheck site: the following arguments are required: schema|init|check"),
        (("--lab", "nat", "--reprt-dir=x"), "ERROR: unknown option '--reprt-dir', did you mean --report-dir? ("),
        (("run", "--locl"), "ERROR: unknown option '--locl', did you mean --local? ("),
        (("--lab", "nat", "--survives"), "ERROR: --survives: expected one argument ("),
        (("--lab", "nat", "-n", "foo"), "ERROR: -n/--numprocesses: invalid value: 'foo' ("),
        (("--lab", "nat", "nosuch.py"), "ERROR: file or directory not found: nosuch.py"),
        (
            ("--lab", "nat", "-k", "("),
            "ERROR: -k '(': expected not OR left parenthesis OR identifier; got end of input",
        ),
        (("site", "init", "--forse"), "viacheck site init: unknown option '--forse', did you mean --force? ("),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = sub_command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert done.stderr.startswith(message)
    assert done.stderr.rstrip("\n").count("\n") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_mistyped_word_of_a_command_gets_the_nearest() -> None:
    assert sub_command("site", "inti").stderr.endswith("; did you mean init?\n")
    assert sub_command("fleet", "rnu").stderr.endswith("; did you mean run?\n")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (("-m", "viacheck", "--lba", "nat"), "ERROR: unknown option '--lba', did you mean --lab? ('viacheck run "),
        (("-m", "viacheck", "colect"), "viacheck: unknown command 'colect'; did you mean collect? "),
        (("-m", "pytest", str(CHECKS), "--lba=nat"), "ERROR: unknown option '--lba', did you mean --lab? ('pytest "),
        (("-m", "pytest", str(CHECKS), "--redact", "x"), "ERROR: argument --redact: invalid choice: 'x' "),
    ],
)
def test_python_and_plain_pytest_say_it_in_one_line_too(start: tuple[str, ...], message: str) -> None:
    done = subprocess.run([sys.executable, *start], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(message)
    assert done.stderr.rstrip("\n").count("\n") == 0


def test_several_mistakes_in_a_site_file_are_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("schema = 2\n[hots]\n")
    done = sub_command("collect", "--site", "site.toml", cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert done.returncode == 4
    assert len(lines) > 1
    assert all(line.startswith("viacheck collect: site.toml: ") for line in lines)


def test_a_reader_that_ends_early_is_no_error_message() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -n 1', "sh", *VIACHECK, "--lab", "list"], capture_output=True, text=True
    )
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


def test_run_is_the_same_as_no_command(tmp_path: Path) -> None:
    collect = ("--lab", "nat", "--collect-only", "-q")
    named, unnamed = sub_command("run", *collect, cwd=tmp_path), sub_command(*collect, cwd=tmp_path)
    assert named.returncode == unnamed.returncode == 0
    tests = [line for line in named.stdout.splitlines() if "::" in line]
    assert tests == [line for line in unnamed.stdout.splitlines() if "::" in line]
    assert len(tests) > 40


def test_the_command_is_recorded_as_it_was_typed(tmp_path: Path) -> None:
    typed = ("run", "--lab", "nat", str(ROOT / "checks" / "test_nat.py"), "--report-dir", "a report")
    sub_command(*typed, cwd=tmp_path)
    run = json.loads((tmp_path / "a report" / "result.json").read_text())["run"]
    assert run["command"] == shlex.join(["./viacheck", *typed])


def test_a_named_check_is_run_alone(tmp_path: Path) -> None:
    arguments = ("--lab", "policy-routing", "--collect-only", "-q")
    file = ROOT / "checks" / "test_nat.py"
    tests = [line for line in sub_command(*arguments, file, cwd=tmp_path).stdout.splitlines() if "::" in line]
    assert {line.partition("::")[0] for line in tests} == {"checks/test_nat.py"}
    name = tests[0].partition("::")[2]
    alone = sub_command(*arguments, f"{file}::{name}", cwd=tmp_path).stdout.splitlines()
    assert [line for line in alone if "::" in line] == [tests[0]]


@pytest.mark.parametrize("arguments", [("--lab", "list"), ("--lab=list",), ("run", "-q", "--lab", "list")])
def test_the_list_of_labs_needs_no_pytest_and_equals_the_plugins(arguments: tuple[str, ...]) -> None:
    done = sub_command(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    by_plugin = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "checks", "--lab", "list"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == by_plugin.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--lab", "list"], ["--version"], ["--help"], ["explain", "--bundle", "case.tar.gz", "--to", "203.0.113.9"]],
    ids=lambda arguments: arguments[0],
)
def test_a_quick_command_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    if "explain" in arguments:
        (tmp_path / "case.tar.gz").write_bytes(packed(members_of("policy-routing")))
    code = (
        "import sys\nfrom viacheck.cli.main import main\n"
        "try:\n    status = main(sys.argv[1:])\nexcept SystemExit as ended:\n    status = ended.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print('\\n' + repr([status or 0, loaded]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[0, []]"


def test_the_callers_settings_of_python_and_pytest_are_ignored(tmp_path: Path) -> None:
    """In the process itself, and in pytest-xdist's workers."""
    trap = "import os\nos.abort()\n"
    for name in ("trap.py", "json.py", "sitecustomize.py", "conftest.py", "pytest.py"):
        (tmp_path / name).write_text(trap)
    caller = {
        "PYTEST_ADDOPTS": "--no-such-option", "PYTEST_PLUGINS": "trap", "PYTHONPATH": str(tmp_path),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "LD_PRELOAD": "/nowhere/trap.so",
        "PYTHONSTARTUP": str(tmp_path / "trap.py"),
    }  # fmt: skip
    # A value of an option that exists as a path: pytest would import the conftest.py beside it.
    report = tmp_path / "report"
    report.mkdir()
    argv = [*VIACHECK, "--lab", "nat,policy-routing", "-k", "EGRESS-01", "-n", "2", "--report-dir", str(report)]
    done = finished(argv, report, cwd=tmp_path, env=caller)
    assert done.exit_code == 0, done.said
    # The dynamic loader reads LD_PRELOAD before any Python: it complains once, in the process that the caller started.
    assert done.stderr.count("/nowhere/trap.so") <= 1, done.stderr


def test_the_installed_scripts_path_ignores_pythonpath(tmp_path: Path) -> None:
    """A console script is not isolated by its interpreter: the folders of PYTHONPATH are dropped before the checks."""
    code = (
        "import sys, json; from viacheck.cli.main import ignore_callers_settings as f; f(); print(json.dumps(sys.path))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{tmp_path}:{tmp_path / 'other'}"},
    )  # fmt: skip
    assert not [entry for entry in json.loads(done.stdout) if entry.startswith(str(tmp_path))]


def test_the_command_line_demands_what_must_be_survived(tmp_path: Path) -> None:
    demand = ("--lab", "nat", "--survives", "link-flap,reboot", "-k", "FLAP-01 or FLAP-06 or FLAP-08 or FLAP-10", "-q")
    done = viacheck(*demand, report_dir=tmp_path / "report")
    assert done.exit_code == 1
    results = {check: result for check, (result,) in by_check(done.outcome, "lab:nat").items()}
    verdicts = {check: result.verdict for check, result in results.items()}
    # The lab's route was typed by hand, so no reboot is tried; no packet can leak where there is one uplink.
    assert verdicts == {
        "FLAP-01": Verdict.FAIL, "FLAP-06": Verdict.NOT_APPLICABLE, "FLAP-08": Verdict.INCONCLUSIVE,
        "FLAP-10": Verdict.NOT_RUN,
    }  # fmt: skip
    assert results["FLAP-10"].observed == "skipped: --survives device-change tries it", "a lab has no site file"
    assert (
        "decide: what sets rule and route again when eth0 comes up: their lines in the files of a network"
        in done.stdout
    )
    assert "leave link-flap out of egress.survives" in done.stdout, "what fails says what can be done"
