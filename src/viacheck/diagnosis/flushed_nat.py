"""The causes that a packet filter's reload shows: the engine's NAT is gone, or what firewalld held at runtime only."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.disruption import CHECK_OF, keeps_source
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, command, remedy_of
from viacheck.model.intent import FIREWALL_RELOADS, FIREWALL_UNITS
from viacheck.model.measurements import FlowKind, Measurements
from viacheck.persistence.file_edit import new_file

DOCKER = "docker.service"
FIREWALLD, FIREWALLD_RELOAD = "firewalld", "firewalld-reload"
"""The table of firewalld's rules, and the event."""
UFW_RELOAD = "ufw-reload"
RELOAD_UNITS = [("systemctl", "daemon-reload")]


def nat_flushed(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the agent's new flows leave with its own address after a packet filter was loaded again."""
    if resolved.bridged:
        return
    reloaded = (measurements.disruptions.get(event) for event in FIREWALL_RELOADS)
    flushing = [result for result in reloaded if result is not None and keeps_source(result)]
    if not flushing:
        return
    first = flushing[0]
    unit, remedy, decision = FIREWALL_UNITS.get(first.event), NO_REMEDY, None
    if unit is not None:
        # A drop-in of its own for each unit: both may be there.
        path = f"/etc/systemd/system/{DOCKER}.d/viacheck-{unit.removesuffix('.service')}.conf"
        follows = f"[Unit]\nAfter={unit}\nPartOf={unit}\n"
        remedy = remedy_of([new_file(resolved.snapshot, path, follows)], RELOAD_UNITS)
    elif first.event == UFW_RELOAD:
        decision = "take the line that flushes (-F POSTROUTING in a part *nat) out of ufw's rules (/etc/ufw/*.rules)"
    else:
        decision = f"restart the engine after each reload (systemctl restart {DOCKER}), or keep its rules in the reload"
    yield Cause(
        "MASQUERADE_MISSING", CHECK_OF[first.event],
        f"after {first.title} no rule translates the agent's new flows, so replies cannot come back: it removed the "
        "engine's own rules, which the engine sets only when it starts",
        remedy, decision=decision,
    )  # fmt: skip


def runtime_only_lost(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the agent's new flows no longer pass once firewalld has loaded its permanent configuration.

    A flow that was there before passes still: firewalld accepts what connection tracking knows.
    """
    result = measurements.disruptions.get(FIREWALLD_RELOAD)
    if result is None or result.rules_lost or result.routes_lost or result.failure:
        return
    silent = any(flow.flow == "new" and flow.kind is FlowKind.STAYS_SILENT for flow in result.flow_results)
    filtered = any(chain.table == FIREWALLD for chain in resolved.snapshot.host.packet_filter.chains)
    if not silent or not filtered:
        return
    yield Cause(
        "FORWARD_DROPPED", CHECK_OF[FIREWALLD_RELOAD],
        f"after {result.title} the agent's new flows do not pass, and before it they did: firewalld accepted them by "
        "what was set at runtime only (without --permanent), which a reload forgets; the fix keeps everything that is "
        "set now",
        Remedy((command("firewall-cmd", "--runtime-to-permanent"),)),
    )  # fmt: skip
