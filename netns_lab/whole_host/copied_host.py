"""The host that the run was started on, rebooted: its own network files boot in a whole host of its release.

The machines around it are those of its replica. The whole host gets bare network cards, and its engine runs a container
attached as the agent's is. Addresses, rules and routes that the boot did not bring back are then added, as the host has
them now: FLAP-08 reboots the copy and judges what is missing after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from netns_lab.builder import build
from netns_lab.docker_engine.containers import RestartPolicy
from netns_lab.docker_engine.daemon import EngineFailed
from netns_lab.docker_engine.engine_builder import wait_for_pipework
from netns_lab.lab import Lab, LabCommandError, closed_on_failure
from netns_lab.plan import HOST, Cable, LabPlan, Machine, SegmentMachines
from netns_lab.replica.cabling import AGENT, OPEN_ENDS, Cabling
from netns_lab.replica.replica_files import RESOLV_CONF, resolvers_of
from netns_lab.replica.replica_plan import ReplicaPlan, with_short_timeout
from netns_lab.replica.unconfigured import leasable, lease_pool
from netns_lab.rtnetlink_batch import LabBuildError
from netns_lab.services.dhcp_server import DHCPPool
from netns_lab.whole_host.base_root import BaseRoot
from netns_lab.whole_host.boot_losses import restore_what_the_boot_lost
from netns_lab.whole_host.copied_files import CopiedFiles, copied_files
from netns_lab.whole_host.docker_service import DockerService
from netns_lab.whole_host.networkd_service import NetworkdService
from netns_lab.whole_host.power import WholeHost, WholeHostFailed
from netns_lab.whole_host.root_files import RootFile, root_files
from netns_lab.whole_host.stacked_uplinks import (
    MADE,
    MadeLink,
    StackedUplink,
    StackImpossible,
    as_cards,
    stacked_uplink,
    switches_for,
)
from netns_lab.whole_host.unit_states import failed_units
from viacheck.disruption.events import NETWORKD_SERVICE
from viacheck.model.docker_state import DockerContainer, DockerNetwork
from viacheck.model.intent import Intent, PipeworkStaticAttach
from viacheck.model.namespace_state import Link, NetworkState
from viacheck.model.snapshot import Snapshot
from viacheck.persistence import boot_files
from viacheck.persistence.assess import manager_of, read_all, table_names

ENGINES_OWN = ("bridge", "none")
"""The networks that every engine has."""
DRIVERS = ("bridge", "macvlan")
_OPTIONS = {"com.docker.network.bridge.name", "parent", "macvlan_mode"}
_SETS_UP_NOTHING = {"labels", "--attachable"}
"""The settings of a network that change none of its packets. Every network of a compose file has labels."""
_CARD_KINDS = (None, "veth")
SET_WITHIN, LEASED_WITHIN = 2.0, 10.0
"""Seconds after the boot for the last rule or route of the host's files, without and with leases."""
NM_CARDS = "/etc/NetworkManager/conf.d/zz-lab.conf"
"""By its own udev rules NetworkManager leaves alone the virtual devices that replace the cards."""
NOTE = (
    "this is a copy of the host, booted from the host's own network files: a Debian {release} with systemd as PID 1 in "
    "namespaces; FLAP-08 reboots it; the host itself was not touched"
)


class CopyImpossible(Exception):
    """No copy of this host can be booted; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """The description of a copied host."""

    lab: LabPlan
    container: DockerContainer
    network: DockerNetwork | None
    """The network of its container, where the engine does not have it by itself."""
    made: tuple[MadeLink, ...] = ()
    """What the host's files make of its cards."""


