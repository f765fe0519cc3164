"""Workers that are forked from a run are workers of execnet like any other, and end with the run."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers.paths import ROOT

WITHIN = 60.0
PROGRAM = f"""\
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "src")!r}]
import execnet
from tests.helpers.forked_test_workers import fork_workers

ASK = '''
import os, signal, sys
channel.send((os.getpid(), os.getppid(), "scapy.layers.inet" in sys.modules, len(os.listdir("/proc/self/fd"))))
'''
fork_workers(2)
group = execnet.Group(execmodel="main_thread_only")
for _ in range(3):
    print(*group.makegateway("popen//execmodel=main_thread_only").remote_exec(ASK).receive(WITHIN), flush=True)
if sys.stdin.readline():
    group.terminate(WITHIN)
print("ended", flush=True)
""".replace("WITHIN", str(WITHIN))


@pytest.fixture
def run() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def started(run: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """Read what the workers say; return the process of each, and a descriptor of it."""
    assert run.stdout is not None
    said = [run.stdout.readline().split() for _ in range(3)]
    assert [parent for _pid, parent, *_ in said] == [str(run.pid)] * 3
    # The third was not asked for beforehand: it is a new Python.
    assert [imported for *_, imported, _descriptors in said] == ["True", "True", "False"]
    # No worker holds another one's pipe.
    assert len({descriptors for *_, descriptors in said[:2]}) == 1
    return [(int(pid), os.pidfd_open(int(pid))) for pid, *_ in said]


def test_forked_workers_end_when_they_are_told_to(run: subprocess.Popen[str]) -> None:
    workers = started(run)
    out, _ = run.communicate("end\n", timeout=WITHIN)
    assert (out, run.returncode) == ("ended\n", 0)
    assert all(select.select([end], [], [], 0)[0] for _pid, end in workers)


def test_forked_workers_end_with_a_run_that_is_killed(run: subprocess.Popen[str]) -> None:
    workers = started(run)
    run.send_signal(signal.SIGKILL)
    for _pid, end in workers:
        assert select.select([end], [], [], WITHIN)[0], "a worker outlives its run"


def test_workers_of_tests_have_the_test_modules() -> None:
    program = f"""\
import sys
from pathlib import Path
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "src")!r}]
import execnet
from tests.helpers.forked_test_workers import fork_test_workers

fork_test_workers(1, Path({str(ROOT)!r}, "tests", "vm"))
group = execnet.Group(execmodel="main_thread_only")
ask = "import sys; channel.send('tests.vm.test_other_kernels' in sys.modules)"
for _ in range(2):
    print(group.makegateway("popen//execmodel=main_thread_only").remote_exec(ask).receive({WITHIN}))
group.terminate({WITHIN})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # The second was not asked for beforehand.
    assert done.stdout.split() == ["True", "False"]
