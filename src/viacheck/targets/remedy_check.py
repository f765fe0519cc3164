"""Mends that are proven before they are typed: a remedy is run in a lab like the broken one, and all is judged again.

A mend is proven when every check that its diagnosis accounts for is no longer bad and no other got worse. The undo is
proven as well: after mend and undo, the lab's state must equal what it was before.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from reports.report_files import read_outcome
from viacheck.diagnosis.codes import NO_MEND
from viacheck.installation import ROOT
from viacheck.model.diff import changes
from viacheck.model.intent import parse_intent
from viacheck.model.result import CheckResult, Outcome, Verdict
from viacheck.model.snapshot import Snapshot
from viacheck.model.snapshot_json import snapshot_json
from viacheck.targets.apply_script import ApplyFailed, Change, apply_script
from viacheck.targets.open_target import open_lab, target_of
from viacheck.targets.replica import replica_of
from viacheck.targets.specs import LabSpec, ReplicaSpec, parse_labs

TWIN = "twin:"
Key = tuple[str, str | None]
_CHOSEN_BY_ENGINE = re.compile(
    r"\bbr-[0-9a-f]{12}\b|\bveth[0-9a-f]{7}\b|\beth\d+\b|\bindex \d+|\bmac [0-9a-f:]{17}|\bfe80::[0-9a-f:]+\b"
    r"|, process \d+"
)
_OF_CARRIER = re.compile(r"\bNO-CARRIER,|\bLOWER_UP,| \['linkdown'\]")
_SEVERITY = {Verdict.ADVISORY: 1, Verdict.INCONCLUSIVE: 2, Verdict.FAIL: 3}


@dataclass(frozen=True, slots=True)
class RemedyTrial:
    """A remedy that is to be proven."""

    broken: LabSpec | ReplicaSpec
    code: str
    remedy: tuple[str, ...]
    undo: tuple[str, ...]

    @property
    def spec(self) -> LabSpec | ReplicaSpec:
        """The lab in which it is tried: the same, with the remedy run before the checks."""
        change = Change(f"mend of {self.code}", "\n".join(self.remedy))
        return replace(self.broken, changes=(change,), mend=self.code)

    def as_json(self) -> dict[str, Any]:
        """What :func:`read_remedies` makes the same mend of."""
        saved: dict[str, Any] = {"code": self.code, "remedy": self.remedy, "undo": self.undo}
        if isinstance(self.broken, LabSpec):
            return {**saved, "lab": self.broken.name}
        assert self.broken.snapshot is not None
        intent, snapshot = self.broken.intent.as_json(), snapshot_json(self.broken.snapshot)
        return {**saved, "twin": self.broken.host, "intent": intent, "snapshot": snapshot}


def verify_remedies(outcome: Outcome) -> None:
    """Try every remedy of an outcome's labs, and write into each diagnosis what came of it."""
    mends = list(dict.fromkeys(_mends(outcome)))
    mended = _judge_again(mends, {result.check for result in outcome.results}) if mends else None
    for mend in mends:
        assert mended is not None
        words = _compare(outcome, mended, mend)
        words += f"; {_undone(mend)}"
        for result in _accounted(outcome, mend):
            assert result.diagnosis is not None
            result.diagnosis.mend = words
    twins = {target.id for target in outcome.targets if target.id.startswith(TWIN)}
    for result in outcome.results:
        if result.diagnosis is None:
            continue
        if result.target in twins and _needs_engine(result.diagnosis.remedy):
            result.diagnosis.mend = "no mend to prove: it takes the host's Docker engine, and a twin has none"
        elif _needs_init(result.diagnosis.remedy):
            result.diagnosis.mend = "no mend to prove: it takes the host's init (systemctl), and a lab has none"
        elif not result.diagnosis.remedy:
            result.diagnosis.mend = f"no mend to prove: {NO_MEND.get(result.diagnosis.code, 'no command mends it')}"


def read_remedies(path: Path) -> list[LabSpec | ReplicaSpec]:
    """The labs and twins of a file that :func:`verify_remedies` has written for its second run."""
    return [RemedyTrial(_broken(one), one["code"], tuple(one["remedy"]), tuple(one["undo"])).spec
            for one in json.loads(path.read_text())]  # fmt: skip


def _broken(saved: dict[str, Any]) -> LabSpec | ReplicaSpec:
    if "lab" in saved:
        (lab,) = parse_labs(saved["lab"])
        return lab
    snapshot: Snapshot = TypeAdapter(Snapshot).validate_python(saved["snapshot"])
    return ReplicaSpec(saved["twin"], parse_intent(saved["intent"], source=saved["twin"]), snapshot)


def _needs_engine(commands: Sequence[str]) -> bool:
    """Whether commands ask the Docker engine; that a file which they write names it does not count."""
    words = [shlex.split(one) for one in commands]
    return any(one[:1] == ["docker"] or "$(docker" in one or {"systemctl", "docker"} <= set(one) for one in words)


def _needs_init(commands: Sequence[str]) -> bool:
    """Whether commands ask what runs a host's services."""
    return any(shlex.split(one)[:1] == ["systemctl"] for one in commands)


