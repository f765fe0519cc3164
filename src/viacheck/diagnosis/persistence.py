"""Causes that lie in what is written down: nothing at all, or something that cannot run twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause, command
from viacheck.model.measurements import Measurements, ReplayResult
from viacheck.model.result import FileEvidence, StateEvidence
from viacheck.persistence.allowlist import LEFT_OUT
from viacheck.persistence.assess import assess_persistence, must_persist
from viacheck.persistence.config_writer import PRIVATE, commented, recipe_for, replaced, stanza, written_file
from viacheck.persistence.finding import Finding
from viacheck.persistence.lint import findings_of, seen
from viacheck.persistence.manager_config import OWN_NAMES

_SHOWN_BY = {
    "NOT_PERSISTENT": frozenset({"FLAP-03", "FLAP-08", "FLAP-09"}),
    "NOT_IDEMPOTENT": frozenset({"FLAP-03"}),
    "RULES_ACCUMULATE": frozenset({"FLAP-03"}),
    "RULE_LOST": frozenset({"FLAP-03"}),
    "ROUTE_NOT_RESTORED": frozenset({"FLAP-03", "FLAP-08"}),
    "TABLE_NAME_MISSING": frozenset({"FLAP-03", "FLAP-08", "FLAP-09"}),
    "FOREIGN_RULES_PURGED": frozenset({"FLAP-09"}),
    "LEAK_WHILE_DOWN": frozenset({"FLAP-06"}),
}
"""By diagnosis, the checks that see it happen."""


def not_written_down(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Rule or route is written down nowhere for whatever manages the uplink."""
    recipe = recipe_for(resolved) if must_persist(resolved.intent) else None
    if recipe is None:
        return
    persistence = assess_persistence(resolved)
    if persistence.holds:
        return
    evidence = [
        FileEvidence(path=place.path, line=place.line, text=f"{place.text}\n({reason})")
        for place, reason in persistence.astray
    ]
    if persistence.manager is None:
        yield Cause(
            "NOT_PERSISTENT", "PERSIST-01",
            f"{persistence.missing[0]}, so nothing brings rule and route back after a reboot; whoever is to manage it "
            "must have both, or egress.persist = \"none\" says that they are typed by hand on purpose",
        )  # fmt: skip
        return
    recipe = replace(recipe, with_rule=not persistence.rules, with_route=not persistence.routes)
    written = stanza(persistence.manager, resolved, recipe, persistence.holding)
    where = f" ({persistence.holding.place} names {resolved.uplink})" if persistence.holding is not None else ""
    yield Cause(
        "NOT_PERSISTENT", "PERSIST-01",
        f"{'; '.join(persistence.missing)}{where}: gone after a reboot, and after the interface's next change",
        remedy=written.remedy, undo=written.undo, explains=_SHOWN_BY["NOT_PERSISTENT"],
        evidence=(
            StateEvidence(
                title=f"what {OWN_NAMES[persistence.manager]} needs, in {written.path}", lines=written.text.splitlines()
            ),
            *evidence,
        ),
    )  # fmt: skip


def cannot_run_twice(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """What is written down fails, or adds up, when it is run again; one cause for each code."""
    recipe = recipe_for(resolved) if must_persist(resolved.intent) else None
    if recipe is None:
        return
    persistence = assess_persistence(resolved)
    found = findings_of(resolved, persistence)
    if isinstance(measurements.replay, ReplayResult) and not any(finding.breaks for finding in found):
        # Where a line reads wrong, that is what running it has shown.
        found = [*seen(measurements.replay, persistence, recipe), *found]
    by_code: dict[str, list[Finding]] = {}
    for finding in found:
        by_code.setdefault(finding.code, []).append(finding)
    for code, findings in by_code.items():
        # The later lines first: the earlier ones keep their numbers.
        ordered = sorted(findings, key=lambda finding: (finding.place.path, -finding.place.line))
        mends = [mend for finding in ordered for mend in _mend(resolved, finding)]
        then = tuple(dict.fromkeys(command for finding in findings for command in finding.then))
        yield Cause(
            code, "PERSIST-02", "; ".join(map(str, findings)),
            explains=_SHOWN_BY.get(code, frozenset()),
            remedy=(*(remedy for remedy, _undo in mends), *then),
            undo=(*(undo for _remedy, undo in reversed(mends)), *then),
            evidence=tuple(
                StateEvidence(title=_to_write(finding), lines=finding.replacement.splitlines())
                for finding in findings
                if finding.replacement
            ),
        )  # fmt: skip


def _to_write(finding: Finding) -> str:
    return f"to be written in {finding.file}" if finding.file else f"instead of {finding.place}"


def _mend(resolved: ResolvedIntent, finding: Finding) -> Iterator[tuple[str, str]]:
    """The command that writes what a finding asks for, and the one that takes it back.

    A line that a file goes on with in the next is for an editor.
    """
    path, number = finding.place.path, finding.place.line
    if finding.file:
        mode = PRIVATE if finding.file.endswith(".yaml") else "644"
        text = finding.replacement.rstrip("\n") + "\n"
        yield written_file(finding.file, text, mode), command("rm", finding.file)
        return
    file = resolved.snapshot.file(path)
    lines = file.text.split("\n") if file is not None else []
    if not finding.replacement or number > len(lines) or not finding.by_line:
        return
    old = lines[number - 1]
    if old.endswith("\\"):
        return
    indent = old[: len(old) - len(old.lstrip())]
    new = "\n".join(indent + line for line in finding.replacement.split("\n"))
    # Of a line of which parts were left out of the snapshot nobody could write the old text again.
    yield commented(path, number, new) if LEFT_OUT in old else replaced(path, number, old, new)
