"""The test for an address conflict against frames that a neighbour on the parent's segment sends by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from netns_lab import macvlan_network
from netns_lab.builder import build
from netns_lab.lab import Lab
from netns_lab.scenarios import PARENT, SCENARIOS
from viacheck.host.namespace import Namespace
from viacheck.model.measurements import AddressClaim, AddressFacts, AddressHolder, ClaimSign
from viacheck.packets import scapy_import as scapy
from viacheck.packets.address_conflict import SETTLING_TIME, AddressConflictTest, Side
from viacheck.packets.arp import usable_interface
from viacheck.packets.packet_socket import PacketSender

AGENT, AGENT_MAC, OTHER_MAC = "10.10.40.192", "02:42:0a:0a:28:c0", "02:00:00:00:00:99"
BROADCAST = "ff:ff:ff:ff:ff:ff"
AGENTS_FRAME = bytes(
    scapy.Ether(src=AGENT_MAC, dst=BROADCAST)
    / scapy.IP(src=AGENT, dst="10.10.40.255", id=7)
    / scapy.UDP(sport=9, dport=9)
)
ANNOUNCEMENT = bytes(
    scapy.Ether(src=OTHER_MAC, dst=BROADCAST) / scapy.ARP(op=1, hwsrc=OTHER_MAC, psrc=AGENT, pdst=AGENT)
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = build(SCENARIOS["macvlan"]())
    yield lab
    lab.close()


def send(namespace: Namespace, interface: str, frame: bytes) -> None:
    sender = namespace.call(PacketSender)
    sender.send(usable_interface(namespace, sender, interface).index, 0x0800, frame)
    sender.close()


def judged(lab: Lab, *senders: tuple[Namespace, str], frame: bytes) -> AddressFacts:
    """Let each of these interfaces send the frame while the test runs, and end the test soon after."""
    pause = threading.Event()
    sides: dict[AddressHolder, Side] = {
        "parent": Side(lab.host.namespace, PARENT),
        "agent": Side(lab.agent.namespace, macvlan_network.INTERFACE),
    }
    test = AddressConflictTest(AGENT, AGENT_MAC, sides, agent_is_apart=True)
    pause.wait(SETTLING_TIME + 0.2)
    for namespace, interface in senders:
        send(namespace, interface, frame)
        pause.wait(0.05)
    pause.wait(SETTLING_TIME)
    test.close()
    facts = test.result()
    assert facts is not None
    return facts


def test_a_frame_with_the_agents_mac_that_comes_in_from_outside_is_a_claim(lab: Lab) -> None:
    facts = judged(lab, (lab.neighbour(PARENT).namespace, "lan0"), frame=AGENTS_FRAME)
    assert facts.claims == (AddressClaim(AGENT_MAC, ("parent",), (ClaimSign.FRAMES_FROM_OUTSIDE,)),)


def test_a_reflection_of_the_agents_own_frame_is_no_claim(lab: Lab) -> None:
    agent, neighbour = (lab.agent.namespace, macvlan_network.INTERFACE), (lab.neighbour(PARENT).namespace, "lan0")
    facts = judged(lab, agent, neighbour, frame=AGENTS_FRAME)
    assert facts.claims == ()
    assert facts.asked_from == ("parent", "agent")


def test_an_announcement_of_the_address_is_a_claim(lab: Lab) -> None:
    facts = judged(lab, (lab.neighbour(PARENT).namespace, "lan0"), frame=ANNOUNCEMENT)
    assert [(claim.mac, claim.signs) for claim in facts.claims] == [(OTHER_MAC, (ClaimSign.OTHER_MAC,))]


def test_without_an_interface_that_is_up_there_is_no_result(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", PARENT, "down")
    sides: dict[AddressHolder, Side] = {"parent": Side(lab.host.namespace, PARENT)}
    test = AddressConflictTest(AGENT, AGENT_MAC, sides, agent_is_apart=True)
    assert test.result() is None
    test.close()
