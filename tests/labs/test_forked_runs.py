"""A run that is forked from the tests' server gives what a run in a new Python gives, and is a process like it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.forked_runs import ENVIRONMENT, PythonRun, run_anew, run_python, server
from tests.helpers.front_door import VIACHECK, command
from tests.helpers.hand_made import HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.paths import ROOT

Runner = Callable[..., subprocess.CompletedProcess[str]]
RUNNERS: tuple[Runner, Runner] = (run_anew, run_python)
ASIDE = re.compile(
    r"={3,}| \(\d:\d\d:\d\d\)|\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b|\d{8}T\d{6}Z-[0-9a-f]{4}|\d+(\.\d+)?(e-\d+)?"
)
"""What differs between any two runs: how long they took, the lines that pytest draws on both sides of it, MAC
addresses, the run's name, times and numbers."""
STATE = """\
import gc, json, os, resource, signal, sys, threading

from viacheck.packets import scapy_import

def test_state():
    assert scapy_import.IP, "the import of scapy adds a finder of modules"
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
    state = {
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "folder": os.getcwd(),
        "arguments": (sys.argv, sys.orig_argv),
        "options": (str(sys.flags), sys.pycache_prefix, sys.dont_write_bytecode),
        "imports from": (sys.path, [getattr(finder, "__name__", str(type(finder))) for finder in sys.meta_path]),
        "signals": [(name, status[name].strip()) for name in ("SigBlk", "SigIgn", "SigCgt")],
        "handlers": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "descriptors": {fd: os.path.exists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}")
                        for fd in os.listdir("/proc/self/fd")},
        "groups": (os.getpgid(0), os.getsid(0)),
        "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in os.listdir("/proc/self/ns")},
        "limits": [resource.getrlimit(kind) for kind in range(16)],
        "threads": (threading.active_count(), status["Threads"]),
        "program": (sys.modules["__main__"].__spec__.name, __name__),
        "memory is freed": gc.isenabled(),
    }
    print("STATE", json.dumps(state))
    assert int(status["PPid"]) > 1
"""


@pytest.fixture(scope="module")
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as made:
        apply_the_guides_recipe(made)
        yield made


def _aside(match: re.Match[str]) -> str:
    return "" if match[0].startswith(" (") else "#"


def _shape(folder: Path, done: subprocess.CompletedProcess[str]) -> tuple[Any, ...]:
    """Return all that a run leaves, without what differs between any two runs."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    result = folder / "result.json"
    document = json.loads(result.read_text()) if result.exists() else {"results": [], "targets": []}
    for of_check in document["results"]:
        # In which order frames are seen differs, too.
        of_check["evidence"] = [evidence["kind"] for evidence in of_check["evidence"]]
    for target in document["targets"]:
        snapshot = target["snapshot"]
        for space in ("host", "agent"):
            # The kernel adds IPv6 addresses and routes in its own time, and remembers neighbours of the first run.
            snapshot[space] = [snapshot[space]["rules"], snapshot[space]["sysctls"], sorted(snapshot[space])]
    texts = [done.stdout, done.stderr, json.dumps(document)]
    return done.returncode, files, *(ASIDE.sub(_aside, text.replace(str(folder), "REPORT")) for text in texts)


def _assert_alike(arguments: tuple[str, ...], status: int, folder: Path, host: HandMadeHost | None = None) -> None:
    shapes = []
    for runner in RUNNERS:
        report = folder / runner.__name__
        argv = _argv(arguments, report)
        done = runner(argv if host is None else host.inside(*argv), cwd=folder, env=None, timeout=300)
        assert done.returncode == status, done.stdout + done.stderr
        shapes.append(_shape(report, done))
    anew, forked = shapes
    for of_anew, of_forked in zip(anew, forked, strict=True):
        assert of_forked == of_anew


def _argv(arguments: tuple[str, ...], report: Path) -> list[str]:
    if arguments[0] == "explain":
        return [*VIACHECK, *arguments]
    return command(*arguments, "--report-dir", str(report))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--lab", "policy-routing+rule-missing", "-k", "HOST or ROUTE"), 1),
        (("--lab", "nat,nat-multihomed", "-q", "-n", "2", "-k", "NAT or HOST-02"), 0),
        (("--lab", "nosuch"), 4),
        (("explain", "--lab", "nat", "--to", "203.0.113.9"), 0),
    ],
    ids=["a fault", "workers", "a usage error", "a sub-command"],
)
def test_a_forked_run_gives_what_a_new_python_gives(arguments: tuple[str, ...], status: int, tmp_path: Path) -> None:
    _assert_alike(arguments, status, tmp_path)


def test_a_forked_run_inside_a_host_gives_what_a_new_python_gives(host: HandMadeHost, tmp_path: Path) -> None:
    words = ("--local", "--site", str(write_site(tmp_path)), "-k", "HOST or ROUTE")
    _assert_alike(words, 0, tmp_path, host)


@pytest.mark.parametrize("inside", [False, True], ids=["on this host", "inside a host"])
def test_a_forked_run_is_a_process_like_a_new_python(inside: bool, host: HandMadeHost, tmp_path: Path) -> None:
    file = tmp_path / "test_state.py"
    file.write_text(STATE)
    argv = [str(file) if word == str(ROOT / "checks") else word for word in command("-s")]
    states = []
    for runner in RUNNERS:
        done = runner(host.inside(*argv) if inside else argv, cwd=tmp_path, env={"COLUMNS": "77"}, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = (line for line in done.stdout.splitlines() if "STATE " in line)
        state = json.loads(line.partition("STATE ")[2])
        # A forked run also holds the socket at which it asks the server for workers.
        state["descriptors"] = {
            fd: re.sub(r"\d+", "#", path)
            for fd, path in state["descriptors"].items()
            if path and not path.startswith("socket:")
        }
        states.append(state)
    anew, forked = states
    for name in anew:
        assert forked[name] == anew[name], name


def test_what_a_new_python_would_read_at_its_start_is_not_forked(tmp_path: Path) -> None:
    environment = dict(ENVIRONMENT)
    assert server().serves({**environment, "COLUMNS": "77"})
    assert not server().serves({**environment, "PYTHONPATH": str(tmp_path)})
    assert not server().serves({name: value for name, value in environment.items() if name != "PATH"})


def test_only_a_python_that_starts_a_run_is_forked() -> None:
    run = command("--lab", "nat")
    assert PythonRun.of(run) == PythonRun("-P", "pytest", run[4:])
    assert PythonRun.of([*VIACHECK, "diff"]) == PythonRun("-I", "viacheck.cli.main", ["diff"])
    entered = PythonRun("-I", "viacheck.cli.main", [], {"net": "/proc/7/ns/net", "mnt": "/x"})
    assert PythonRun.of(["nsenter", "--target", "7", "--net", "--mount=/x", *VIACHECK]) == entered
    for other in (["setpriv", *VIACHECK], [sys.executable, "-c", "pass"], ["sh"], [sys.executable, "-m", "pytest"]):
        assert PythonRun.of(other) is None, other


def test_threads_that_ask_at_once_share_one_server() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from tests.helpers import forked_runs
barrier = Barrier(4)
def ask(_number):
    barrier.wait()
    return forked_runs.server()
with ThreadPoolExecutor(4) as pool:
    assert len({id(server) for server in pool.map(ask, range(4))}) == 1
assert len(forked_runs._own) == 1
forked_runs.end_servers()
"""
    outside = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("PYTEST_XDIST")}
    outside["PYTHONPATH"] = str(ROOT)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=outside, check=True, timeout=120)
