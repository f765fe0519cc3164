"""Events that a twin cannot go through as its host would: what the host's programs and files would do is not rebuilt.

A twin is made of a snapshot, which may come from anywhere: nothing that a file in it says is ever run.
"""

from __future__ import annotations

from viacheck.model.intent import Intent
from viacheck.model.snapshot import Snapshot
from viacheck.persistence import ifupdown
from viacheck.persistence.assess import networkd_links

_NO_PROGRAMS = "and a twin has no programs of its host"
_NOTHING_IS_RUN = "and a twin runs nothing that a file from elsewhere says"
_BY_EVENT = {
    "container-restart": f"the Docker engine restarts the agent's container, {_NO_PROGRAMS}",
    "engine-restart": f"the Docker engine is what restarts, {_NO_PROGRAMS}",
    "reboot": f"a boot runs the commands in the host's files, {_NOTHING_IS_RUN}",
}


def obstacle(event: str, snapshot: Snapshot, intent: Intent) -> str | None:
    """Why an event cannot be told from the twin of a host; None where it goes there as on the host itself."""
    if event in ("link-flap", "carrier-loss", "device-change", "rename"):
        watchers = snapshot.link_watchers
        if watchers is None:
            return f"whether a program of the host acts on changes of its links is not in the snapshot, {_NO_PROGRAMS}"
        if watchers:
            return f"{', '.join(watchers)} of the host is told of changes of links and may act on them, {_NO_PROGRAMS}"
    if event == "carrier-loss" and any(route.nexthop_id is not None for route in snapshot.host.routes):
        return "a route goes by a nexthop object, which the kernel drops together with the carrier, and a twin has none"
    if event == "ifupdown":
        link = ifupdown.read(snapshot.files, lambda _name: None).link(intent.egress.uplink)
        if link is not None and link.active:
            return f"ifdown and ifup run the commands in the host's files, {_NOTHING_IS_RUN}"
        return None
    if event == "networkd-restart":
        return f"systemd-networkd is what restarts, {_NO_PROGRAMS}" if networkd_links(snapshot) else None
    return _BY_EVENT.get(event)
