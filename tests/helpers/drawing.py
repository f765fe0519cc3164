"""The drawing of a report's first target, as lines between named boxes."""

from __future__ import annotations

from reports.egress_summary import egress_summary
from reports.topology import topology
from tests.helpers.front_door import Finished


def drawn_lines(done: Finished) -> dict[tuple[str, str], str]:
    """Return the kind of each line, by the names of its boxes; the probes' line where the answers have one as well."""
    target = done.outcome.targets[0]
    results = [result for result in done.outcome.results if result.target == target.id]
    drawn = topology(target, egress_summary(target, results), results)
    assert drawn is not None
    lines = [((drawn.nodes[start].name, drawn.nodes[end].name), kind) for start, end, kind in drawn.edges]
    return dict(reversed(lines))
