"""The labs of the bridge modes on a real kernel: they carry the agent's own frames, and break by faults."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from netns_lab import macvlan_network, pipework_host
from netns_lab.builder import build
from netns_lab.docker_engine.engine_builder import apply_pipework, build_with_engine
from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.faults import FAULTS
from netns_lab.lab import AGENT_CONTAINER, Lab
from netns_lab.plan import PROBE_TARGET
from netns_lab.scenarios import PARENT, SCENARIOS
from netns_lab.scenarios.bridge import MACVLAN_MAC, PIPEWORK_MAC
from netns_lab.services import port_security
from viacheck.host.docker import read_engine
from viacheck.host.namespace import Namespace
from viacheck.host.snapshot_reader import network_state
from viacheck.model.namespace_state import NetworkState
from viacheck.packets import arp

UNAVAILABLE = missing_requirement()
needs_engine = pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))
needs_docker_command = pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")

LABS = ("macvlan", "pipework-static", "pipework-dhcp")
GATEWAY, NEIGHBOUR, HOST = "10.10.40.1", "10.10.40.20", "10.10.40.9"
ANSWER_WITHIN = 10.0
SILENT_AFTER = 0.3


@contextlib.contextmanager
def lab(name: str, *faults: str, engine: bool = False) -> Iterator[Lab]:
    plan = SCENARIOS[name]()
    built = build_with_engine(plan) if engine else build(plan)
    try:
        for fault in faults:
            FAULTS[fault].apply(built)
        yield built
    finally:
        built.close()


def answers(namespace: Namespace, target: str, within: float = ANSWER_WITHIN) -> bool:
    """Send an ICMP echo request (RFC 792) and wait for its answer."""

    def ping() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
            number = os.getpid() & 0xFFFF
            echo = struct.pack("!BBHHH", 8, 0, 0, number, 1)
            checksum = 0xFFFF - sum(struct.unpack("!4H", echo)) % 0xFFFF
            try:
                icmp.sendto(struct.pack("!BBHHH", 8, 0, checksum, number, 1), (target, 0))
            except OSError:
                return False
            deadline = time.monotonic() + within
            while (left := deadline - time.monotonic()) > 0 and select.select([icmp], [], [], left)[0]:
                packet = icmp.recv(2048)
                if packet[20] == 0 and packet[24:26] == echo[4:6]:
                    return True
        return False

    return namespace.call(ping)


@dataclass(frozen=True, slots=True)
class Seen:
    """An IPv4 packet on an interface."""

    mac: str
    source: str
    destination: str


def seen_on(namespace: Namespace, interface: str, act: Callable[[], object]) -> list[Seen]:
    """Return the IPv4 packets on an interface during an action."""

    def open_socket() -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        opened.bind((interface, 3))
        return opened

    with contextlib.closing(namespace.call(open_socket)) as capture:
        act()
        packets = []
        while select.select([capture], [], [], 0)[0]:
            frame = capture.recv(2048)
            if frame[12:14] == b"\x08\x00":
                addresses = [socket.inet_ntoa(frame[start : start + 4]) for start in (26, 30)]
                packets.append(Seen(frame[6:12].hex(":"), *addresses))
        return packets


def state(namespace: Namespace) -> NetworkState:
    read, problems = network_state(namespace)
    assert not problems
    return read


def own_address(built: Lab) -> tuple[str, str]:
    """Return the agent's MAC and IPv4 address."""
    read = state(built.agent.namespace)
    link = next(link for link in read.links if link.kind == "macvlan")
    assert link.mac is not None
    return link.mac, read.addresses_of(link.name)[0].address


# Scenarios


@pytest.mark.parametrize("name", LABS)
def test_the_agent_is_on_the_lan_with_its_own_mac(name: str) -> None:
    with lab(name) as built:
        mac, address = own_address(built)
        assert mac == (MACVLAN_MAC if name == "macvlan" else PIPEWORK_MAC)
        for target in (GATEWAY, NEIGHBOUR, PROBE_TARGET):
            on_parent = seen_on(built.host.namespace, PARENT, lambda t=target: answers(built.agent.namespace, t))  # type: ignore[misc]
            assert Seen(mac, address, target) in on_parent, f"{target}: {on_parent}"
            assert target in {packet.source for packet in on_parent}


