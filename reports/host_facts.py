"""Host facts: the contents of a snapshot as tables and lines for the page, capped to keep a large host's page small.

Omitted rows are always counted; result.json has all of them. A snapshot is read as the saved JSON, so that a page can
be rendered from a file that a newer or older version wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reports.text import counted
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route
from viacheck.model.routing_names import TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN
from viacheck.model.saved_routes import count_of, each_route, routes_to

RULES_SHOWN = 200
ROUTES_SHOWN = 60
"""Routes of one table."""
TABLES_SHOWN = 16
LINES_SHOWN = 150
"""Lines of any other list."""

_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)
_ROUTE: TypeAdapter[Route] = TypeAdapter(Route)
_EVERYWHERE = ("0.0.0.0/0", "::/0")
_TABLE_NAMES = {TABLE_LOCAL: "local", TABLE_MAIN: "main", TABLE_DEFAULT: "default"}


@dataclass(frozen=True, slots=True)
class Facts:
    """One group of facts: a table when it has headers, plain lines otherwise."""

    title: str
    rows: Sequence[Sequence[str]] = ()
    headers: Sequence[str] = ()
    left_out: int = 0
    note: str = ""

    @property
    def lines(self) -> str:
        """Rows of a group without headers, one line each."""
        return "\n".join(row[0] for row in self.rows)


def facts(snapshot: Mapping[str, Any], intent: Mapping[str, Any]) -> list[Facts]:
    """Return the facts of a snapshot; those that decide where packets go come first."""
    host: Mapping[str, Any] = snapshot.get("host") or {}
    groups = [
        *_problems(snapshot),
        _links("Links and addresses of the host", host),
        *_rules(host),
        *_routes(host, intent),
        *_docker(snapshot.get("engine")),
    ]
    agent: Mapping[str, Any] = snapshot.get("agent") or {}
    if agent:
        groups += [
            _links("Links and addresses of the agent", agent),
            *(_prefixed("Agent: ", group) for group in (*_rules(agent), *_routes(agent, {}))),
        ]
    groups += [*_packet_filter(host), _sysctls(host), *_files(snapshot)]
    return [group for group in groups if group.rows or group.note]


def _prefixed(prefix: str, group: Facts) -> Facts:
    title = group.title[0].lower() + group.title[1:]
    return Facts(prefix + title, group.rows, group.headers, group.left_out, group.note)


def _problems(snapshot: Mapping[str, Any]) -> Iterator[Facts]:
    rows = [
        (str(p.get("what", "")), str(p.get("reason", "")), str(p.get("command") or ""), str(p.get("missing") or ""))
        for p in snapshot.get("problems", ())
    ]
    if rows:
        yield _capped("What could not be read", rows, ("What", "Why", "Command", "Missing"))


def _capped(title: str, rows: Sequence[Sequence[str]], headers: Sequence[str] = (), note: str = "") -> Facts:
    return Facts(title, rows[:LINES_SHOWN], headers, max(len(rows) - LINES_SHOWN, 0), note)


def _links(title: str, state: Mapping[str, Any]) -> Facts:
    addresses: dict[str, list[str]] = {}
    for address in state.get("addresses", ()):
        text = f"{address.get('address')}/{address.get('prefixlen')}"
        lifetime = address.get("valid_lifetime")
        marks = [*address.get("flags", ()), *([f"expires in {lifetime} s"] if lifetime is not None else [])]
        addresses.setdefault(str(address.get("interface")), []).append(
            f"{text} ({', '.join(marks)})" if marks else text
        )
    rows = [
        (
            str(link.get("name", "?")),
            str(link.get("kind") or ("wireless" if link.get("wireless") else "physical")),
            _link_state(link),
            _few(addresses.get(str(link.get("name")), [])),
            str(link.get("mac") or ""),
            str(link.get("mtu", "")),
            str(link.get("master") or ""),
        )
        for link in state.get("links", ())[:LINES_SHOWN]
    ]
    left_out = max(len(state.get("links", ())) - LINES_SHOWN, 0)
    return Facts(title, rows, ("Interface", "Kind", "State", "Addresses", "MAC", "MTU", "Master"), left_out)


def _few(texts: Sequence[str], most: int = 12) -> str:
    return "\n".join(texts[:most]) + (f"\nand {len(texts) - most:,} more" if len(texts) > most else "")


def _link_state(link: Mapping[str, Any]) -> str:
    flags = link.get("flags", ())
    if "UP" not in flags:
        return "down"
    if "NO-CARRIER" in flags or link.get("operstate") in ("DOWN", "LOWERLAYERDOWN"):
        return "up, no carrier"
    return "up"


def _entry_text(adapter: TypeAdapter[Any], entry: Any) -> str:
    try:
        return str(adapter.validate_python(entry))
    except ValidationError:
        return json.dumps(entry, default=str)


def _rules(state: Mapping[str, Any]) -> Iterator[Facts]:
    for family in (4, 6):
        rules = [rule for rule in state.get("rules", ()) if rule.get("family") == family]
        # The kernel evaluates rules in order: the first decide and the last are its own, so the middle is omitted.
        tail = 10
        kept = rules if len(rules) <= RULES_SHOWN else [*rules[: RULES_SHOWN - tail], *rules[-tail:]]
        rows = [(_entry_text(_RULE, rule),) for rule in kept]
        left_out = len(rules) - len(kept)
        if left_out:
            rows.insert(RULES_SHOWN - tail, (f"… {counted(left_out, 'rule')} left out here …",))
        if rows:
            yield Facts(f"Rules, IPv{family} ({len(rules):,})", rows, left_out=left_out)


def _routes(state: Mapping[str, Any], intent: Mapping[str, Any]) -> Iterator[Facts]:
    egress = intent.get("egress", {})
    tables: dict[tuple[int, int], list[Any]] = {}
    for entry in state.get("routes", []):
        tables.setdefault((int(entry.get("family", 0)), int(entry.get("table", 0))), []).append(entry)
    first = {egress.get("table"): 0, TABLE_MAIN: 1, TABLE_LOCAL: 3}
    ranked = sorted(tables, key=lambda key: (key[0], first.get(key[1], 2), key[1]))
    names = _TABLE_NAMES | {egress.get("table"): egress.get("table_name") or "the intent's"}
    for family, table in ranked[:TABLES_SHOWN]:
        entries = tables[family, table]
        count = count_of(entries)
        kept: Iterable[Any] = each_route(entries)
        if count > ROUTES_SHOWN:
            # The defaults first. Of an entry of many routes no more is read than is shown.
            defaults = [route for everywhere in _EVERYWHERE for route in routes_to(entries, everywhere)]
            others = (route for route in each_route(entries) if route.get("destination") not in _EVERYWHERE)
            kept = [*defaults[:ROUTES_SHOWN], *islice(others, max(ROUTES_SHOWN - len(defaults), 0))]
        rows = [(_entry_text(_ROUTE, route),) for route in kept]
        name = f" ({names[table]})" if table in names else ""
        title = f"Routes, IPv{family}, table {table}{name} ({count:,})"
        yield Facts(title, rows, left_out=count - len(rows))
    if len(ranked) > TABLES_SHOWN:
        more = [str(table) for _, table in ranked[TABLES_SHOWN:]]
        yield Facts("Further routing tables", [(_few(more, 40),)], note="Their routes are in result.json.")


def _docker(engine: Mapping[str, Any] | None) -> Iterator[Facts]:
    if not engine:
        return
    rootless = ", rootless" if engine.get("rootless") else ""
    name = "Podman" if engine.get("podman") else "Docker"
    version = f"{name} {engine.get('version', '?')} (API {engine.get('api_version', '?')}{rootless})"
    networks = [
        (
            str(network.get("name", "")),
            str(network.get("driver", "")),
            _few([_pool(pool) for pool in network.get("pools", ())]),
            str(network.get("parent") or network.get("bridge") or ""),
        )
        for network in engine.get("networks", ())
    ]
    yield _capped(f"{version}: networks", networks, ("Network", "Driver", "Subnets", "Bridge or parent"))
    container = engine.get("container")
    if not container:
        return
    lines = [
        f"name            {container.get('name')}",
        f"image           {container.get('image') or '?'}",
        f"state           {'running, pid ' + str(container.get('pid')) if container.get('running') else 'not running'}",
        f"network mode    {container.get('network_mode') or '?'}",
        f"restart policy  {container.get('restart_policy') or '?'}",
        *(
            f"attached to     {attachment.get('network')}: {attachment.get('address') or 'no address'}, "
            f"gateway {attachment.get('gateway') or 'none'}"
            for attachment in container.get("attachments", ())
        ),
        *(f"dns             {server}" for server in container.get("dns", ())),
    ]
    yield _capped("The agent's container", [(line,) for line in lines])


def _pool(pool: Mapping[str, Any]) -> str:
    more = [f"{name} {pool[key]}" for key, name in (("gateway", "gateway"), ("ip_range", "range")) if pool.get(key)]
    return ", ".join([str(pool.get("subnet", "?")), *more])


def _packet_filter(state: Mapping[str, Any]) -> Iterator[Facts]:
    packet_filter: Mapping[str, Any] = state.get("packet_filter") or {}
    lines: list[tuple[str]] = []
    for chain in packet_filter.get("chains", ()):
        if not chain.get("rules") and not chain.get("hook"):
            continue
        base = f" (hook {chain['hook']}, policy {chain.get('policy') or 'none'})" if chain.get("hook") else ""
        lines.append((f"{chain.get('family')} {chain.get('table')} {chain.get('name')}{base}, {chain.get('backend')}",))
        lines += [(f"    {_filter_rule(rule)}",) for rule in chain.get("rules", ())]
    unread = "; ".join(str(why) for why in packet_filter.get("unread", ()))
    yield _capped("Packet filter", lines, note=f"Not read: {unread}" if unread else "")


def _filter_rule(rule: Mapping[str, Any]) -> str:
    packets = rule.get("packets")
    count = f"  [{counted(int(packets), 'packet')}]" if packets is not None else ""
    return f"{rule.get('text') or rule.get('verdict') or '?'}{count}"


def _sysctls(state: Mapping[str, Any]) -> Facts:
    entries: Mapping[str, Any] = state.get("sysctls") or {}
    return _capped("Sysctls", [(f"{name} = {entries[name]}",) for name in sorted(entries)])


def _files(snapshot: Mapping[str, Any]) -> Iterator[Facts]:
    files: Iterable[Mapping[str, Any]] = snapshot.get("files", ())
    absent = [str(file.get("path")) for file in files if not file.get("exists")]
    present = [file for file in files if file.get("exists")]
    for file in present[:LINES_SHOWN]:
        lines = [(line,) for line in str(file.get("text", "")).splitlines()]
        error = f"Could not be read: {file['error']}" if file.get("error") else ""
        yield _capped(f"File {file.get('path')}", lines, note=error or ("" if lines else "The file is empty."))
    if absent or len(present) > LINES_SHOWN:
        more = f"{counted(len(present) - LINES_SHOWN, 'file')} left out." if len(present) > LINES_SHOWN else ""
        yield _capped("Files that do not exist", [(path,) for path in absent], note=more)
