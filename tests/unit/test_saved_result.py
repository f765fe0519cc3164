"""A result of a stranger is refused in one line, or shown by every report: no value in it ends a reader."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.console import summary
from reports.export.formats import FORMATS, export
from reports.fleet_report import cause_groups, outliers, summaries
from reports.junit import junit
from reports.report_page import render
from tests.helpers.paths import RECORDED
from tests.helpers.sample_outcomes import SAMPLES
from viacheck.model.result import RunResult
from viacheck.model.saved_result import MOST_TARGETS, MOST_VALUES, ResultRefused, read_result

NAME = "x\x1b]8;;javascript:a\x07\x9b31m\r\u202e\x00'\"><img src=x onerror=alert(9)></script><script>\n::error::y\n"
VALUES: tuple[Any, ...] = (
    NAME, None, True, -1, 0, 10**40, 1e308, float("nan"), float("inf"), "", "1e5", "300.1.2.3/99", "\ud83d", [], {},
    [None], {"x": 1}, [{}], {NAME: {}},
)  # fmt: skip
SAVED = (
    *(json.loads((RECORDED / f"result-{name}.json").read_text()) for name in ("rule-missing", "unproven")),
    json.loads(SAMPLES["mixed"]().model_dump_json(by_alias=True)),
)


def shown(outcome: RunResult) -> Iterator[tuple[str, str]]:
    """A result in each form in which a person or a program gets it."""
    yield "page", render(outcome)
    yield "console", summary(outcome, None, colour=False, width=80)
    yield "junit", junit(outcome)
    yield from ((name, export(outcome, name)) for name in FORMATS)


@given(st.data())
@settings(max_examples=25)
def test_any_value_in_a_result_is_refused_or_shown_harmlessly(data: st.DataObject) -> None:
    document = json.loads(json.dumps(data.draw(st.sampled_from(SAVED))))
    for _ in range(data.draw(st.integers(1, 3))):
        # Any depth is as likely as another: most places are deep in the evidence.
        here: Any = document
        path = data.draw(st.integers(1, 8))
        for step in range(path):
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if step == path - 1 or not isinstance(here[key], dict | list) or not here[key]:
                here[key] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
                break
            here = here[key]
    try:
        outcome = read_result(json.dumps(document).encode())
    except ResultRefused as error:
        lines = str(error).splitlines()
    else:
        lines = ["read"]
        harmless(outcome)
    assert len(lines) == 1


def test_a_result_of_a_target_that_is_missing_is_shown() -> None:
    for saved in SAVED:
        document = copy.deepcopy(saved)
        for target in document["targets"]:
            target["id"] = "another"
        harmless(read_result(json.dumps(document).encode()))


def harmless(outcome: RunResult) -> None:
    """Hold a result's reports to their formats: nothing in them is obeyed by a terminal, a browser or a runner."""
    for name, text in shown(outcome):
        assert [c for c in text if not c.isprintable() and c not in "\n\t"] == [], name
        assert "<img src=x" not in text or name not in ("page", "junit"), name
        assert name != "github" or not any(line.startswith("::error::y") for line in text.splitlines())
        if name == "junit":
            Xml.fromstring(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reports.fleet_report._page", lambda _path, _outcome: None)
        hosts = summaries(RECORDED, RECORDED / "host" / "result.json", outcome)
    cause_groups(hosts)
    outliers(hosts * 3)


def with_text(value: Any, key: str, text: str) -> Any:
    """A document in which every text of one key is another one."""
    if isinstance(value, list):
        return [text if key == "" and isinstance(each, str) else with_text(each, key, text) for each in value]
    if isinstance(value, dict):
        return {
            name: text if name == key and isinstance(each, str) else with_text(each, key, text)
            for name, each in value.items()
        }
    return value


def keys_of(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    return set(value).union(*map(keys_of, value.values())) if isinstance(value, dict) else set()


def test_every_text_of_a_result_is_shown_harmlessly() -> None:
    document, replaced = SAVED[0], set[str]()
    for key in ("", *sorted(keys_of(document) - {"id", "target"})):
        hostile = with_text(document, key, NAME)
        try:
            read_result(json.dumps(hostile).encode())
        except ResultRefused:
            continue
        document = hostile
        replaced.add(key)
    assert replaced >= {"", "title", "observed", "cause", "path", "started", "hostname", "container", "stdout", "note"}
    harmless(read_result(json.dumps(with_text(with_text(document, "id", NAME), "target", NAME)).encode()))


def changed(**values: Any) -> bytes:
    return json.dumps({**SAVED[0], **values}).encode()


TARGET, RESULT = SAVED[0]["targets"][0], SAVED[0]["results"][0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 500_000, "the result as a whole: Invalid JSON: recursion limit exceeded"),
        (b"{}," * MOST_VALUES, f"it has about {2 * MOST_VALUES} values; the limit is {MOST_VALUES}"),
        (changed(results=[{**RESULT, "seconds": float("nan")}]), "results.0.seconds: Input should be a finite number"),
        (changed(targets=[{**TARGET, "intent": {"uplinks": 7}}]), "targets.0.intent.uplinks: "),
        (changed(targets=[{**TARGET, "snapshot": {}}]), "targets.0.snapshot.taken: Field required"),
        (
            changed(targets=[{**TARGET, "id": str(n), "snapshot": None} for n in range(MOST_TARGETS + 1)], results=[]),
            f"it has {MOST_TARGETS + 1} targets; the limit is {MOST_TARGETS}",
        ),
    ],
)  # fmt: skip
def test_a_result_is_refused_in_one_line(content: bytes, said: str) -> None:
    with pytest.raises(ResultRefused) as refused:
        read_result(content)
    assert str(refused.value).startswith(said)
    assert len(str(refused.value).splitlines()) == 1


def test_a_result_of_no_target_is_shown() -> None:
    """A run that lost a worker may have written one."""
    harmless(read_result(changed(results=[{**RESULT, "target": "other"}], targets=[TARGET, TARGET])))


def test_a_result_of_no_intent_and_of_an_earlier_version_is_read() -> None:
    former = {key: value for key, value in TARGET["intent"].items() if key != "probe"} | {"former": [1]}
    for intent in ({}, former):
        assert read_result(changed(targets=[{**TARGET, "intent": intent}])).targets[0].intent == intent
