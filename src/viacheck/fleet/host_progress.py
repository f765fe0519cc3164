"""Prints a line for each host as it ends; at a terminal, a bar below the lines shows how far the run is."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from reports.text import clip, escape_unprintable, one_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from viacheck.fleet.fleet_run import HostDone

SENTENCE_SHOWN = 100
"""Characters of a host's sentence."""
STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "not-run": "magenta"}


class HostProgress:
    """The lines of the hosts that are finished, and the bar."""

    def __init__(self, total: int, output: TextIO) -> None:
        """Draw a bar only where ``output`` is a terminal that can move its cursor."""
        self._total, self._output = total, output
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._bar = _bar(total, output) if output.isatty() else None

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        """Take the bar away; the lines stay."""
        if self._bar is not None:
            self._bar.stop()

    def add(self, host: HostDone) -> None:
        """Print the line of a host."""
        with self._lock:
            self._counts[host.verdict] += 1
            number = f"[{self._counts.total()}/{self._total}] "
            rest = escape_unprintable(f" {host.name}: {clip(one_line(host.sentence), SENTENCE_SHOWN)}")
            if self._bar is None:
                self._output.write(f"{number}{host.verdict:<13}{rest}\n")
                self._output.flush()
            else:
                self._draw(self._bar, number, host.verdict, rest)

    def _draw(self, bar: Progress, number: str, verdict: str, rest: str) -> None:
        from rich.text import Text

        # A Text is not read as rich's markup: names of hosts are data.
        line = Text.assemble(number, (f"{verdict:<13}", STYLES.get(verdict, "")), rest)
        bar.console.print(line, soft_wrap=True, highlight=False)
        counts = ", ".join(f"{count} {name}" for name, count in self._counts.items())
        bar.update(bar.task_ids[0], completed=self._counts.total(), counts=counts)


def _bar(total: int, output: TextIO) -> Progress | None:
    """Return the bar; None for a terminal that cannot move its cursor."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=output)
    if console.is_dumb_terminal:
        return None
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("hosts"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    bar.add_task("", total=total, counts="")
    return bar
