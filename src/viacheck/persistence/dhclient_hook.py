"""A hook that Debian's DHCP client runs after each answer of a server: a route, or a flow, follows the lease by it.

dhclient-script(8) itself sets the default route of the main table only, and does not change it when a renewal names
another router and the address stays the same.
"""

from __future__ import annotations

import shlex

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.persistence import ifupdown
from viacheck.persistence.file_edit import ReversibleEdit, new_file

_ANSWERS = "BOUND | RENEW | REBIND | REBOOT"


def runs_here(resolved: ResolvedIntent) -> bool:
    """Whether dhclient holds the uplink's lease, as ifupdown starts it on Debian."""
    link = ifupdown.read(resolved.snapshot.files, lambda _name: None).configured_link(resolved.uplink)
    return link is not None and link.method == "dhcp"


def follow_router(resolved: ResolvedIntent) -> ReversibleEdit:
    """Return the edit that writes a hook which sends the agent's packets to the lease's router."""
    uplink = shlex.quote(resolved.uplink)
    line = f'ip route replace default via "${{new_routers%% *}}" dev {uplink} table {resolved.table}'
    return _hook(resolved, "route", line)


def forget_flows(resolved: ResolvedIntent) -> ReversibleEdit:
    """Return the edit that writes a hook which deletes the agent's tracked flows when the address changes."""
    forget = f"conntrack -D -s {resolved.agent_subnet} >/dev/null 2>&1"
    return _hook(resolved, "flows", f'[ "$old_ip_address" = "$new_ip_address" ] || {forget} || true')


def _hook(resolved: ResolvedIntent, purpose: str, line: str) -> ReversibleEdit:
    text = (
        f'if [ "$interface" = {shlex.quote(resolved.uplink)} ]; then\n'
        f"    case $reason in\n    {_ANSWERS})\n        {line}\n        ;;\n    esac\nfi\n"
    )
    return new_file(resolved.snapshot, f"{ifupdown.LEASE_HOOKS}/viacheck-{resolved.table}-{purpose}", text)
