"""The lab as most scripts build it: named namespaces, and an ``ip`` command for each object."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence

from netns_lab.nft_rules import Masquerade
from netns_lab.plan import LabPlan, Machine
from viacheck.bench.figures import BenchFailed
from viacheck.host import syscalls
from viacheck.host.namespace import Namespace
from viacheck.model.policy_rule import rule_arguments
from viacheck.model.route import route_arguments


def unavailable() -> str | None:
    """Return which programs are missing; None when all are there."""
    missing = [name for name in ("ip", "nft", "sysctl") if shutil.which(name) is None]
    return f"needs {', '.join(missing)}" if missing else None


def commands(plan: LabPlan) -> Iterator[Sequence[str]]:
    """Yield every command that builds the lab, in an order that works."""
    for machine in plan.machines:
        yield "ip", "netns", "add", machine.name
    for cable in plan.cables:
        ends = ("name", cable.other_interface, "netns", cable.other_machine)
        yield "ip", "-n", cable.machine, "link", "add", cable.interface, "type", "veth", "peer", *ends
    for machine in plan.machines:
        for link in machine.state.links:
            if link.kind is not None and link.kind != "veth":
                yield "ip", "-n", machine.name, "link", "add", link.name, "type", link.kind
    # The far ends first, as viacheck does.
    for machine in reversed(plan.machines):
        yield from _configuration(machine)


def _configuration(machine: Machine) -> Iterator[Sequence[str]]:
    ip = ("ip", "-n", machine.name)
    state = machine.state
    for path, value in state.sysctls.items():
        yield "ip", "netns", "exec", machine.name, "sysctl", "-qw", f"{path}={value}"
    yield *ip, "link", "set", "lo", "up"
    for link in sorted(state.links, key=lambda link: link.kind == "bridge"):
        if link.master is not None:
            yield *ip, "link", "set", link.name, "master", link.master
        yield *ip, "link", "set", link.name, "up"
    for address in state.addresses:
        yield *ip, "address", "add", f"{address.address}/{address.prefixlen}", "dev", address.interface
    for route in state.routes:
        yield *ip, "route", "add", *route_arguments(route)
    for rule in state.rules:
        yield *ip, "rule", "add", *rule_arguments(rule)
    for filter_rule in machine.packet_filter:
        assert isinstance(filter_rule, Masquerade)
        yield "ip", "netns", "exec", machine.name, "nft", _masquerade(filter_rule)


def _masquerade(rule: Masquerade) -> str:
    return (
        "add table ip nat; add chain ip nat postrouting { type nat hook postrouting priority srcnat; }; "
        f'add rule ip nat postrouting ip saddr {rule.source} oifname != "{rule.not_oif}" masquerade'
    )


@contextlib.contextmanager
def built(plan: LabPlan) -> Iterator[Namespace]:
    """Build the lab; yield the agent's namespace. The names are in a mount namespace that ends with the lab.

    Raises:
        BenchFailed: naming the command that failed.
    """
    place = Namespace.create("by-ip", _private_names)
    try:
        for command in commands(plan):
            done = place.run(command)
            if not done.ok:
                raise BenchFailed(f"{done.command}: exit {done.exit_code}: {done.stderr.strip()}")
        agent = place.call(lambda: Namespace.from_path(f"/run/netns/{plan.agent.name}"))
        try:
            yield agent
        finally:
            agent.close()
    finally:
        place.close()


def _private_names() -> None:
    syscalls.mount("tmpfs", "/run", "tmpfs", options="mode=755")
    os.makedirs("/run/netns")
