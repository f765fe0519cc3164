"""What a saved result shows of each bad check, as text: of a run in CI a person has the log alone.

Run as ``python -m tests.helpers.evidence_text RESULT.json``, in the folder of the checkout.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from reports.report_files import ResultUnreadable, read_outcome
from reports.text import escape_unprintable
from reports.timeline import timeline
from viacheck.model.check_evidence import TimelineEvidence
from viacheck.model.result import CheckResult, RunResult

LARGEST = 100_000
"""Characters of a text."""
MOST_TARGETS = 4
"""A run over more targets is shared by many tests, each of which shows the results that it is about."""


def evidence_text(outcome: RunResult) -> str:
    """Return every bad result with its whole evidence, the targets' notes before them."""
    lines = [f"{target.id}: {target.verdict}: {note}" for target in outcome.targets for note in target.notes]
    for result in outcome.results:
        if result.verdict.bad and result.waiver is None:
            lines += evidence_lines(result)
    text = "\n".join(escape_unprintable(line, keep="\t") for line in lines)
    return text if len(text) <= LARGEST else f"{text[:LARGEST]}\n[{len(text) - LARGEST:,} characters left out]"


def sections(results: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield a section for pytest's report of a failed test: the evidence of each run that the test made.

    Args:
        results: paths of result.json; a run that ended early left none, and a test may have made it unreadable.
    """
    for path in results:
        with contextlib.suppress(ResultUnreadable):
            outcome = read_outcome(path)
            if len(outcome.targets) <= MOST_TARGETS and (text := evidence_text(outcome)):
                yield f"what {path} shows of bad checks", text


def evidence_lines(result: CheckResult) -> Iterator[str]:
    """Yield a result with its evidence, a line for each stretch of a timeline."""
    case = f" ({result.case})" if result.case else ""
    yield f"{result.check}{case} of {result.target}: {result.verdict}, {result.seconds:.1f} s"
    for name in ("expected", "observed", "diagnosis"):
        yield f"  {name}: {getattr(result, name)}"
    for evidence in result.evidence:
        if isinstance(evidence, TimelineEvidence):
            yield f"  timeline: {evidence.title}: {'; '.join(evidence.figures)}; unproven: {evidence.unproven}"
            for one in timeline(evidence).stretches:
                yield f"    {one.when} ms  {one.kind_text}, {one.lane}: {one.description}"
        else:
            yield f"  {evidence.kind}: {evidence.model_dump_json(exclude_defaults=True)}"


if __name__ == "__main__":
    sys.stdout.write(f"{evidence_text(read_outcome(Path(sys.argv[1])))}\n")
