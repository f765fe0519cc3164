"""What a command and its helpers use: processor time and memory, without the processes that its ssh starts.

An ssh of the bench starts an sshd on this machine, by its ProxyCommand; what that does belongs to the judged host.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from viacheck.bench.figures import BenchFailed

SAMPLE_SECONDS = 0.25
TIMEOUT = 3600.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessTreeUse:
    """What a command used."""

    seconds: float
    """From its start to its end."""
    cpu_seconds: float
    peak_bytes: int
    """The greatest sum of the processes' memory, in which a page that several share counts once."""


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    start: str
    name: str
    parent: int
    ticks: int


def measured(argv: Sequence[str], folder: Path, *, env: Mapping[str, str], accepted: Sequence[int]) -> ProcessTreeUse:
    """Run a command to its end.

    Args:
        argv: the command.
        folder: where it runs; its output goes to ``output.txt`` there.
        env: further environment variables.
        accepted: its good exit statuses.

    Raises:
        BenchFailed: it ends with another status, or not within an hour.
    """
    ticks: dict[tuple[int, str], int] = {}
    peak, begin = 0, time.perf_counter()
    log = folder / "output.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, cwd=folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            while time.perf_counter() - begin < TIMEOUT:
                tree = list(_tree(process.pid))
                ticks.update({(member.pid, member.start): member.ticks for member in tree})
                peak = max(peak, sum(_memory(member.pid) for member in tree))
                try:
                    process.wait(SAMPLE_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    seconds = time.perf_counter() - begin
    if process.returncode not in accepted:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise BenchFailed(f"{argv[0]}: exit {process.returncode}: {lines[-1]}")
    return ProcessTreeUse(seconds, sum(ticks.values()) / _TICKS, peak)


def _tree(root: int) -> Iterator[_Process]:
    """Yield a process with its descendants, but not what an ssh has started."""
    children: dict[int, list[_Process]] = {}
    for process in _processes():
        children.setdefault(process.parent, []).append(process)
        if process.pid == root:
            yield process
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            yield child
            if child.name != "ssh":
                waiting.append(child.pid)


def _processes() -> Iterator[_Process]:
    """Yield every process of this machine, by proc(5)."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            text = Path("/proc", name, "stat").read_text(errors="replace")
        except OSError:
            continue
        # The name stands in parentheses, and may hold any character.
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        yield _Process(int(name), fields[19], head.partition("(")[2], int(fields[1]), int(fields[11]) + int(fields[12]))


def _memory(pid: int) -> int:
    """Return the bytes of a process' proportional set size; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