def plan_copy(
    snapshot: Snapshot, intent: Intent, name: str, details: Mapping[str, Mapping[str, object]] | None = None
) -> CopyPlan:
    """Describe the copy of the host that a snapshot was taken of.

    Args:
        snapshot: the host.
        intent: the intent.
        name: the host's name in messages.
        details: what :func:`netns_lab.whole_host.stacked_uplinks.read_details` returns for the host.

    Raises:
        CopyImpossible: the host has a part that no copy of it can boot with.
    """
    container, network = _container(snapshot, intent)
    if by_cron := boot_files.read(snapshot.files, table_names(snapshot)).by_cron:
        places = ", ".join(map(str, by_cron))
        raise CopyImpossible(f"cron sets rules or routes at boot ({places}), and the copy does not run cron")
    for uplink in intent.uplinks:
        _check_uplink(snapshot, intent, uplink)
    resolvers, _notes = resolvers_of(snapshot)
    host = replace(snapshot.host, neighbours=snapshot.known_neighbours)
    cabling = Cabling(as_cards(host), None, intent, resolvers)
    cards = {link.name for link in snapshot.host.links if _is_card(link, snapshot)}
    stacks = _stacks(snapshot, intent, cabling, details or {}, cards)
    switches = tuple(switches_for(stacks, cabling.cables, snapshot.host))
    switched = tuple(cable for switch in switches for cable in switch.cables)
    behind_switch = {cable.interface for cable in switched if cable.machine == HOST}
    cables = tuple(
        cable
        for cable in cabling.cables
        if cable.machine == HOST and cable.interface in cards and cable.interface not in behind_switch
    )
    plugged = {cable.interface for cable in cables} | behind_switch
    links = tuple(replace(link, master=None, flags=()) for link in cabling.host_links if link.name in plugged)
    ends = {cable.other_interface for cable in cables if cable.other_machine == OPEN_ENDS}
    open_ends = cabling.open_ends.freeze()
    state = replace(open_ends.state, links=tuple(link for link in open_ends.state.links if link.name in ends))
    lab = LabPlan(
        name=f"reboot:{name}",
        title="",
        guide="",
        host=Machine(HOST, NetworkState(links=links)),
        agent=Machine(AGENT),
        gateways=tuple(
            gateway.freeze()
            for uplink, gateway in cabling.gateways.items()
            if uplink in intent.uplinks or uplink in plugged or uplink in {stack.name for stack in stacks}
        ),
        cables=(*cables, *switched),
        switches=tuple(switch.machine for switch in switches),
        commands=tuple((switch.machine.name, argv) for switch in switches for argv in switch.commands),
        files={RESOLV_CONF: "".join(f"nameserver {address}\n" for address in resolvers)},
        intent=with_short_timeout(intent),
        segments={uplink: SegmentMachines(cabling.gateways[uplink].name) for uplink in intent.uplinks},
        neighbours=(replace(open_ends, state=state),),
        network_manager=True,
        notes=(*cabling.notes, *(stack.note for stack in stacks if stack.note is not None)),
    )
    names = [*sorted(plugged), *(stack.name for stack in stacks)]
    made = dict.fromkeys(link for stack in stacks for link in stack.links)
    return CopyPlan(_with_leases(lab, snapshot, names, tuple(cabling.cables)), container, network, tuple(made))


def _stacks(
    snapshot: Snapshot, intent: Intent, cabling: Cabling, details: Mapping[str, Mapping[str, object]], cards: set[str]
) -> list[StackedUplink]:
    """Return the interfaces with a gateway that the host's files make of its cards.

    Raises:
        CopyImpossible: an uplink is one that the copy cannot have.
    """
    stacks = []
    for name in cabling.gateways:
        link = snapshot.host.link(name)
        if link is None or link.kind not in MADE:
            continue
        try:
            stacks.append(stacked_uplink(name, snapshot.host, details, cards))
        except StackImpossible as error:
            if name in intent.uplinks:
                raise CopyImpossible(str(error)) from None
            cabling.notes.append(f"{name} leads nowhere in the copy: {error}")
    return stacks


