"""Causes that systemd-networkd shows when it starts, or configures a link again: what it removes and does not set."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.disruption import CHECK_OF, state_changes
from viacheck.diagnosis.remedy import Remedy, remedy_of
from viacheck.model.measurements import DisruptionResult, Measurements
from viacheck.persistence import networkd
from viacheck.persistence.assess import networkd_links
from viacheck.persistence.file_edit import new_file

START = "networkd-restart"
RECONFIGURED = ("networkd-reload", "networkd-reconfigure", "other-network", "other-container")
"""The events in which networkd configures a link: one that it knows, or one of the engine's that its files match."""
_RESTART = ("systemctl", "restart", "systemd-networkd.service")
"""networkd reads the setting when it starts, and keeps the rules from then on."""


def purged_at_start(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find the rules and routes that are missing after its restart because it did not set them."""
    result = measurements.disruptions.get(START)
    if result is None or not (result.rules_lost or result.routes_lost):
        return
    files, check, evidence = resolved.snapshot.files, CHECK_OF[START], (state_changes(result),)
    if result.rules_lost:
        if networkd.purges_foreign(files)[0]:
            yield Cause(
                "FOREIGN_RULES_PURGED", check,
                f"{_missing_rule(result)}: when systemd-networkd starts, it removes every rule that none of its files "
                "contains",
                _keep_foreign(resolved), frozenset({"FLAP-12"}), evidence,
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
            _keep_foreign(resolved), evidence=evidence,
        )  # fmt: skip


def purged_when_reconfigured(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find the rules that are missing after networkd configured another link (systemd issue 39613)."""
    results = (measurements.disruptions.get(event) for event in RECONFIGURED)
    lost = [result for result in results if result is not None and result.rules_lost]
    if lost and networkd_links(resolved.snapshot) and networkd.purges_foreign(resolved.snapshot.files)[0]:
        first = lost[0]
        yield Cause(
            "FOREIGN_RULES_PURGED", CHECK_OF[first.event],
            f"{_missing_rule(first)}: when systemd-networkd configures any link, it removes every rule that none of "
            "its files contains; configure the rules in a .network file, or make networkd keep those of others",
            _keep_foreign(resolved, _RESTART), evidence=(state_changes(first),),
        )  # fmt: skip


def _keep_foreign(resolved: ResolvedIntent, *then: tuple[str, ...]) -> Remedy:
    return remedy_of([new_file(resolved.snapshot, networkd.KEEP_FOREIGN_PATH, f"{networkd.KEEP_FOREIGN}\n")], then)


def _missing_rule(result: DisruptionResult) -> str:
    return f"after {result.title} the rule '{result.rules_lost[0]}' is missing"