@pytest.mark.parametrize("name", LABS)
def test_no_packet_of_the_agent_leaves_by_the_other_uplink(name: str) -> None:
    with lab(name) as built:
        assert not seen_on(built.host.namespace, "wlan0", lambda: answers(built.agent.namespace, PROBE_TARGET))


@pytest.mark.parametrize("name", LABS)
def test_host_and_agent_cannot_reach_each_other(name: str) -> None:
    with lab(name) as built:
        assert not answers(built.agent.namespace, HOST, within=SILENT_AFTER)
        assert answers(built.host.namespace, NEIGHBOUR)


@pytest.mark.parametrize("name", LABS)
def test_the_interface_equals_that_of_docker_and_pipework(name: str) -> None:
    with lab(name) as built:
        host, agent = state(built.host.namespace), state(built.agent.namespace)
        (link,) = (link for link in agent.links if link.kind == "macvlan")
        parent = host.link(PARENT)
        assert parent is not None
        assert (link.name, link.mode, link.up) == ("eth0" if name == "macvlan" else "eth1", "bridge", True)
        assert link.peer_index == parent.index
        assert link.peer_netnsid is not None
        assert [str(route) for route in agent.table(254) if route.is_default] == [
            f"default via {GATEWAY} dev {link.name}"
        ]


def test_a_lease_is_held_in_the_dhcp_lab() -> None:
    with lab("pipework-dhcp") as built:
        assert built.dhcp_client is not None
        (address,) = state(built.agent.namespace).addresses_of("eth1")
        assert address.address == built.dhcp_client.lease.address == "10.10.40.100"
        assert 3500 < (address.valid_lifetime or 0) <= 3600
        assert list(built.dhcp_servers[0].leases.values()) == ["10.10.40.100"]


@pytest.mark.parametrize("name", LABS[1:])
def test_only_the_labs_own_files_run_pipework(name: str) -> None:
    with lab(name) as built:
        line = built.host.read(pipework_host.RC_LOCAL).splitlines()[1]
        assert line.startswith("pipework eth0 te-agent ")
        assert f"|| {line}" in built.host.read(pipework_host.INTERFACES)
        assert line.removeprefix("pipework ") in built.host.read(pipework_host.WATCH_ENABLED)
        for path in (pipework_host.PATH, pipework_host.RC_LOCAL, pipework_host.WATCH):
            assert built.host.run("test", "-x", path)
        for path in (pipework_host.WATCH, pipework_host.WATCH_UNIT, pipework_host.LEASE_SCRIPT):
            assert not os.path.exists(path), f"{path} is on this machine"
        assert built.notes[0] == pipework_host.NO_CONTAINER_NOTE


def test_every_script_is_accepted_by_the_shell() -> None:
    with lab("pipework-static") as built:
        for path in (pipework_host.PATH, pipework_host.LEASE_SCRIPT, pipework_host.WATCH, pipework_host.RC_LOCAL):
            assert built.host.run("sh", "-n", path)


def test_rc_local_attaches_the_agent_again() -> None:
    with lab("pipework-static", "lost-on-restart") as built:
        assert not answers(built.agent.namespace, GATEWAY, within=SILENT_AFTER)
        built.host.run(pipework_host.RC_LOCAL)
        assert answers(built.agent.namespace, GATEWAY)


def test_pipework_cannot_run_twice_and_leaves_an_interface() -> None:
    with lab("pipework-static") as built:
        second = pipework_host.run(built, PARENT, AGENT_CONTAINER, f"10.10.40.200/24@{GATEWAY}")
        assert second.exit_code == 2
        assert "File exists" in second.stderr
        (left,) = (link for link in state(built.agent.namespace).links if link.name.startswith("ph"))
        assert (left.kind, left.up) == ("macvlan", False)


def test_pipework_gets_a_lease_where_busybox_is() -> None:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed")
    with lab("pipework-dhcp", "lost-on-restart") as built:
        result = pipework_host.run(built, PARENT, AGENT_CONTAINER, "dhclient")
        assert result.ok, result
        (address,) = state(built.agent.namespace).addresses_of("eth1")
        assert address.valid_lifetime is not None
        assert answers(built.agent.namespace, GATEWAY)


