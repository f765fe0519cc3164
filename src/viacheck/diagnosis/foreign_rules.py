"""Causes that a restart of systemd-networkd shows: what it removes and does not set again."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.disruption import CHECK_OF, state_changes
from viacheck.diagnosis.remedy import remedy_of
from viacheck.model.measurements import Measurements
from viacheck.persistence import networkd
from viacheck.persistence.file_edit import new_file

EVENT = "networkd-restart"
_KEEP_FOREIGN = remedy_of([new_file(networkd.KEEP_FOREIGN_PATH, f"{networkd.KEEP_FOREIGN}\n")])


def purged_at_start(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find the rules and routes that are missing after its restart because it did not set them."""
    result = measurements.disruptions.get(EVENT)
    if result is None or not (result.rules_lost or result.routes_lost):
        return
    files, check, evidence = resolved.snapshot.files, CHECK_OF[EVENT], (state_changes(result),)
    if result.rules_lost:
        if networkd.purges_foreign(files)[0]:
            yield Cause(
                "FOREIGN_RULES_PURGED", check,
                f"after {result.title} the rule '{result.rules_lost[0]}' is missing: when systemd-networkd starts, it "
                "removes every rule that none of its files contains",
                _KEEP_FOREIGN, evidence=evidence,
            )  # fmt: skip
        return
    missing = ", ".join(f"'{route}'" for route in result.routes_lost)
    links = {hop.interface for route in result.routes_lost for hop in route.nexthops}
    if links:
        names = ", ".join(sorted(filter(None, links)))
        yield Cause(
            "ROUTE_NOT_RESTORED", check,
            f"after {result.title} {missing} is missing: when systemd-networkd starts, it removes the address of "
            f"{names} and sets it again, and the kernel removes a link's routes with its last address; only the routes "
            "in its files come back",
            evidence=evidence,
        )  # fmt: skip
    elif networkd.purges_foreign(files, networkd.ROUTES_KEY)[0]:
        yield Cause(
            "ROUTE_NOT_RESTORED", check,
            f"after {result.title} {missing} is missing: when systemd-networkd starts, it removes every route without "
            "a link that none of its files contains",
            _KEEP_FOREIGN, evidence=evidence,
        )  # fmt: skip