def _with_leases(lab: LabPlan, snapshot: Snapshot, names: Sequence[str], cables: tuple[Cable, ...]) -> LabPlan:
    """Let the gateways lease the host's cards, and what is made of them, their present addresses.

    Args:
        lab: the lab.
        snapshot: the host.
        names: those interfaces.
        cables: that lead from them to gateways.

    Raises:
        CopyImpossible: an uplink has a lease that the copy cannot get.
    """
    replica = ReplicaPlan(
        snapshot=snapshot, lab=replace(lab, cables=cables), host=snapshot.host, agent=None, shares_host_network=False,
        agent_assumed=False, silent=(), point_to_point=(), wireless=(),
    )  # fmt: skip
    pools, possible, notes = dict[str, DHCPPool](), leasable(replica), list[str]()
    for name in names:
        if not any(address.valid_lifetime is not None for address in snapshot.host.addresses_of(name)):
            continue
        reason = "no gateway of the copy can lease it" if name not in possible else None
        if manager_of(read_all(snapshot), name) == "ifupdown":
            reason = "a base root has no DHCP client for ifupdown"
        if reason is None:
            pools[f"gw-{name}"] = lease_pool(replica, name)
            notes.append(f"{name} gets a lease of its present address, with a router and nothing else")
        elif name in lab.segments:
            raise CopyImpossible(f"{name} has a lease: {reason}")
        else:
            notes.append(f"{name} gets no lease in the copy: {reason}")
    gateways = tuple(replace(gateway, dhcp=pools.get(gateway.name)) for gateway in lab.gateways)
    return replace(lab, gateways=gateways, notes=(*lab.notes, *notes))


def _container(snapshot: Snapshot, intent: Intent) -> tuple[DockerContainer, DockerNetwork | None]:
    engine = snapshot.engine
    container = engine.container if engine is not None else None
    if engine is None or container is None or engine.podman or engine.rootless:
        raise CopyImpossible("the copy's Docker engine runs the agent, and this host's does not run it")
    if intent.mode == "pipework-dhcp":
        raise CopyImpossible("the agent has a lease by pipework, which the copy does not ask for")
    names = [attachment.network for attachment in container.attachments] or ["none"]
    if len(names) > 1 or container.namespace_of is not None or names == ["host"]:
        raise CopyImpossible("the copy's container has one network of its own, and the agent's has not")
    if names[0] in ENGINES_OWN:
        return container, None
    network = engine.network(names[0])
    if network is None or network.driver not in DRIVERS or not network.pools:
        driver = network.driver if network is not None else "unknown"
        raise CopyImpossible(f"the agent's network {names[0]} (driver {driver}) cannot be created in the copy")
    more = sorted({*network.options.keys() - _OPTIONS, *network.not_kept} - _SETS_UP_NOTHING)
    if network.internal or network.ipv6 or more or len(network.pools) > 1:
        settings = ", ".join(more) or "internal, IPv6 or several subnets"
        raise CopyImpossible(f"the agent's network {names[0]} has settings that the copy cannot have: {settings}")
    return container, network


def _check_uplink(snapshot: Snapshot, intent: Intent, uplink: str) -> None:
    link = snapshot.host.link(uplink)
    if link is None:
        raise CopyImpossible(f"this host has no interface {uplink} that the copy could have")
    if link.kind not in ("bridge", *MADE) and not _is_card(link, snapshot):
        raise CopyImpossible(
            f"{uplink} is a {link.kind or 'point-to-point link'}, and the copy has cards, and VLANs, bonds and bridges "
            "of cards"
        )
    if link.kind == "bridge" and not any(
        port.master == uplink and _is_card(port, snapshot) for port in snapshot.host.links
    ):
        raise CopyImpossible(f"{uplink} is a bridge without a card as port, and the copy's bridges have cards")
    advertised = any(address.valid_lifetime is not None for address in snapshot.host.addresses_of(uplink, 6))
    if advertised and intent.uplinks[uplink].gateway6 is not None:
        raise CopyImpossible(f"{uplink} has an advertised IPv6 address, and the copy's gateways advertise nothing")
    if link.wireless and manager_of(read_all(snapshot), uplink) in ("networkmanager", "netplan"):
        raise CopyImpossible(f"{uplink} is a Wi-Fi interface of NetworkManager or netplan, and the copy has no Wi-Fi")


