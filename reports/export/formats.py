"""The formats of ``viacheck export``: for each the file's name, and the function that writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from viacheck.model.exit_status import UsageError
from viacheck.model.result import RunResult


@dataclass(frozen=True, slots=True)
class Format:
    """A format of another tool."""

    file: str
    """The name of its file in a report directory."""
    summary: str
    public: bool = False
    """Whether other users' programs read the file: a file of metrics is read by node_exporter's own user."""


FORMATS = {
    "markdown": Format("report.md", "text for a change ticket"),
    "sarif": Format("report.sarif", "SARIF 2.1.0, for code scanning"),
    "github": Format("github.txt", "workflow annotations of GitHub Actions"),
    "gitlab": Format("gl-code-quality.json", "GitLab's code quality report"),
    "openmetrics": Format("viacheck.prom", "metrics for node_exporter's textfile collector", public=True),
    "nagios": Format("nagios.txt", "the output of a Nagios plugin, with its exit status", public=True),
    "tap": Format("results.tap", "the Test Anything Protocol, version 13"),
}


def export(outcome: RunResult, name: str) -> str:
    """Return a result in a format of :data:`FORMATS`."""
    write: Callable[[RunResult], str] = import_module(f"reports.export.{name}").write
    return write(outcome)


def formats_named(text: str, option: str) -> list[str]:
    """Return the formats of a list with commas.

    Raises:
        UsageError: a format is not known.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"{option}: unknown format {name!r}; allowed: {', '.join(FORMATS)}")
    return names
