"""Results of events in the tests: an event that was carried out, or one that was not."""

from __future__ import annotations

from viacheck.disruption.disruption_tests import DisruptionTests
from viacheck.model.measurements import DisruptionResult, EventName, EventNotRun


def through(disruptions: DisruptionTests, name: EventName) -> DisruptionResult:
    """Return the result of an event, which must have been carried out."""
    return carried_out(disruptions.through(name))


def carried_out(result: DisruptionResult | EventNotRun) -> DisruptionResult:
    """Return the result of an event that must have been carried out."""
    assert isinstance(result, DisruptionResult), result
    return result


def not_run(result: DisruptionResult | EventNotRun) -> EventNotRun:
    """Return why an event was not carried out, which it must not have been."""
    assert isinstance(result, EventNotRun), result
    return result
