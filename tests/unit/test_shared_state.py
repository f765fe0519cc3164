"""A host's state is written once for several agents, and read for each of them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from viacheck.model.result import RunResult

RUN = {"id": "1", "started": "", "finished": "", "command": ""}


def target(name: str, of: str | None, **parts: Any) -> dict[str, Any]:
    return {"id": name, "kind": "local", "verdict": "pass", "agent": of, "intent": {}, "snapshot": parts}


def document(*targets: dict[str, Any]) -> dict[str, Any]:
    return {"run": RUN, "targets": list(targets), "results": []}


def test_what_two_agents_have_in_common_is_written_with_the_first() -> None:
    host = {"links": [1, 2, 3]}
    given = document(
        target("local:a:one", "one", host=host, agent={"links": [4]}, kernel="6"),
        target("local:a:two", "two", host=host, agent={"links": [5]}, kernel="6"),
    )
    outcome = RunResult.model_validate(given)
    written = outcome.model_dump(mode="json", by_alias=True)
    assert written["targets"][1]["snapshot"] == {"same_as": "local:a:one", "agent": {"links": [5]}}
    assert written["targets"][0]["snapshot"] == given["targets"][0]["snapshot"]
    assert RunResult.model_validate(written) == outcome
    assert RunResult.model_validate_json(outcome.model_dump_json(by_alias=True)) == outcome


def test_the_states_of_other_hosts_and_labs_are_written_whole() -> None:
    given = document(
        target("local:a:one", "one", host={"links": [1]}), target("local:b:one", "one", host={"links": [2]}),
        target("lab:nat", None, host={"links": [1]}),
    )  # fmt: skip
    written = RunResult.model_validate(given).model_dump(mode="json", by_alias=True)
    assert [each["snapshot"] for each in written["targets"]] == [each["snapshot"] for each in given["targets"]]


def test_a_state_of_a_target_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError, match="same_as: 'local:a:one' is no target with a snapshot before this one"):
        RunResult.model_validate(document(target("local:a:two", "two", same_as="local:a:one")))