@pytest.mark.parametrize("name", LABS)
def test_a_lab_leaves_nothing(name: str) -> None:
    before = (len(os.listdir("/proc/self/fd")), threading.active_count())
    with lab(name):
        pass
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


# The port


ARP_PROBES = ((False, False), (False, True), (True, False), (True, True))
"""Whether the frame's source, and whether the ARP sender, is the foreign MAC address: PP, PF, FP, FF."""


def arp_matrix(built: Lab) -> list[bool]:
    """Return which of the four probes the gateway answers. The foreign MAC is the agent's."""
    parent = built.plan.host.state.link(PARENT)
    assert parent is not None
    foreign = own_address(built)[0]
    return [
        bool(
            arp.arp_request(
                built.host.namespace,
                PARENT,
                GATEWAY,
                sender=HOST,
                frame_source=foreign if source else parent.mac,
                sender_mac=foreign if sender else parent.mac,
                timeout=SILENT_AFTER,
            )
        )
        for source, sender in ARP_PROBES
    ]


@pytest.mark.parametrize(
    ("fault", "answered"),
    [
        (None, [True, True, True, True]),
        ("foreign-source-dropped", [True, True, False, False]),
        ("delivery-filtered", [True, False, True, False]),
        ("foreign-data-dropped", [True, True, True, True]),
    ],
)
def test_the_four_arp_probes_distinguish_the_kinds_of_port_security(fault: str | None, answered: list[bool]) -> None:
    with lab("macvlan", *([fault] if fault else [])) as built:
        assert arp_matrix(built) == answered
        assert answers(built.host.namespace, GATEWAY)
        assert reaches(built, expected=fault is None) == (fault is None)
        port_security.accept_all(built, PARENT)
        assert answers(built.agent.namespace, GATEWAY)


def test_a_second_machine_can_hold_the_agents_address() -> None:
    with lab("macvlan", "address-conflict") as built:
        _, address = own_address(built)
        macs: set[str] = set()
        # A machine may answer both requests before the other machine answers the first.
        deadline = time.monotonic() + 2 * ANSWER_WITHIN
        while len(macs) < 2 and time.monotonic() < deadline:
            replies = arp.arp_request(built.gateway(PARENT).namespace, "lan0", address, count=2, timeout=SILENT_AFTER)
            macs |= {reply.mac for reply in replies}
        assert len(macs) == 2


# Faults


def reaches(built: Lab, *, expected: bool) -> bool:
    """Ask the gateway from the agent. An answer that is expected may take longer than a silence need last."""
    return answers(built.agent.namespace, GATEWAY, within=ANSWER_WITHIN if expected else SILENT_AFTER)


CUT_OFF = (
    ("macvlan", "wrong-parent"),
    ("macvlan", "parent-omitted"),
    ("macvlan", "subnet-mismatch"),
    ("macvlan", "parent-in-bridge"),
    *((name, fault) for name in LABS for fault in ("parent-down", "parent-no-carrier")),
    *((name, fault) for name in LABS[1:] for fault in ("pipework-not-applied", "lost-on-restart")),
    ("pipework-static", "pipework-wrong-parent"),
)
STILL_THERE = (
    *((name, "wireless-parent") for name in LABS),
    ("macvlan", "gateway-mismatch"),
    ("macvlan", "not-attached"),
    ("macvlan", "mtu-kept"),
    ("macvlan", "dhcp-in-pool"),
    ("macvlan", "dhcp-beside-pool"),
    ("macvlan", "address-conflict"),
    ("pipework-static", "pipework-run-twice"),
    ("pipework-static", "pipework-wrong-address"),
    ("pipework-static", "pipework-wrong-gateway"),
    ("pipework-static", "default-network-present"),
    ("pipework-dhcp", "lease-without-client"),
)


@pytest.mark.parametrize(("name", "fault"), CUT_OFF)
def test_the_agent_is_cut_off(name: str, fault: str) -> None:
    with lab(name, fault) as built:
        assert not reaches(built, expected=False)


@pytest.mark.parametrize(("name", "fault"), STILL_THERE)
def test_the_agent_still_reaches_the_gateway(name: str, fault: str) -> None:
    with lab(name, fault) as built:
        assert reaches(built, expected=True)


