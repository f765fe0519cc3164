"""What Debian's DHCP client runs after each answer of a server, for a way that must follow the lease.

dhclient-script(8) itself sets the default route of the main table only, and leaves it alone when a renewal names
another router and the address stays the same.
"""

from __future__ import annotations

import shlex

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.persistence import ifupdown
from viacheck.persistence.config_writer import written_file

_ANSWERS = "BOUND | RENEW | REBIND | REBOOT"


def runs_here(resolved: ResolvedIntent) -> bool:
    """Whether dhclient holds the uplink's lease, as ifupdown has it do on Debian."""
    holding = ifupdown.read(resolved.snapshot.files, lambda _name: None).stanza(resolved.uplink)
    return holding is not None and holding.method == "dhcp"


def follow_router(resolved: ResolvedIntent) -> tuple[str, str]:
    """The command that writes a hook which sends the agent's packets to the lease's router, and the one to undo it."""
    uplink = shlex.quote(resolved.uplink)
    return _hook(
        resolved, "way", f'ip route replace default via "${{new_routers%% *}}" dev {uplink} table {resolved.table}'
    )


def forget_flows(resolved: ResolvedIntent) -> tuple[str, str]:
    """The same for one that lets running flows be translated anew where the address is another one now."""
    forget = f"conntrack -D -s {resolved.agent_subnet} >/dev/null 2>&1"
    return _hook(resolved, "flows", f'[ "$old_ip_address" = "$new_ip_address" ] || {forget} || true')


def _hook(resolved: ResolvedIntent, what: str, line: str) -> tuple[str, str]:
    path = f"{ifupdown.LEASE_HOOKS}/viacheck-{resolved.table}-{what}"
    text = (
        f'if [ "$interface" = {shlex.quote(resolved.uplink)} ]; then\n'
        f"    case $reason in\n    {_ANSWERS})\n        {line}\n        ;;\n    esac\nfi\n"
    )
    return written_file(path, text), shlex.join(["rm", path])
