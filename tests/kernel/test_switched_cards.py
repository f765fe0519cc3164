"""The cards of a bond on one switch: the next boot gets new ones, and the switch and its gateway stay."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from netns_lab.builder import build
from netns_lab.lab_specs import parse_labs
from netns_lab.plan import HOST, Cable
from netns_lab.rtnetlink_batch import LabBuildError
from netns_lab.whole_host.power_control import WholeHostPower
from netns_lab.whole_host.stacked_uplinks import StackedUplink, switches_for
from viacheck.model.namespace_state import Link

CARDS = ("eth1", "eth2")


def test_cards_on_one_switch_are_plugged_in_again() -> None:
    (spec,) = parse_labs("policy-routing")
    plan = spec.plan()
    state = plan.host.state
    uplink = state.link("wlan0")
    assert uplink is not None
    cards = tuple(Link(index=700 + number, name=name, kind="veth") for number, name in enumerate(CARDS))
    kept = tuple(cable for cable in plan.cables if cable.interface != "wlan0")
    ends = [cable for cable in plan.cables if cable.interface == "wlan0"]
    ends += [Cable(HOST, name, "open-ends", f"open{number}") for number, name in enumerate(CARDS)]
    bond = StackedUplink("wlan0", CARDS, None, "", ())
    (switch,) = switches_for([bond], ends, replace(state, links=(*state.links, *cards)))
    links = tuple(link for link in state.links if link.name != "wlan0")
    host = replace(
        plan.host, state=replace(state, links=(*links, *cards), addresses=(), routes=(), rules=(), neighbours=())
    )
    switched = replace(plan, host=host, cables=(*kept, *switch.cables), switches=(switch.machine,))
    try:
        lab = build(switched)
    except LabBuildError as error:
        pytest.skip(str(error))
    with contextlib.closing(lab):
        # The power control of a host that is off asks nothing of it.
        WholeHostPower(lab, None).plug_in()  # type: ignore[arg-type]
        present = lab.host.run("ip", "-br", "link").stdout
        assert all(name in present for name in CARDS)
        for name in CARDS:
            lab.host.ip("link", "set", "dev", name, "up")
        ports = lab.machines[switch.machine.name].run("ip", "-br", "link", "show", "master", "wire").stdout
        assert {line.split("@")[0] for line in ports.splitlines()} == {"card1", "card2", "gw3"}
        lab.host.ip("address", "add", "10.10.50.9/24", "dev", "eth2")
        assert lab.host.run("busybox", "ping", "-c", "1", "-W", "5", "10.10.50.1").exit_code == 0