def _is_card(link: Link, snapshot: Snapshot) -> bool:
    """Return whether an interface is there before any program of the host runs."""
    if link.name == "lo" or link.kind not in _CARD_KINDS or link.point_to_point:
        return False
    if link.kind is None:
        return True
    bridges = {network.bridge for network in snapshot.engine.networks} if snapshot.engine is not None else set()
    return link.peer_netnsid is not None and (link.master is None or link.master not in bridges)


def build_copy(plan: CopyPlan, snapshot: Snapshot, base: BaseRoot) -> Lab:
    """Boot the copy, run its container, and give it the addresses, rules and routes that the host has now.

    Raises:
        LabBuildError: the copy does not boot, or its engine does not run the container.
    """
    copied = copied_files(base.path, snapshot.files)
    cards = [link.name for link in plan.lab.host.state.links]
    notes = (NOTE.format(release=base.release), *plan.lab.notes, *copied.notes)
    lab = build(replace(plan.lab, notes=notes, files={}))
    with closed_on_failure(lab, plan.lab.name, WholeHostFailed, EngineFailed, LabCommandError, OSError):
        for machine, argv in plan.lab.commands:
            lab.machines[machine].run(*argv)
        lab.agent_container = plan.container.name
        lab.whole_host = whole_host = WholeHost(lab.host.namespace, base.path, _disk(plan.lab, copied))
        lab.on_close(whole_host.close)
        whole_host.power_on()
        if whole_host.wait_until_booted() != "running":
            lab.notes.append(f"units that failed at boot: {failed_units(lab.host.namespace)}")
        if lab.host.namespace.run(["systemctl", "is-active", "--quiet", NETWORKD_SERVICE]).ok:
            lab.networkd = NetworkdService(lab.host.namespace, cards)
        lab.engine = DockerService(whole_host)
        _run_agent(lab, plan)
        within = LEASED_WITHIN if any(gateway.dhcp is not None for gateway in plan.lab.gateways) else SET_WITHIN
        lab.notes += restore_what_the_boot_lost(lab.host.namespace, snapshot.host, cards, plan.made, within)
    return lab


def _disk(plan: LabPlan, copied: CopiedFiles) -> dict[str, RootFile]:
    files = {**root_files(plan), **copied.files}
    names = ",".join(f"interface-name:{link.name}" for link in plan.host.state.links)
    files[NM_CARDS] = RootFile(f"[device-lab]\nmatch-device={names}\nmanaged=1\n")
    return files


def _run_agent(lab: Lab, plan: CopyPlan) -> None:
    assert lab.engine is not None
    engine, container, network = lab.engine, plan.container, plan.network
    attachment = next(iter(container.attachments), None)
    if network is not None:
        pool = network.pools[0]
        if network.driver == "macvlan":
            assert network.parent is not None
            engine.networks.create_macvlan(network.name, network.parent, pool.subnet, pool.gateway, pool.ip_range)
        else:
            engine.networks.create_bridge(network.name, pool.subnet, pool.gateway, network.bridge)
    engine.containers.run(
        container.name,
        network=attachment.network if attachment is not None else "none",
        address=attachment.fixed_address if attachment is not None else None,
        restart=next((policy for policy in get_args(RestartPolicy) if policy == container.restart_policy), None),
        dns=container.dns,
    )
    lab.set_agent_namespace(engine.containers.namespace(container.name))
    if isinstance(attach := lab.plan.intent.agent.attach, PipeworkStaticAttach):
        _attach_by_pipework(lab, attach)


def _attach_by_pipework(lab: Lab, attach: PipeworkStaticAttach) -> None:
    """Wait until a unit of the host has run pipework; run it as a person did where none does.

    Raises:
        LabBuildError: pipework fails.
    """
    try:
        wait_for_pipework(lab)
    except LabBuildError:
        address = f"{attach.address}@{attach.gateway}"
        run = lab.host.namespace.run(["pipework", attach.parent, lab.agent_container, address])
        if not run.ok:
            raise LabBuildError(f"{run.command}: exit {run.exit_code}: {run.stderr.strip()}") from None
        lab.notes.append(f"rebooted, this host would lack: the agent's interface by pipework ('{run.command}')")
