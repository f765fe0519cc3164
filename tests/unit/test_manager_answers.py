"""The managers' own words: kept without secrets, heeded before what is read of their files, and differences told."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from netns_lab.lab_specs import parse_labs
from netns_lab.open_lab import open_lab
from tests.helpers.paths import RECORDED
from tests.helpers.persistence_hosts import recorded, resolved
from viacheck.host.command import RecordedCommand
from viacheck.host.manager_status import ask
from viacheck.model.snapshot import ManagerAnswer
from viacheck.persistence import ifupdown, manager_answers
from viacheck.persistence.assess import Persistence, assess_persistence
from viacheck.persistence.manager_answers import AUTO, HOTPLUG, NETPLAN, NETWORKCTL, STATE

SAID = RECORDED / "manager_answers"
TOLD = (SAID / "networkctl-252-list.json").read_text()
MERGED = (SAID / "netplan-0.106-get").read_text()
OPTIONS = (SAID / "ifquery-wlan0").read_text()
IFQUERY = "ifquery wlan0"


def assessed(host: str | dict[str, str], *words: ManagerAnswer) -> Persistence:
    """How a recorded host is judged when its managers say this."""
    case = resolved(recorded(host) if isinstance(host, str) else host)
    snapshot = dataclasses.replace(case.snapshot, manager_answers=words)
    return assess_persistence(dataclasses.replace(case, snapshot=snapshot))


def word(command: str, text: str, exit_code: int = 0) -> ManagerAnswer:
    return ManagerAnswer(command, exit_code, manager_answers.redact_answer(command, text))


def networkctl(**links: tuple[str, str]) -> ManagerAnswer:
    told = [{"Name": name, "AdministrativeState": state, "NetworkFile": file} for name, (state, file) in links.items()]
    return word(NETWORKCTL, json.dumps({"Interfaces": told}))


# ---- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "text"), [(NETPLAN, MERGED), (IFQUERY, OPTIONS)])
def test_no_secret_is_kept(command: str, text: str) -> None:
    assert "CANARY" in text
    found = manager_answers.redact_answer(command, text)
    assert "CANARY" not in found
    assert "172.17.0.0/16" in found


def test_of_links_only_who_manages_them_is_kept() -> None:
    spoiled = TOLD.replace('"Name":"wlan0"', '"Name":"wlan0","WirelessLanPassphrase":"CANARY"')
    assert spoiled != TOLD
    links = json.loads(manager_answers.redact_answer(NETWORKCTL, spoiled))["Interfaces"]
    assert [(link["Name"], link["AdministrativeState"]) for link in links][:3] == [
        ("lo", "configured"), ("eth0", "configured"), ("wlan0", "configured"),
    ]  # fmt: skip
    assert "CANARY" not in manager_answers.redact_answer(NETWORKCTL, spoiled)


@pytest.mark.parametrize("command", [STATE, AUTO, HOTPLUG, IFQUERY, NETPLAN, NETWORKCTL])
@pytest.mark.parametrize(
    "text", ["", "password CANARY", "[" * 3000, "{", '{"Interfaces": 7}', "network: [\n", "\0", "a: &a [*a]"]
)
def test_garbage_is_not_kept_and_says_nothing(command: str, text: str) -> None:
    found = manager_answers.redact_answer(command, text)
    assert "CANARY" not in found
    assert assessed("networkd-healthy", ManagerAnswer(command, 0, found)).manager == "networkd"


# ---- what is made of it ----------------------------------------------------------------------------------------------


def test_words_that_agree_change_nothing() -> None:
    agreeing = networkctl(wlan0=("configured", "/etc/systemd/network/20-wlan0.network"))
    assert assessed("networkd-healthy", agreeing) == assessed("networkd-healthy")
    for host, words in (
        ("ifupdown-healthy", (word(STATE, "wlan0=wlan0\nlo=lo\n"), word(AUTO, "lo\nwlan0\n"), word(HOTPLUG, ""),
                              word(IFQUERY, OPTIONS))),
        ("netplan-healthy", (word(NETPLAN, MERGED), networkctl(wlan0=("configured", "")))),
    ):  # fmt: skip
        persistence = assessed(host, *words)
        assert persistence.differences == ()
        assert persistence.holds


def test_who_says_that_it_holds_the_uplink_holds_it() -> None:
    # Its state below /run is not there to be read.
    files = {path: text for path, text in recorded("networkd-healthy").items() if "/netif/" not in path}
    both = files | {ifupdown.INTERFACES: "auto wlan0\niface wlan0 inet dhcp\n"}
    assert assessed(both).manager == "ifupdown"
    persistence = assessed(both, networkctl(wlan0=("configured", "/etc/systemd/network/20-wlan0.network")))
    assert persistence.manager == "networkd"
    assert persistence.differences == (
        f"'{NETWORKCTL}' says that systemd-networkd manages wlan0; its files say otherwise",
    )  # fmt: skip


def test_who_says_that_it_does_not_hold_it_does_not() -> None:
    files = recorded("networkd-healthy") | {ifupdown.INTERFACES: "auto wlan0\niface wlan0 inet dhcp\n"}
    persistence = assessed(files, networkctl(wlan0=("unmanaged", "")))
    assert persistence.manager == "ifupdown"
    assert "does not manage wlan0" in persistence.differences[0]


def test_what_networkd_goes_by_may_be_older_than_its_files() -> None:
    persistence = assessed("networkd-healthy", networkctl(wlan0=("configured", "/etc/systemd/network/90-old.network")))
    (difference,) = persistence.differences
    assert "uses /etc/systemd/network/90-old.network for wlan0" in difference
    assert "/etc/systemd/network/20-wlan0.network" in difference


def test_what_brings_it_up_at_boot_ifupdown_knows() -> None:
    files = {ifupdown.INTERFACES: "iface wlan0 inet dhcp\n    up ip rule add prio 1 from 172.17.0.0/16 lookup 200\n"
             "    up ip route replace default via 10.10.50.1 dev wlan0 table 200\n"}  # fmt: skip
    assert not assessed(files).holds
    persistence = assessed(files, word(AUTO, "wlan0\n"), word(HOTPLUG, ""))
    assert persistence.holds
    assert "brings up wlan0 at boot" in persistence.differences[0]


def test_an_interface_that_its_manager_cannot_read_is_reported() -> None:
    persistence = assessed("ifupdown-healthy", ManagerAnswer(IFQUERY, 1, ""))
    assert persistence.differences == (f"'{IFQUERY}' says that ifupdown does not know wlan0; its files say otherwise",)
    nothing = assessed("netplan-healthy", word(NETPLAN, "network: {version: 2}\n"))
    assert "netplan does not know wlan0" in nothing.differences[0]


# ---- how they are asked ----------------------------------------------------------------------------------------------


def test_where_ifupdown_has_done_nothing_it_is_not_asked() -> None:
    lab = open_lab(*parse_labs("policy-routing"))
    try:
        lab.host.run("mkdir", "-p", "/etc/network")
        lab.host.write(ifupdown.INTERFACES, "auto lo\niface lo inet loopback\n")
        assert ask(lab.host.namespace, "wlan0") == ()
        # ifquery would have made it.
        assert not lab.host.namespace.run(["test", "-e", "/run/network"]).ok
    finally:
        lab.close()


@pytest.mark.skipif(shutil.which("ifquery", path="/usr/sbin:/sbin") is None, reason="ifupdown is not installed")
def test_ifquery_is_asked_and_its_secrets_are_kept_nowhere() -> None:
    lab = open_lab(*parse_labs("policy-routing-ifupdown"))
    try:
        stanza = "iface wlan0 inet static\n"
        text = lab.host.read(ifupdown.INTERFACES).replace(stanza, f"{stanza}    wpa-psk CANARY\n")
        lab.host.write(ifupdown.INTERFACES, text)
        assert "CANARY" in lab.host.run("ifquery", "wlan0").stdout
        recorder: list[RecordedCommand] = []
        lab.host.namespace.recorder = recorder
        words = {word.command: word for word in ask(lab.host.namespace, "wlan0")}
        assert "wlan0=wlan0" in words[STATE].said
        assert words[AUTO].said.split() == ["lo", "eth0", "wlan0"]
        assert "ip route replace default via 10.10.50.1" in words[IFQUERY].said
        assert not any("CANARY" in one.result.stdout for one in recorder)
    finally:
        lab.close()