def _mends(outcome: Outcome) -> Iterator[RemedyTrial]:
    """The remedies to try. What works but will hurt is mended after what fails: a failure may stand in its way."""
    for target in outcome.targets:
        if target.kind != "lab":
            continue
        twin = replica_of(target, "this run") if target.id.startswith(TWIN) else None
        told = [
            result.diagnosis
            for verdict in (Verdict.FAIL, Verdict.ADVISORY)
            for result in outcome.results
            if result.target == target.id and result.verdict is verdict and result.diagnosis is not None
            if result.diagnosis.reported_by is None and result.diagnosis.remedy
            if not _needs_init(result.diagnosis.remedy)
            if twin is None or not _needs_engine(result.diagnosis.remedy)
        ]
        if not told:
            continue
        broken = twin or parse_labs(target.id.removeprefix("lab:"))[0]
        remedy: list[str] = []
        undo: list[str] = []
        for diagnosis in dict.fromkeys(one.code for one in told):
            first = next(one for one in told if one.code == diagnosis)
            remedy, undo = [*remedy, *first.remedy], [*first.undo, *undo]
            yield RemedyTrial(broken, diagnosis, tuple(remedy), tuple(undo))


def _judge_again(mends: list[RemedyTrial], checks: Iterable[str]) -> Outcome:
    """Judge every mended lab by the same checks, in a run of its own."""
    with tempfile.TemporaryDirectory(prefix="viacheck-mends-") as folder:
        file = Path(folder, "mends.json")
        file.write_text(json.dumps([mend.as_json() for mend in mends]))
        command = [sys.executable, "-P", "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
        command += ["-p", "no:cacheprovider", "-q", "--mends", str(file), "--report-dir", folder, str(ROOT / "checks")]
        command += ["-k", " or ".join(sorted(checks))]
        if len(mends) > 1 and (os.cpu_count() or 1) > 1:
            command += ["-n", "2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        result = Path(folder, "result.json")
        if not result.exists():
            raise ApplyFailed(f"the mended labs could not be judged: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return read_outcome(result)


def _accounted(outcome: Outcome, mend: RemedyTrial) -> list[CheckResult]:
    """The results that a mend's diagnosis accounts for."""
    return [
        result
        for result in outcome.results
        if result.target == mend.broken.id and result.diagnosis is not None and result.diagnosis.code == mend.code
    ]


def _compare(before: Outcome, after: Outcome, mend: RemedyTrial) -> str:
    old = _by_check(before, mend.broken.id)
    new = _by_check(after, mend.spec.id)
    wanted = {(result.check, result.case) for result in _accounted(before, mend)}
    if not new:
        return "mend not proven: the mended lab was not judged"
    if (reason := _unopened(after, mend)) is not None:
        return f"mend not proven: {reason}"
    changed = [key for key in old if key in new and old[key].verdict is not new[key].verdict]
    still = [key for key in wanted if key in new and _code(new[key]) == mend.code]
    broken = [key for key in changed if new[key].verdict.bad and _severity(new[key]) > _severity(old[key])]
    if still or broken:
        return "mend not proven: " + "; ".join(
            f"{' '.join(filter(None, key))} {new[key].verdict.value}: {new[key].observed}" for key in (*still, *broken)
        )
    mended = _in_words([key for key in changed if key in wanted], old, new)
    others = _in_words([key for key in changed if key not in wanted], old, new)
    left = {f"{key[0]} ({_code(new[key])})" for key in wanted if key in new and _code(new[key]) is not None}
    stays = f"; {', '.join(sorted(left))} has another cause" if left else ""
    return f"mend proven: {mended}, " + (f"and with it {others}" if others else "nothing else changed") + stays


def _unopened(after: Outcome, mend: RemedyTrial) -> str | None:
    """Why there was no mended lab to judge: a command of the remedy failed."""
    target = next(one for one in after.targets if one.id == mend.spec.id)
    return "; ".join(target.notes) if target.snapshot is None else None


def _code(result: CheckResult) -> str | None:
    return result.diagnosis.code if result.diagnosis is not None else None


def _severity(result: CheckResult) -> int:
    return _SEVERITY.get(result.verdict, 0)


def _in_words(keys: list[Key], old: dict[Key, CheckResult], new: dict[Key, CheckResult]) -> str:
    """Changes of verdicts, the cases of one check told together."""
    told: dict[tuple[str, str], list[str]] = {}
    for check, case in keys:
        change = f"{old[check, case].verdict.value} -> {new[check, case].verdict.value}"
        told.setdefault((check, change), []).extend([case] if case else [])
    return ", ".join(
        f"{check} {change}" if not cases else f"{check} ({', '.join(cases)}) {change}"
        for (check, change), cases in told.items()
    )


def _by_check(outcome: Outcome, target: str) -> dict[Key, CheckResult]:
    return {(result.check, result.case): result for result in outcome.results if result.target == target}


def _undone(mend: RemedyTrial) -> str:
    """Mend and undo in a lab of its own; says whether its state is then what it was."""
    lab = open_lab(mend.broken)
    target = target_of(mend.broken, lab)
    try:
        before = target.snapshot
        apply_script(lab, Change(f"mend of {mend.code}", "\n".join(mend.remedy)))
        apply_script(lab, Change(f"undo of {mend.code}", "\n".join(mend.undo)))
        found = changes(before, target.read_state())
        if lab.engine is not None:
            found = _but_for_names(found)
    except ApplyFailed as error:
        return f"undo not proven: {error}"
    finally:
        target.close()
    return "undo proven: the state is as before" if not found else f"undo not proven: {'; '.join(found)}"


def _but_for_names(changed: Iterable[str]) -> list[str]:
    """Changes without those that are but another name, number or address of what the engine has made anew.

    That an interface of its own has lost its carrier the kernel notices in its own time (linkwatch).
    """
    gone, new = Counter[str](), Counter[str]()
    for line in changed:
        bare = _CHOSEN_BY_ENGINE.sub("*", _OF_CARRIER.sub("", line[2:]))
        (gone if line.startswith("-") else new)[bare] += 1
    return [f"- {one}" for one in (gone - new).elements()] + [f"+ {one}" for one in (new - gone).elements()]
