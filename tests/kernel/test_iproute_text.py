"""Rules and routes that the one formatter writes, given to ``ip`` in a namespace and read back from the kernel."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, given, settings

from tests.helpers import routing_strategies
from viacheck.host.namespace import Namespace
from viacheck.model.address_family import Family
from viacheck.model.policy_rule import Rule, rule_command
from viacheck.model.route import Route, route_command
from viacheck.parsers.iproute import parse_routes, parse_rules

INTERFACES = ("eth0", "wlan0", "docker0", "br-0123456789ab", "eth0.40")


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    """A namespace with the interfaces that the strategies name, each with a carrier."""
    namespace = Namespace.create("iproute-text")
    run(namespace, "ip link set lo up")
    for number, name in enumerate(INTERFACES):
        run(namespace, f"ip link add {name} type veth peer name peer{number}")
        run(namespace, f"ip link set {name} up")
        run(namespace, f"ip link set peer{number} up")
    yield namespace
    namespace.close()


def run(namespace: Namespace, command: str) -> str:
    result = namespace.run(shlex.split(command), 5)
    if result.exit_code:
        raise subprocess.CalledProcessError(result.exit_code, command, stderr=result.stderr)
    return result.stdout


def rules(namespace: Namespace, family: Family) -> tuple[Rule, ...]:
    return parse_rules(run(namespace, f"ip -N -j -d -{family} rule show"), family)


def routes(namespace: Namespace, like: Route) -> list[Route]:
    """The namespace's routes to the same destination: the kernel adds its own IPv6 routes meanwhile."""
    dumped = parse_routes(run(namespace, f"ip -N -j -d -{like.family} route show table all"), like.family)
    return [route for route in dumped if (route.destination, route.table) == (like.destination, like.table)]


@settings(max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rule=routing_strategies.rules())
def test_the_kernel_holds_the_rule_that_the_command_names(host: Namespace, rule: Rule) -> None:
    before = rules(host, rule.family)
    try:
        run(host, rule_command("add", rule))
    except subprocess.CalledProcessError:
        assume(False)
    assert [added for added in rules(host, rule.family) if added not in before] == [rule]
    run(host, rule_command("del", rule))
    assert rules(host, rule.family) == before


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=routing_strategies.routes())
def test_the_kernel_holds_the_route_that_the_command_names(host: Namespace, route: Route) -> None:
    before = routes(host, route)
    try:
        run(host, route_command("add", route))
    except subprocess.CalledProcessError:
        assume(False)
    (added,) = (added for added in routes(host, route) if added not in before)
    run(host, route_command("del", added))
    assert routes(host, route) == before
    run(host, route_command("add", added))
    assert added in routes(host, route), "the command of a route that was read restores it"
    run(host, route_command("del", added))