@pytest.mark.parametrize(
    ("name", "fault"), [("macvlan", "gateway-mismatch"), ("pipework-static", "pipework-wrong-gateway")]
)
def test_with_a_wrong_gateway_no_probe_is_answered(name: str, fault: str) -> None:
    with lab(name, fault) as built:
        assert not answers(built.agent.namespace, PROBE_TARGET, within=SILENT_AFTER)


def test_an_agent_behind_docker0_leaves_with_the_hosts_address() -> None:
    with lab("macvlan", "not-attached") as built:
        on_parent = seen_on(built.host.namespace, PARENT, lambda: answers(built.agent.namespace, PROBE_TARGET))
        assert [packet.source for packet in on_parent if packet.destination == PROBE_TARGET] == [HOST]


def test_with_the_wrong_parent_the_agent_is_on_the_other_uplink() -> None:
    with lab("macvlan", "wrong-parent") as built:
        links = state(built.agent.namespace).links, state(built.host.namespace).link("wlan0")
        assert links[1] is not None
        assert [link.peer_index for link in links[0] if link.kind == "macvlan"] == [links[1].index]


def test_no_macvlan_can_be_made_on_a_bridge_port() -> None:
    with lab("macvlan", "parent-in-bridge") as built:
        refused = built.host.namespace.run(["ip", "link", "add", "link", PARENT, "name", "mv0", "type", "macvlan"])
        assert "busy" in refused.stderr
        assert answers(built.host.namespace, GATEWAY), "the host itself still reaches the gateway by its bridge"


@pytest.mark.parametrize("name", LABS)
def test_a_wireless_parent_is_read_as_wireless(name: str) -> None:
    with lab(name) as built:
        assert not any(link.wireless for link in state(built.host.namespace).links)
        FAULTS["wireless-parent"].apply(built)
        assert [link.name for link in state(built.host.namespace).links if link.wireless] == [PARENT]


def test_the_agents_mtu_stays_low() -> None:
    with lab("macvlan", "mtu-kept") as built:
        agent, parent = state(built.agent.namespace).link("eth0"), state(built.host.namespace).link(PARENT)
        assert agent is not None
        assert parent is not None
        assert (agent.mtu, parent.mtu) == (1400, 1500)


@pytest.mark.parametrize(
    ("fault", "path", "gone"),
    [
        ("pipework-missing", pipework_host.PATH, None),
        ("restart-hook-missing", pipework_host.WATCH, None),
        ("rc-local-without-line", pipework_host.RC_LOCAL, "pipework"),
        ("interfaces-without-line", pipework_host.INTERFACES, "pipework"),
        ("post-up-unguarded", pipework_host.INTERFACES, "||"),
    ],
)
@pytest.mark.parametrize("name", LABS[1:])
def test_a_fault_removes_a_file_or_its_line(name: str, fault: str, path: str, gone: str | None) -> None:
    with lab(name, fault) as built:
        if gone is None:
            assert not built.host.namespace.run(["test", "-e", path]).ok
        else:
            assert gone not in built.host.read(path)


@pytest.mark.parametrize(
    ("fault", "path"),
    [("pipework-not-executable", pipework_host.PATH), ("rc-local-not-executable", pipework_host.RC_LOCAL)],
)
def test_a_program_is_not_executable(fault: str, path: str) -> None:
    with lab("pipework-static", fault) as built:
        assert "rw-r--r--" in built.host.run("ls", "-l", path).stdout


def test_rc_local_ends_before_the_line() -> None:
    with lab("pipework-static", "lost-on-restart", "rc-local-after-exit") as built:
        built.host.run(pipework_host.RC_LOCAL)
        assert not reaches(built, expected=False)


# With an engine


@pytest.fixture(scope="module", params=LABS)
def engine_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    if UNAVAILABLE is not None:
        pytest.skip(UNAVAILABLE)
    if request.param != "macvlan" and shutil.which("docker") is None:
        pytest.skip("there is no docker command")
    with lab(request.param, engine=True) as built:
        yield built


