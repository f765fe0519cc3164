"""Causes in the network managers' files: a rule or route that is in none of them, or a line that cannot run twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.routing.identity import SameTuple
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.remedy import remedy_of
from viacheck.model.check_evidence import FileEvidence, StateEvidence
from viacheck.model.config_entry import WrittenRoute, WrittenRule
from viacheck.model.measurements import Measurements, ReplayResult
from viacheck.persistence import crontabs
from viacheck.persistence.assess import Persistence, assess_persistence, boot_files_of, must_persist
from viacheck.persistence.config_writer import PRIVATE, Recipe, config_change, recipe_for
from viacheck.persistence.file_edit import Edit, in_diffs, new_file, replace_line
from viacheck.persistence.finding import Finding
from viacheck.persistence.lint import findings_of, replay_findings
from viacheck.persistence.manager_config import OWN_NAMES
from viacheck.persistence.unordered_rules import UnorderedRule, unordered_rules

_ALSO_AFFECTS = {
    "NOT_PERSISTENT": frozenset({"FLAP-03", "FLAP-08", "FLAP-09", "FLAP-11", "FLAP-12"}),
    "NOT_IDEMPOTENT": frozenset({"FLAP-03"}),
    "RULES_ACCUMULATE": frozenset({"FLAP-03"}),
    "RULE_LOST": frozenset({"FLAP-03"}),
    "ROUTE_NOT_RESTORED": frozenset({"FLAP-03", "FLAP-08"}),
    "TABLE_NAME_MISSING": frozenset({"FLAP-03", "FLAP-08", "FLAP-09"}),
    "FOREIGN_RULES_PURGED": frozenset({"FLAP-09", "FLAP-12"}),
    "LEAK_WHILE_DOWN": frozenset({"FLAP-06"}),
}
"""By diagnosis code, the checks whose event shows the cause."""


def not_written_down(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the files of the uplink's manager do not contain the rule or the route."""
    recipe = recipe_for(resolved) if must_persist(resolved.intent) else None
    if recipe is None:
        return
    persistence = assess_persistence(resolved)
    if persistence.holds and not persistence.at_boot_only:
        return
    if persistence.holds and persistence.manager is None:
        yield Cause(
            "NOT_PERSISTENT", "PERSIST-01",
            f"{_at_boot(resolved, persistence)}; a script of networkd-dispatcher, or a manager's own file, does both",
            decision=f"choose what sets the route again when {resolved.uplink} comes up",
        )  # fmt: skip
        return
    if persistence.manager is None:
        yield Cause(
            "NOT_PERSISTENT", "PERSIST-01",
            f"{persistence.missing[0]}, so nothing sets rule and route again after a reboot; configure both in a "
            'manager of the uplink, or set egress.persist = "none" if they are typed by hand on purpose',
        )  # fmt: skip
        return
    kept = {type(entry) for entry in persistence.elsewhere if entry.place not in persistence.at_boot_only}
    recipe = replace(
        recipe, with_rule=not persistence.rules and WrittenRule not in kept,
        with_route=not persistence.routes and WrittenRoute not in kept,
    )  # fmt: skip
    if persistence.holds:
        recipe = replace(recipe, with_rule=False)
    shadowing = _shadowing(resolved, persistence, recipe)
    beside = [rule.edit for rule in shadowing if rule.edit is not None]
    change = config_change(persistence.manager, resolved, recipe, persistence.link, beside)
    enable = persistence.unit.edits if persistence.unit is not None else ()
    where = f" ({persistence.link.place} names {resolved.uplink})" if persistence.link is not None else ""
    later = "" if persistence.unit and len(persistence.missing) == 1 else " and after the interface's next change"
    needed = StateEvidence(
        title=f"what {OWN_NAMES[persistence.manager]} needs, in {change.path}", lines=change.text.splitlines()
    )
    yield Cause(
        "NOT_PERSISTENT", "PERSIST-01",
        _at_boot(resolved, persistence) if persistence.holds
        else f"{'; '.join(persistence.missing)}{where}: lost after a reboot{later}{_shadowing_text(shadowing)}",
        remedy_of((*enable, *change.edits), change.reload, change.reload_after_rollback),
        _ALSO_AFFECTS["NOT_PERSISTENT"],
        (
            *((needed,) if change.text else ()),
            *_stanza(persistence),
            *(
                FileEvidence(path=place.path, line=place.line, text=f"{place.text}\n({reason})")
                for place, reason in persistence.ineffective
            ),
        ),
        decision=change.decision or _left_to_a_person(recipe, shadowing),
    )  # fmt: skip


