"""The rules between values of site.toml: one named rule each, by section of the file.

A rule looks at a document that may hold other mistakes: it reads only values that are valid by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Network
from typing import Any

from pydantic import TypeAdapter, ValidationError

from viacheck.model.intent_values import AddressOnSubnet, InterfaceName, MachineAddress, Subnet
from viacheck.model.toml_text import shown, toml_key

BY_DRIVER = ("macvlan", "ipvlan")
"""Modes in which a driver of Docker puts the agent on the parent's LAN."""
BRIDGED = (*BY_DRIVER, "pipework-static", "pipework-dhcp")
"""Modes in which the agent sits on the parent's LAN."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return the validator of a type; each costs a millisecond to make."""
    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True)
class SiteDocument:
    """A parsed site.toml that is not validated yet."""

    document: dict[str, Any]

    def valid(self, kind: Any, *path: str) -> Any:
        """Return a value of the document; None when it is missing or not valid by itself."""
        value: Any = self.document
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        try:
            return None if value is None else _adapter(kind).validate_python(value)
        except ValidationError:
            return None

    def table(self, *path: str) -> dict[str, Any]:
        """Return a table of the document; empty when there is no such table."""
        return self.valid(dict[str, Any], *path) or {}

    @property
    def mode(self) -> Any:
        """The mode of attachment as it is written."""
        return self.table("agent", "attach").get("mode")

    @property
    def parent(self) -> str | None:
        """The parent of a bridged agent."""
        return self.valid(InterfaceName, "agent", "attach", "parent") if self.mode in BRIDGED else None

    @property
    def subnet(self) -> IPv4Network | None:
        """The subnet of [agent.attach]."""
        return self.valid(Subnet, "agent", "attach", "subnet") if self.mode in ("nat", *BY_DRIVER) else None

    @property
    def lan(self) -> IPv4Network | None:
        """The parent LAN's subnet, where the file says it."""
        if self.mode in BY_DRIVER:
            return self.subnet
        address = self.valid(AddressOnSubnet, "agent", "attach", "address") if self.mode == "pipework-static" else None
        return address.network if address is not None else None


def agent_is_a_container_or_a_namespace(site: SiteDocument) -> Iterator[str]:
    """[agent]: exactly one of container and netns."""
    agent = site.table("agent")
    if agent and ("container" in agent) == ("netns" in agent):
        given = "both container and netns are given" if "netns" in agent else "neither container nor netns is given"
        yield f"agent: {given}; allowed: exactly one of them"


def ip_range_is_part_of_the_subnet(site: SiteDocument) -> Iterator[str]:
    """[agent.attach], macvlan and ipvlan: ip_range lies in subnet."""
    ip_range = site.valid(Subnet, "agent", "attach", "ip_range")
    if site.mode in BY_DRIVER and site.subnet and ip_range is not None and not ip_range.subnet_of(site.subnet):
        yield f"agent.attach.ip_range: {ip_range} is outside the subnet; allowed: a part of {site.subnet}"


def gateway_is_on_the_lan(site: SiteDocument) -> Iterator[str]:
    """[agent.attach], macvlan, ipvlan and pipework-static: the gateway lies in the LAN's subnet."""
    gateway = site.valid(MachineAddress, "agent", "attach", "gateway")
    if site.lan is not None and gateway is not None and gateway not in site.lan:
        yield f"agent.attach.gateway: {gateway} is outside the subnet; allowed: an address in {site.lan}"


def interfaces_are_configured_uplinks(site: SiteDocument) -> Iterator[str]:
    """[agent.attach], [egress], [host]: parent, uplink and default_exit each have a table [uplinks.NAME]."""
    uplinks = site.table("uplinks")
    names = {
        "agent.attach.parent": site.parent,
        "egress.uplink": site.valid(InterfaceName, "egress", "uplink"),
        "host.default_exit": site.valid(InterfaceName, "host", "default_exit"),
    }
    for key, name in names.items():
        if uplinks and name is not None and name not in uplinks:
            yield f"{key}: {shown(name)} is not a configured uplink; allowed: {', '.join(map(toml_key, uplinks))}"


def exceptions_name_configured_uplinks(site: SiteDocument) -> Iterator[str]:
    """[[egress.except]]: the uplink of each exception has a table [uplinks.NAME]; ports come with TCP or UDP."""
    uplinks = site.table("uplinks")
    exceptions = site.valid(list[dict[str, Any]], "egress", "except") or []
    for number, exception in enumerate(exceptions, 1):
        name = exception.get("uplink")
        if uplinks and isinstance(name, str) and name not in uplinks:
            allowed = ", ".join(map(toml_key, uplinks))
            yield f"egress.except[{number}].uplink: {shown(name)} is not a configured uplink; allowed: {allowed}"
        if exception.get("protocol") == "icmp" and exception.get("ports"):
            yield f"egress.except[{number}].ports: icmp has no ports; allowed: with protocol tcp or udp"


