"""Podman's own description of its networks: the JSON of ``podman network inspect``, and of libpod's API.

Podman also answers Docker's API (:mod:`viacheck.parsers.docker_api`). That answer leaves out the parent and the range
of a macvlan network and the name of a bridge, and calls the network ``podman`` ``bridge``. The socket that gives it
gives the full description too: ``GET /libpod/networks/json``
(https://docs.podman.io/en/latest/_static/api.html, podman-network-create(1)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network, summarize_address_range
from typing import Any

from viacheck.model.docker_state import DockerNetwork, IPAMPool
from viacheck.parsers.json_answer import JsonAnswer, NotAnEngineAnswer

PODMAN_NETWORK, PODMAN_BRIDGE = "podman", "podman0"
"""The network of a container that was started without ``--network``, and its bridge (containers.conf(5))."""
ON_PARENT = ("macvlan", "ipvlan")
KEPT_OPTIONS = ("bclim", "isolate", "metric", "mode", "mtu", "no_default_route", "vlan", "vrf")
"""Options of ``podman network create -o`` that are kept."""
BY_PODMAN = "host-local"
"""The address management by podman itself; ``dhcp`` and ``none`` are the others."""


def podman_networks(answer: Any) -> tuple[DockerNetwork, ...]:
    """Return the networks of an answer.

    Args:
        answer: the body of ``GET /libpod/networks/json``, or the output of ``podman network inspect``.

    Raises:
        NotAnEngineAnswer: when a field is missing or has another type.
    """
    if not isinstance(answer, list | tuple):
        raise NotAnEngineAnswer("podman's answer about its networks is not a list")
    return tuple(_network(JsonAnswer(network, "a network of podman")) for network in answer)


def _network(network: JsonAnswer) -> DockerNetwork:
    driver, interface = network.text("driver"), network.text("network_interface") or None
    options = network.options("options")
    address_management = network.part("ipam_options").text("driver")
    return DockerNetwork(
        name=network.required_text("name"),
        id=network.required_text("id"),
        driver=driver,
        internal=network.flag("internal"),
        ipv6=network.flag("ipv6_enabled"),
        pools=tuple(
            IPAMPool(
                subnet=subnet.required_text("subnet"),
                gateway=subnet.text("gateway") or None,
                ip_range=_range(subnet.part("lease_range")),
            )
            for subnet in network.parts("subnets")
        ),
        parent=interface if driver in ON_PARENT else None,
        bridge=interface if driver == "bridge" else None,
        options={option: value for option, value in options.items() if option in KEPT_OPTIONS},
        not_kept=tuple(_not_kept(network, options)),
        address_management=address_management if address_management not in ("", BY_PODMAN) else None,
    )


def _range(lease_range: JsonAnswer) -> str | None:
    """Return a lease range as ``--ip-range`` takes it: a subnet where it is one, otherwise ``FIRST-LAST``."""
    first, last = lease_range.text("start_ip"), lease_range.text("end_ip")
    if not first or not last:
        return None
    try:
        subnet = _subnet_of(IPv4Address(first), IPv4Address(last))
    except AddressValueError:
        subnet = None
    return f"{first}-{last}" if subnet is None else str(subnet)


def _subnet_of(first: IPv4Address, last: IPv4Address) -> IPv4Network | None:
    """Return the subnet that a range was given as; podman leaves the first address of a subnet out."""
    if int(first) == 0 or first > last:
        return None
    subnets = list(summarize_address_range(first - 1, last))
    return subnets[0] if len(subnets) == 1 else None


def _not_kept(network: JsonAnswer, options: Mapping[str, str]) -> Iterator[str]:
    if network.options("labels"):
        yield "labels"
    yield from (f"the option {option}" for option in options if option not in KEPT_OPTIONS)
    if network.parts("routes"):
        yield "routes"
    if network.texts("network_dns_servers"):
        yield "DNS servers"
