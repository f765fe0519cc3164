"""A host's network attribute by attribute, as ``ip -d -j`` and /proc/sys show it, without what changes by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

_SHOWN = {
    "links": "link show",
    "addresses": "address show",
    "rules": "rule show",
    "rules6": "-6 rule show",
    "neighbours": "neighbour show nud permanent",
    "proxies": "neighbour show proxy",
    "next hops": "nexthop show",
    "routes": "-4 route show table all",
    "routes6": "-6 route show table all",
}
_SYSCTLS = "grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/ip_forward 2>/dev/null | sort"
_INFINITE = 4294967295
_RUNS = frozenset({
    "valid_life_time", "preferred_life_time", "expires", "linkdown", "dead", "used", "age",
    "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer",
})  # fmt: skip


def host_attributes(run: Callable[[Sequence[str]], str], *, without: str | None = None) -> list[str]:
    """Return everything, one line for each object.

    Args:
        run: runs a command on the host and returns its output.
        without: prefix of the interfaces that are left out: an engine gives a container's another name at each start.
    """
    found: dict[str, Any] = {
        name: [
            _without_what_runs(entry)
            for entry in json.loads(run(["ip", "-d", "-j", *words.split()]) or "[]")
            if without is None or not _is_of(entry, without)
        ]
        for name, words in _SHOWN.items()
    }
    for link in found["addresses"]:
        for address in link["addr_info"]:
            address["dynamic"] = not address["valid_life_time"]
            address["label"] = address.get("label", "")
    # Of neighbours, and of equal IPv6 routes by several interfaces, the kernel keeps no order that a person chose.
    for name in ("neighbours", "proxies", "routes6"):
        found[name] = sorted(json.dumps(entry, sort_keys=True) for entry in found[name])
    settings = run(["sh", "-c", _SYSCTLS]).splitlines()
    found["sysctls"] = [line for line in settings if without is None or f"/{without}" not in line]
    return [f"{kind}: {json.dumps(entry)}" for kind, objects in found.items() for entry in objects]


def _is_of(entry: dict[str, Any], prefix: str) -> bool:
    return any(str(entry.get(key, "")).startswith(prefix) for key in ("ifname", "dev"))


def _without_what_runs(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_what_runs(item) for item in value if item not in ("linkdown", "dead")]
    if not isinstance(value, dict):
        return value
    kept = {key: _without_what_runs(item) for key, item in value.items() if key not in _RUNS}
    if "valid_life_time" in value:
        kept["valid_life_time"] = value["valid_life_time"] == _INFINITE
    return kept
