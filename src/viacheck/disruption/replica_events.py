"""The events that a replica cannot show as its host would, because it runs none of the host's programs and files.

A replica is built from a snapshot, which may come from anywhere: nothing from a file in it is ever executed.
"""

from __future__ import annotations

from viacheck.model.intent import SIDE_EVENTS, Intent
from viacheck.model.snapshot import Snapshot
from viacheck.persistence import ifupdown
from viacheck.persistence.assess import networkd_links

_NO_PROGRAMS = "and a replica runs none of its host's programs"
_NO_FILES = "and a replica executes nothing from its host's files"
_BY_EVENT = {
    "container-restart": f"the Docker engine restarts the agent's container, {_NO_PROGRAMS}",
    "engine-restart": f"the Docker engine itself restarts, {_NO_PROGRAMS}",
    "reboot": f"a boot runs the commands in the host's files, {_NO_FILES}",
}


def obstacle(event: str, snapshot: Snapshot, intent: Intent) -> str | None:
    """Return why a replica does not show an event's effect on its host; None where it does."""
    if event in ("link-flap", "carrier-loss", "device-change", "rename"):
        watchers = snapshot.link_watchers
        if watchers is None:
            return f"the snapshot does not say which of the host's programs react to link changes, {_NO_PROGRAMS}"
        if watchers:
            return (
                f"{', '.join(watchers)} of the host may react to link changes, {_NO_PROGRAMS}; --allow-disruptive "
                "tries it on the host itself"
            )
    if event == "carrier-loss" and any(route.nexthop_id is not None for route in snapshot.host.routes):
        return "a route uses a nexthop object, which the kernel removes with the carrier, and a replica has none"
    if event == "ifupdown":
        link = ifupdown.read(snapshot.files, lambda _name: None).link(intent.egress.uplink)
        if link is not None and link.active:
            return f"ifdown and ifup run the commands in the host's files, {_NO_FILES}"
        return None
    if event == "networkd-restart":
        return f"systemd-networkd itself restarts, {_NO_PROGRAMS}" if networkd_links(snapshot) else None
    if event in SIDE_EVENTS and event != "vpn":
        return f"others make it by a program of the host, {_NO_PROGRAMS}"
    return _BY_EVENT.get(event)