def test_the_container_is_on_the_lan_with_its_own_mac(engine_lab: Lab) -> None:
    mac, address = own_address(engine_lab)
    for target in (GATEWAY, NEIGHBOUR, PROBE_TARGET):
        on_parent = seen_on(
            engine_lab.host.namespace,
            PARENT,
            lambda t=target: answers(engine_lab.agent.namespace, t),  # type: ignore[misc]
        )
        assert Seen(mac, address, target) in on_parent
        assert target in {packet.source for packet in on_parent}
    assert not answers(engine_lab.agent.namespace, HOST, within=SILENT_AFTER)


def test_the_engine_reports_the_network_that_it_made(engine_lab: Lab) -> None:
    assert engine_lab.engine is not None
    facts = read_engine(engine_lab.engine.base_url, AGENT_CONTAINER)
    assert facts.container is not None
    (attachment,) = facts.container.attachments
    if engine_lab.plan.name != "macvlan":
        assert (facts.container.network_mode, attachment.address) == ("none", None)
        return
    network = facts.network("macvlan0")
    assert network is not None
    assert (network.driver, network.parent) == ("macvlan", PARENT)
    assert (attachment.address, attachment.mac) == ("10.10.40.192", MACVLAN_MAC)


def test_the_intent_names_the_container(engine_lab: Lab) -> None:
    agent = engine_lab.plan.intent.agent
    assert (agent.container, agent.netns) == (AGENT_CONTAINER, None)
    assert engine_lab.plan.intent.mode == engine_lab.plan.name


@needs_engine
@needs_docker_command
def test_the_hook_attaches_a_restarted_container_again() -> None:
    with lab("pipework-static", engine=True) as built:
        assert built.engine is not None
        client = built.engine.client
        unit = built.host.read(pipework_host.WATCH_ENABLED)
        command = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).partition("=")[2].split()
        argv = pipework_host.host_command(built, *command)
        hook = built.host.namespace.call(lambda: subprocess.Popen(argv, stderr=subprocess.PIPE))
        try:
            wait_until(lambda: client.info()["NEventsListener"] > 0)
            built.engine.containers.restart(built.agent_container)
            built.set_agent_namespace(built.engine.containers.namespace(built.agent_container))
            wait_until(lambda: answers(built.agent.namespace, GATEWAY, within=SILENT_AFTER))
        finally:
            hook.kill()
            built.engine.close()
            hook.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold within ten seconds"


REACHES_GATEWAY = {
    "macvlan": {
        "wrong-parent": False,
        "subnet-mismatch": False,
        "gateway-mismatch": True,
        "not-attached": True,
        "network-wrong-driver": True,
    },
    "pipework-static": {
        "lost-on-restart": False,
        "pipework-wrong-address": True,
        "default-network-present": True,
    },
    "pipework-dhcp": {},
}
"""By lab, the faults that an engine makes, and whether the agent reaches the gateway with each."""


def test_the_faults_of_an_engine_lab(engine_lab: Lab) -> None:
    for fault, there in REACHES_GATEWAY[engine_lab.plan.name].items():
        assert reaches(engine_lab, expected=True), f"before {fault}"
        FAULTS[fault].apply(engine_lab)
        assert reaches(engine_lab, expected=there) == there, fault
        attach_agent_again(engine_lab)


def attach_agent_again(built: Lab) -> None:
    """Replace the agent's container, and its macvlan network, by those of the intent."""
    assert built.engine is not None
    built.engine.containers.remove(built.agent_container)
    if built.plan.intent.mode == "macvlan":
        network = macvlan_network.intended(built.plan.intent)
        built.engine.networks.remove(network.name)
        macvlan_network.connect(built, network)
    else:
        built.engine.containers.run(built.agent_container, network="none", restart="unless-stopped")
        built.set_agent_namespace(built.engine.containers.namespace(built.agent_container))
        apply_pipework(built)


@needs_engine
def test_a_container_on_a_bridged_parent_does_not_start() -> None:
    with lab("macvlan", "parent-in-bridge", engine=True) as built:
        assert built.engine is not None
        facts = read_engine(built.engine.base_url, AGENT_CONTAINER)
        assert facts.container is not None
        assert not facts.container.running


def test_the_plan_of_a_lab_is_plain_values() -> None:
    for name in LABS:
        plan = SCENARIOS[name]()
        assert json.dumps(plan.intent.as_json())
        assert plan == SCENARIOS[name]()
