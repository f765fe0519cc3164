"""The page of a fleet: a line for each host, the matrix of hosts and checks, the diagnoses, the outliers.

A cell of the matrix is one character, so that 500 hosts fit into 3 MB; the details are on each host's own page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import quote

from reports import document
from reports.fleet_report import HOST_VERDICTS, HostSummary, cause_groups, matrix_columns, outliers
from viacheck.model.chapters import chapter
from viacheck.model.verdict import Verdict

SIGNS = {
    Verdict.PASS: "\u2713",
    Verdict.FAIL: "\u2717",
    Verdict.ADVISORY: "\u25b3",
    Verdict.INCONCLUSIVE: "?",
    Verdict.NOT_RUN: "\u25cb",
}
"""The character of each verdict: its shape alone distinguishes it."""
HOSTS_NAMED = 20
"""Hosts that a diagnosis names; the matrix has all."""


def render_fleet(hosts: Sequence[HostSummary], now: datetime, notes: Sequence[str] = ()) -> str:
    """Render the page of the hosts, which are in the order of the page.

    Args:
        hosts: the hosts, worst first.
        now: the time by which ages are counted, with its offset.
        notes: lines about the run as a whole.
    """
    columns = matrix_columns(hosts)
    chapters = {name: [c for c in columns if chapter(c) == name] for name in dict.fromkeys(map(chapter, columns))}
    counts = Counter(host.verdict for host in hosts)
    environment = document.environment()
    environment.filters.update(href=_href)
    return environment.get_template("fleet.html").render(
        hosts=hosts,
        notes=notes,
        verdict=next((word for word in HOST_VERDICTS if counts[word]), "inconclusive"),
        counts=[(word, counts[word]) for word in HOST_VERDICTS if counts[word]],
        chapters=chapters,
        columns=columns,
        signs=SIGNS,
        groups=cause_groups(hosts),
        outliers=outliers(hosts),
        age=lambda host: age_text(host.finished, now),
        named=HOSTS_NAMED,
        now=now.isoformat(timespec="seconds"),
        **document.style(),
    )


def age_text(finished: str, now: datetime) -> str:
    """Return the age of a result in its largest unit; empty when its time is not known."""
    try:
        age = now - datetime.fromisoformat(finished)
    except (ValueError, TypeError):
        return ""
    if age < timedelta(minutes=2):
        return f"{max(int(age.total_seconds()), 0)} s"
    if age < timedelta(hours=2):
        return f"{age // timedelta(minutes=1)} min"
    return f"{age // timedelta(hours=1)} h" if age < timedelta(days=2) else f"{age.days} days"


def _href(path: str) -> str:
    """Return a relative path as the value of an href: ``./`` in front keeps a name with a colon from being a scheme."""
    return "./" + quote(path.encode(errors="surrogateescape"))
