"""A result as the octets of result.json."""

from __future__ import annotations

from viacheck.model.result import RunResult


def result_json(outcome: RunResult) -> bytes:
    """Return result.json of an outcome, in UTF-8."""
    return outcome.model_dump_json(by_alias=True, indent=1).encode() + b"\n"
