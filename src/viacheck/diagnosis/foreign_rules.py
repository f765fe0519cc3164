"""Causes that a restart of systemd-networkd brings to light: what it takes away and does not set again."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause, command
from viacheck.diagnosis.disruption import CHECK_OF, before_and_after
from viacheck.model.measurements import Measurements
from viacheck.persistence import networkd
from viacheck.persistence.config_writer import written_file

EVENT = "networkd-restart"
_KEPT = (written_file(networkd.KEEP_FOREIGN_PATH, f"{networkd.KEEP_FOREIGN}\n"),)
_NOT_KEPT = (command("rm", networkd.KEEP_FOREIGN_PATH),)


def purged_at_start(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """What it does not own is gone after its restart."""
    disruption_result = measurements.disruptions.get(EVENT)
    if disruption_result is None or not (disruption_result.rules_lost or disruption_result.routes_lost):
        return
    files = resolved.snapshot.files
    if disruption_result.rules_lost:
        if networkd.purges_foreign(files)[0]:
            yield Cause(
                "FOREIGN_RULES_PURGED", CHECK_OF[EVENT],
                f"after {disruption_result.title} the rule '{disruption_result.rules_lost[0]}' is gone: systemd-networkd removes, when it "
                "starts, every rule that it finds and that is in none of its files",
                remedy=_KEPT, undo=_NOT_KEPT, evidence=(before_and_after(disruption_result),),
            )  # fmt: skip
        return
    gone = "'; '".join(map(str, disruption_result.routes_lost))
    links = {hop.interface for route in disruption_result.routes_lost for hop in route.nexthops}
    if links:
        names = ", ".join(sorted(filter(None, links)))
        yield Cause(
            "ROUTE_NOT_RESTORED", CHECK_OF[EVENT],
            f"after {disruption_result.title} '{gone}' is gone: it takes the address of {names} away when it starts and sets it "
            "again, and with a link's last address the kernel drops its routes; only those in its files come back",
            evidence=(before_and_after(disruption_result),),
        )  # fmt: skip
    elif networkd.purges_foreign(files, networkd.ROUTES_KEY)[0]:
        yield Cause(
            "ROUTE_NOT_RESTORED", CHECK_OF[EVENT],
            f"after {disruption_result.title} '{gone}' is gone: systemd-networkd removes, when it starts, every route on no link "
            "that it finds and that is in none of its files",
            remedy=_KEPT, undo=_NOT_KEPT, evidence=(before_and_after(disruption_result),),
        )  # fmt: skip
