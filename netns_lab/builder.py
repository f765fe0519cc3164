"""Builds a lab from its description: network namespaces that have no name and end with this process.

Each machine's configuration goes to the kernel in one batch; the host also gets a mount namespace with private files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from netns_lab import nft_rules, rtnetlink_batch
from netns_lab.host_files import private_files
from netns_lab.lab import Lab, LabMachine, closed_on_failure
from netns_lab.networkd_daemon import NetworkdDaemon, NetworkdFailed
from netns_lab.pid_namespace import contain_processes
from netns_lab.plan import (
    AGENT_PATH,
    HOST,
    PACKET_FILTER_TABLE,
    QUICK_NEIGHBOURS,
    RETRANSMIT_MS,
    Cable,
    LabPlan,
    Machine,
)
from netns_lab.rtnetlink_batch import LabBuildError, LabRequest, request
from netns_lab.services.dhcp_client import DHCPClient, NoLease
from netns_lab.services.dhcp_server import DHCPServer
from netns_lab.services.link_watcher import start_link_watcher
from netns_lab.services.responders import Responders
from viacheck.host import syscalls
from viacheck.host.namespace import Namespace
from viacheck.host.sysctl import write_sysctl
from viacheck.model.namespace_state import Link
from viacheck.netlink.codec import NetlinkSocket

QUIET_SYSCTLS = {
    # An address is usable at once: a lab's addresses are unique by construction, and their detection costs 1.3 s.
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
}


def build(plan: LabPlan) -> Lab:
    """Build a lab from its description.

    Raises:
        LabBuildError: when the system forbids namespaces, or the kernel refuses a part of the lab.
    """
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as closing:
        visitor = closing.enter_context(ThreadPoolExecutor(1, thread_name_prefix="lab-builder"))
        prepared = _create(plan, visitor, undo)
        namespaces = {name: namespace for name, (namespace, _netlink) in prepared.items()}
        netlink = {name: closing.enter_context(opened) for name, (_namespace, opened) in prepared.items()}
        bound = _begin_bind(namespaces[plan.host.name], namespaces[plan.agent.name])
        machines = {machine.name: LabMachine(machine, namespaces[machine.name]) for machine in plan.machines}
        # A cable's second end exists once the machine at its first end has made both.
        for machine in plan.machines:
            links = _links(machine, plan.cables, machines)
            rtnetlink_batch.send(namespaces[machine.name], links, by=netlink[machine.name])
        # The switches last: a port comes up with the carrier of a machine that is up already.
        outside, inside = (*plan.neighbours, *reversed(plan.gateways)), (plan.agent, plan.host, *plan.switches)
        have_sysctls = _begin_sysctls([machines[machine.name] for machine in (*outside, *inside)], visitor)
        for machine in outside:
            have_sysctls[machine.name].result()
            _configure(machines[machine.name], netlink)
        gateways = [(machines[gateway.name].namespace, gateway.answers_on) for gateway in plan.gateways]
        responders = Responders(gateways)
        undo.callback(responders.close)
        for machine in inside:
            have_sysctls[machine.name].result()
            _configure(machines[machine.name], netlink)
        for machine in (*plan.switches, plan.host, plan.agent, *plan.gateways, *plan.neighbours):
            rtnetlink_batch.settle(namespaces[machine.name], machine.state.links, netlink[machine.name])
        bound.result()
        lab = Lab(plan, machines, responders.wait_until_open(), None)
        undo.pop_all()
    with closed_on_failure(lab):
        if plan.daemons:
            lab.on_close(contain_processes(lab.host.namespace))
        _serve_dhcp(lab)
        _boot(lab)
        _hold_lease(lab)
    return lab


def _create(plan: LabPlan, visitor: Executor, undo: contextlib.ExitStack) -> dict[str, tuple[Namespace, NetlinkSocket]]:
    """Create the namespace of each machine, with a socket in it.

    The visitor makes all but the host's, one after the other: a thread for each takes longer to start.
    """
    begun: dict[str, Callable[[], tuple[Namespace, NetlinkSocket]]] = {}
    for machine in plan.machines:
        if machine is plan.host:
            begun[machine.name] = partial(_prepared, Namespace.begin_create(machine.name, private_files(plan)))
        else:
            begun[machine.name] = visitor.submit(_create_here, machine.name).result
    created: dict[str, tuple[Namespace, NetlinkSocket]] = {}
    refused: list[tuple[str, OSError | LabBuildError]] = []
    for name, finish in begun.items():
        try:
            created[name] = finish()
        except (OSError, LabBuildError) as error:
            refused.append((name, error))
        else:
            undo.callback(created[name][0].close)
    if refused:
        for _namespace, opened in created.values():
            opened.close()
        name, refusal = refused[0]
        if isinstance(refusal, LabBuildError):
            raise refusal
        raise LabBuildError(
            f"lab {plan.name}: namespace {name}: {refusal}; labs need root or user namespaces"
        ) from refusal
    return created


def _prepared(created: Callable[[], Namespace]) -> tuple[Namespace, NetlinkSocket]:
    namespace = created()
    try:
        return namespace, namespace.call(partial(_prepare, namespace.name))
    except BaseException:
        namespace.close()
        raise


def _create_here(name: str) -> tuple[Namespace, NetlinkSocket]:
    """Create a namespace, in which the calling thread stays."""
    namespace = Namespace.move_into_new(name)
    try:
        # Before it has an interface: a new interface takes the defaults of that moment.
        return namespace, _prepare(name)
    except BaseException:
        namespace.close()
        raise


def _configure(machine: LabMachine, netlink: dict[str, NetlinkSocket]) -> None:
    rtnetlink_batch.send(machine.namespace, configuration(machine.plan), by=netlink[machine.plan.name])
    if machine.plan.packet_filter:
        nft_rules.apply(machine.namespace, PACKET_FILTER_TABLE, machine.plan.packet_filter)


def _boot(lab: Lab) -> None:
    """Start the link watcher and the network manager, and run the boot commands, as an init does."""
    plan = lab.plan
    if plan.link_hook is not None:
        lab.on_close(start_link_watcher(lab.host.namespace, plan.link_hook))
    if plan.networkd:
        _start_networkd(lab)
    for argv in plan.boot:
        result = lab.host.namespace.run(argv)
        if not result.ok:
            # A real host comes up all the same; the checks find what it lacks.
            lab.notes.append(f"{result.command} ended with exit code {result.exit_code}: {result.stderr.strip()}")
    if plan.boots:
        for machine in (plan.host, *plan.gateways):
            rtnetlink_batch.settle(lab.machines[machine.name].namespace, machine.state.links)


def _start_networkd(lab: Lab) -> None:
    try:
        networkd = NetworkdDaemon.start(lab.host.namespace, lab.plan.host.state.links)
    except NetworkdFailed as error:
        raise LabBuildError(f"lab {lab.plan.name}: {error}") from error
    lab.networkd = networkd
    lab.on_close(networkd.close)
    try:
        networkd.settle()
    except NetworkdFailed as error:
        # The host comes up all the same, as after a failed boot command.
        lab.notes.append(str(error))


def _serve_dhcp(lab: Lab) -> None:
    for machine in lab.plan.machines:
        if machine.dhcp is not None:
            namespace, first = lab.machines[machine.name].namespace, machine.state.addresses[0]
            lab.add_dhcp_server(DHCPServer(namespace, first.interface, first.address, machine.dhcp))


def _hold_lease(lab: Lab) -> None:
    if lab.plan.leased is not None:
        try:
            lab.add_dhcp_client(DHCPClient.start(lab.agent.namespace, lab.plan.leased))
        except NoLease as error:
            raise LabBuildError(f"lab {lab.plan.name}: {error}") from error


def quick_neighbours(links: Iterable[Link]) -> dict[str, str]:
    """Return the sysctls by which interfaces give a silent neighbour up soon."""
    return {pattern.format(link.name): RETRANSMIT_MS for pattern in QUICK_NEIGHBOURS for link in links}


def _links(machine: Machine, cables: Sequence[Cable], machines: dict[str, LabMachine]) -> list[LabRequest]:
    """Return the requests for a machine's interfaces, for the cables whose first end it is, and on the host macvlans.

    A macvlan of another machine is made in the host's namespace, which has its parent.
    """
    requests, on_parent = [], []
    by_cable = {cable.interface: cable for cable in cables if cable.machine == machine.name}
    for link in machine.state.links:
        if link.kind == "macvlan" and link.peer_netnsid is not None:
            continue
        if link.kind == "macvlan":
            on_parent.append(rtnetlink_batch.add_link(link, parent_index=link.peer_index))
        elif link.kind != "veth":
            requests.append(rtnetlink_batch.add_link(link))
        elif link.name in by_cable:
            cable = by_cable[link.name]
            other = machines[cable.other_machine]
            requests.append(rtnetlink_batch.add_veth(link, _link(other.plan, cable.other_interface), other.namespace))
    requests += on_parent
    if machine.name == HOST:
        requests += [
            rtnetlink_batch.add_macvlan(link, other.namespace)
            for other in machines.values()
            for link in other.plan.state.links
            if link.kind == "macvlan" and link.peer_netnsid is not None
        ]
    return requests


def _link(machine: Machine, name: str) -> Link:
    link = machine.state.link(name)
    if link is None:
        raise LabBuildError(f"{machine.name}: a cable ends at {name}, which is not described")
    return link


def configuration(machine: Machine) -> list[LabRequest]:
    """Return the requests that configure a machine whose interfaces exist, in the order that settles fastest."""
    state = machine.state
    indexes = {"lo": 1} | {link.name: link.index for link in state.links}
    requests = [request("link", "set", index=1, state="up")]
    # Bridge ports come up before their bridge: otherwise the bridge sees the carrier too late for the first ARP.
    for link in sorted(state.links, key=lambda link: link.kind == "bridge"):
        if link.master is not None:
            requests.append(request("link", "set", index=link.index, master=indexes[link.master]))
        if link.up:
            requests.append(request("link", "set", index=link.index, state="up"))
    requests += [rtnetlink_batch.add_address(address, indexes[address.interface]) for address in state.addresses]
    requests += [rtnetlink_batch.route_request("add", route, indexes) for route in state.routes]
    requests += [rtnetlink_batch.rule_request("add", rule) for rule in state.rules]
    requests += [
        rtnetlink_batch.add_neighbour(neighbour, indexes[neighbour.interface]) for neighbour in state.neighbours
    ]
    return requests


def set_sysctls(namespace: Namespace, values: dict[str, str]) -> None:
    """Write network sysctls of a namespace.

    Raises:
        LabBuildError: when a sysctl does not exist or may not be written.
    """
    if values:
        namespace.call(lambda: _write_sysctls(namespace.name, values))


def _write_sysctls(name: str, values: dict[str, str]) -> None:
    for path, value in values.items():
        try:
            write_sysctl(path, value)
        except OSError as error:
            raise LabBuildError(f"{name}: sysctl {path}={value}: {error.strerror}") from error


def _sysctls(machine: Machine) -> dict[str, str]:
    return quick_neighbours(machine.state.links) | machine.state.sysctls


def _prepare(name: str) -> NetlinkSocket:
    """Set the defaults of the calling thread's namespace, which is new, and return a socket of it."""
    _write_sysctls(name, QUIET_SYSCTLS)
    return rtnetlink_batch.open_socket()


def _begin_sysctls(machines: Iterable[LabMachine], visitor: Executor) -> dict[str, Future[None]]:
    """Begin to write the sysctls of every machine: the host's beside those of the others, which the visitor enters."""

    def visit(machine: LabMachine) -> None:
        syscalls.setns(machine.namespace.net_fd, syscalls.CLONE_NEWNET)
        _write_sysctls(machine.plan.name, _sysctls(machine.plan))

    return {
        machine.plan.name: machine.namespace.submit(partial(_write_sysctls, HOST, _sysctls(machine.plan)))
        if machine.plan.name == HOST
        else visitor.submit(visit, machine)
        for machine in machines
    }


def bind_agent_namespace(host: Namespace, agent: Namespace) -> None:
    """Bind the agent's namespace to a path in the host's private /run, as ``ip netns`` does."""
    _begin_bind(host, agent).result()


def _begin_bind(host: Namespace, agent: Namespace) -> Future[None]:
    def bind() -> None:
        Path(AGENT_PATH).touch()
        syscalls.mount(f"/proc/self/fd/{agent.net_fd}", AGENT_PATH, flags=syscalls.MS_BIND)

    return host.submit(bind)