def source_is_an_interface_or_an_address(site: SiteDocument) -> Iterator[str]:
    """[[agent.source]]: exactly one of interface and address, none twice; the uplink has a table [uplinks.NAME]."""
    uplinks, seen = site.table("uplinks"), set()
    for number, source in enumerate(site.valid(list[dict[str, Any]], "agent", "source") or [], 1):
        key = f"agent.source[{number}]"
        if ("interface" in source) == ("address" in source):
            given = "both interface and address are" if "address" in source else "neither interface nor address is"
            yield f"{key}: {given} given; allowed: exactly one of them"
            continue
        place = source.get("interface", source.get("address"))
        if isinstance(place, str) and place in seen:
            yield f"{key}: {shown(place)} is given twice; allowed: one table for each source"
        if isinstance(place, str):
            seen.add(place)
        name = source.get("uplink")
        if uplinks and isinstance(name, str) and name not in uplinks:
            allowed = ", ".join(map(toml_key, uplinks))
            yield f"{key}.uplink: {shown(name)} is not a configured uplink; allowed: {allowed}"


def bridged_agent_leaves_by_its_parent(site: SiteDocument) -> Iterator[str]:
    """[egress]: the uplink of a bridged agent is its parent."""
    uplink = site.valid(InterfaceName, "egress", "uplink")
    if site.parent is not None and uplink is not None and uplink != site.parent:
        yield f"egress.uplink: {shown(uplink)} is not the agent's parent; allowed: {toml_key(site.parent)}"


def bridged_agents_parent_has_a_gateway(site: SiteDocument) -> Iterator[str]:
    """[uplinks]: the parent of a bridged agent is no point-to-point link, so it has a gateway."""
    uplink = site.table("uplinks").get(site.parent or "")
    if isinstance(uplink, dict) and "gateway" not in uplink:
        key = f"uplinks.{toml_key(site.parent or '')}.gateway"
        yield f"{key}: missing; allowed: an IPv4 address, because a bridged agent's parent is a LAN"


def bridged_agent_has_no_table(site: SiteDocument) -> Iterator[str]:
    """[egress]: table belongs to NAT."""
    if site.mode in BRIDGED and "table" in site.table("egress"):
        yield f"egress.table: policy routing does not apply to a bridged agent ({site.mode}); leave it out"


def table_name_names_a_table(site: SiteDocument) -> Iterator[str]:
    """[egress]: table_name comes with table."""
    egress = site.table("egress")
    if "table_name" in egress and "table" not in egress:
        yield "egress.table_name: given without a table; allowed: together with egress.table"


def other_machines_are_outside_the_agents_subnet(site: SiteDocument) -> Iterator[str]:
    """[uplinks], [probe]: gateways and the probe target lie outside a NATed agent's subnet."""
    if site.mode != "nat" or site.subnet is None:
        return
    keys = {f"uplinks.{toml_key(name)}.gateway": ("uplinks", name, "gateway") for name in site.table("uplinks")} | {
        "probe.target": ("probe", "target")
    }
    for key, path in keys.items():
        machine = site.valid(MachineAddress, *path)
        if machine is not None and machine in site.subnet:
            yield f"{key}: {machine} lies inside the agent's subnet; allowed: an address outside {site.subnet}"


def waiver_is_of_a_check_or_of_a_diagnosis(site: SiteDocument) -> Iterator[str]:
    """[[waive]]: exactly one of check and diagnosis."""
    for number, waiver in enumerate(site.valid(list[dict[str, Any]], "waive") or [], 1):
        if ("check" in waiver) == ("diagnosis" in waiver):
            given = "both check and diagnosis are" if "check" in waiver else "neither check nor diagnosis is"
            yield f"waive[{number}]: {given} given; allowed: exactly one of them"


RULES: tuple[Callable[[SiteDocument], Iterator[str]], ...] = (
    agent_is_a_container_or_a_namespace,
    ip_range_is_part_of_the_subnet,
    gateway_is_on_the_lan,
    interfaces_are_configured_uplinks,
    exceptions_name_configured_uplinks,
    source_is_an_interface_or_an_address,
    bridged_agent_leaves_by_its_parent,
    bridged_agents_parent_has_a_gateway,
    bridged_agent_has_no_table,
    table_name_names_a_table,
    other_machines_are_outside_the_agents_subnet,
    waiver_is_of_a_check_or_of_a_diagnosis,
)


def contradictions(document: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each rule that the values of a document break together."""
    site = SiteDocument(document)
    for rule in RULES:
        yield from rule(site)
