"""Hosts for the tests of persistence: an intent, a kernel state, and files as managers leave them.

The files of a recorded host lie below tests/recorded/persistence/NAME as they lie on the host, and go through the same
allow-list as those of a real one.
"""

from __future__ import annotations

from typing import Any

from tests.helpers.paths import RECORDED
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.intent_file import parse_intent
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.persistence import networkmanager
from viacheck.persistence.allowlist import redact_to_allowlist

RECORDED_HOSTS = RECORDED / "persistence"
SUBNET = "172.17.0.0/16"
_TABLES = "255 local\n254 main\n253 default\n200 wlan0rt\n"
TABLES = HostFile.kept("/etc/iproute2/rt_tables", _TABLES, _TABLES)
WLAN0_INDEX = 12
TYPED = Rule(family=4, priority=32765, source=SUBNET, table=200, protocol="boot")
"""The rule as the guide has it typed."""


def recorded(name: str) -> dict[str, str]:
    """The files of a recorded host, by path."""
    root = RECORDED_HOSTS / name
    return {f"/{path.relative_to(root)}": path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def host_file(path: str, text: str, mode: int | None = None) -> HostFile:
    """A file as the snapshot has it: reduced, with the mode that its manager gives it."""
    if mode is None:
        private = path.rpartition("/")[0] in networkmanager.PROFILE_FOLDERS
        mode = 0o600 if private else 0o755 if ".d/" in path and not path.endswith((".conf", ".yaml")) else 0o644
    return HostFile.kept(path, text, redact_to_allowlist(path, text), mode)


def resolved(
    files: dict[str, str] | tuple[HostFile, ...],
    *,
    persist: str | None = None,
    rules: tuple[Rule, ...] = (TYPED,),
    tables: HostFile = TABLES,
    wireless: bool = True,
) -> ResolvedIntent:
    """An agent behind docker0 that must leave by wlan0, on a host with these files."""
    egress: dict[str, Any] = {"uplink": "wlan0", "table": 200, "table_name": "wlan0rt"}
    if persist is not None:
        egress["persist"] = persist
    intent = parse_intent(
        {
            "schema": 1,
            "site": {"name": "test"},
            "agent": {"netns": "/run/netns/agent", "attach": {"mode": "nat", "bridge": "docker0", "subnet": SUBNET}},
            "uplinks": {"eth0": {"gateway": "10.10.40.1"}, "wlan0": {"gateway": "10.10.50.1"}},
            "egress": egress,
        },
        source="test",
    )
    links = tuple(
        Link(index=index, name=name, kind=kind, flags=("UP",), mac=f"02:00:00:00:00:{index:02x}",
             wireless=wireless and name == "wlan0")
        for index, name, kind in ((1, "lo", None), (11, "eth0", None), (WLAN0_INDEX, "wlan0", None),
                                  (13, "docker0", "bridge"))
    )  # fmt: skip
    addresses = tuple(
        Address(interface=interface, family=4, address=address, prefixlen=length)
        for interface, address, length in (
            ("eth0", "10.10.40.9", 24), ("wlan0", "10.10.50.9", 24), ("docker0", "172.17.0.1", 16),
        )
    )  # fmt: skip
    host_files = tuple(host_file(*one) for one in files.items()) if isinstance(files, dict) else files
    return ResolvedIntent(
        intent,
        Snapshot(
            taken="2026-01-01T00:00:00+00:00", hostname="test", kernel="6.18.0",
            host=NetworkState(links=links, addresses=addresses, rules=rules), files=(tables, *host_files),
        ),
    )  # fmt: skip