def _shadowing(resolved: ResolvedIntent, persistence: Persistence, recipe: Recipe) -> list[UnorderedRule]:
    """Return the lines whose rules the kernel would put before the rules that the remedy writes."""
    if not recipe.with_rule:
        return []
    boot = boot_files_of(SameTuple(resolved.snapshot.files)).entries
    entries = [entry for config in persistence.configs.values() for entry in config.rules]
    return list(unordered_rules(resolved, [*entries, *boot["boot"], *boot["interface"]], recipe.rules))


def _shadowing_text(shadowing: Sequence[UnorderedRule]) -> str:
    if not shadowing:
        return ""
    places = ", ".join(str(rule.place) for rule in shadowing)
    return f". {places} adds a rule without a priority, which the kernel would put before the added one"


def _left_to_a_person(recipe: Recipe, shadowing: Sequence[UnorderedRule]) -> str | None:
    """Say what a person must change where a line does more than add such a rule."""
    places = ", ".join(str(rule.place) for rule in shadowing if rule.edit is None)
    return f"give the rule of {places} a priority above {recipe.priority}" if places else None


def _stanza(persistence: Persistence) -> Iterator[FileEvidence]:
    """Yield the place in the files that is about the uplink, where the lines are missing."""
    if persistence.link is not None:
        place = persistence.link.place
        yield FileEvidence(path=place.path, line=place.line, text=place.text)


def _at_boot(resolved: ResolvedIntent, persistence: Persistence) -> str:
    """Say that the route comes back at boot, but not with its interface."""
    places = ", ".join(map(str, persistence.at_boot_only))
    kept = "so a reboot keeps it"
    if any(crontabs.is_crontab(place.path) for place in persistence.at_boot_only):
        kept = f"and cron waits for no interface: a reboot keeps it only if {resolved.uplink} has its address by then"
    return (
        f"{places} sets the route at boot, {kept}; the kernel removes it when {resolved.uplink} goes down, and nothing "
        "sets it again when it comes up"
    )


def cannot_run_twice(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find lines that fail, or add a second entry, when they run again; one cause for each code."""
    recipe = recipe_for(resolved) if must_persist(resolved.intent) else None
    if recipe is None:
        return
    persistence = assess_persistence(resolved)
    findings = findings_of(resolved, persistence)
    if isinstance(measurements.replay, ReplayResult) and not any(finding.breaks for finding in findings):
        # A line that reads wrong already explains what the replay has shown.
        findings = [*replay_findings(measurements.replay, persistence, recipe), *findings]
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    for code, same_code in by_code.items():
        edits = in_diffs(resolved.snapshot, (edit for finding in same_code for edit in _edits(resolved, finding)))
        reload = tuple(dict.fromkeys(command for finding in same_code for command in finding.reload))
        yield Cause(
            code, "PERSIST-02", "; ".join(map(str, same_code)), remedy_of(edits, reload),
            _ALSO_AFFECTS.get(code, frozenset()),
            tuple(
                StateEvidence(title=_title(finding), lines=finding.replacement.splitlines())
                for finding in same_code
                if finding.replacement
            ),
        )  # fmt: skip


def _title(finding: Finding) -> str:
    return f"to be written in {finding.file}" if finding.file else f"instead of {finding.place}"


def _edits(resolved: ResolvedIntent, finding: Finding) -> Iterator[Edit]:
    """Return the edit that corrects a finding; a line that continues on the next is left to a person."""
    path, number = finding.place.path, finding.place.line
    if finding.file:
        mode = PRIVATE if finding.file.endswith(".yaml") else "644"
        yield new_file(resolved.snapshot, finding.file, finding.replacement.rstrip("\n") + "\n", mode)
        return
    file = resolved.snapshot.file(path)
    lines = file.text.split("\n") if file is not None else []
    if not finding.replacement or number > len(lines) or not finding.by_line:
        return
    old = lines[number - 1]
    if old.endswith("\\"):
        return
    indent = old[: len(old) - len(old.lstrip())]
    yield replace_line(path, number, "\n".join(indent + line for line in finding.replacement.split("\n")))
