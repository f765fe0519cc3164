"""Whole hosts on the command line: their names, releases and faults, and what is wrong with a selection."""

from __future__ import annotations

import pytest

from netns_lab.lab_specs import catalogue, default_labs, parse_labs
from netns_lab.scenarios import WHOLE_HOSTS
from netns_lab.whole_host.root_files import root_files
from viacheck.targets.specs import SelectionError


@pytest.mark.parametrize(
    "name",
    [
        "host:policy-routing-nm",
        "host:policy-routing-netplan@trixie",
        "host:policy-routing-ifupdown@forky+rule-after-docker",
        "host:policy-routing-networkd+networkd-without-rule",
    ],
)
def test_a_name_is_read_back_as_it_was_written(name: str) -> None:
    (spec,) = parse_labs(name)
    assert spec.name == name
    assert spec.id == f"lab:{name}"
    assert spec.flavour == "host"
    assert spec.slow


def test_the_default_release_is_in_no_name() -> None:
    assert parse_labs("host:policy-routing-nm@bookworm") == parse_labs("host:policy-routing-nm")


def test_an_engine_has_a_release_only_if_one_is_named() -> None:
    (own,), (bookworm,) = parse_labs("engine:nat"), parse_labs("engine:nat@bookworm+no-restart-policy")
    assert own.release is None
    assert (bookworm.name, bookworm.release) == ("engine:nat@bookworm+no-restart-policy", "bookworm")


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("host:nat", "lab 'nat' has no flavour 'host'; with it: macvlan-ifupdown, policy-routing-ifupdown, "),
        ("policy-routing-nm", "lab 'policy-routing-nm' has no flavour 'netns'"),
        ("engine:policy-routing-netplan", "lab 'policy-routing-netplan' has no flavour 'engine'"),
        (
            "policy-routing@trixie",
            "'policy-routing@trixie' names a release, which only a whole host, a virtual machine or an engine has "
            "(host:LAB@trixie",
        ),
        ("engine:pipework-dhcp@forky", "lab 'pipework-dhcp' runs pipework, which the engine of another release lacks"),
        ("engine:nat@sid", "unknown release 'sid' in 'engine:nat@sid'; allowed: bookworm, "),
        ("host:policy-routing-nm@sid", "unknown release 'sid' in 'host:policy-routing-nm@sid'; allowed: bookworm, "),
        ("host:policy-routing-nm@", "unknown release ''"),
        ("policy-routing-ifupdown+rule-after-docker", "fault 'rule-after-docker' needs a whole host"),
        (
            "host:policy-routing-networkd+saved-rules-without-nat",
            "fault 'saved-rules-without-nat' needs forky: host:policy-routing-networkd@forky+saved-rules-without-nat",
        ),
        ("host:policy-routing-nm+rule-missing", "fault 'rule-missing' does not belong to lab 'policy-routing-nm'"),
    ],
)
def test_a_mistake_is_one_line(name: str, mistake: str) -> None:
    with pytest.raises(SelectionError) as raised:
        parse_labs(name)
    assert str(raised.value).startswith(f"--lab: {mistake}")


def test_they_are_listed_and_run_only_when_they_are_named() -> None:
    listed = [line.split()[0] for line in catalogue() if line.startswith("host:")]
    assert listed == [f"host:{name}" for name in WHOLE_HOSTS]
    assert len(listed) == 8
    assert all(lab.flavour == "netns" for lab in default_labs())
    assert all(lab.flavour != "host" for lab in parse_labs("all"))


def test_secrets_of_a_manager_are_for_root_alone() -> None:
    files = root_files(WHOLE_HOSTS["policy-routing-nm"]()) | root_files(WHOLE_HOSTS["policy-routing-netplan"]())
    # NetworkManager ignores a profile that others may read, and netplan warns of such a file.
    assert {path: file.mode for path, file in files.items() if path.endswith((".nmconnection", ".yaml"))} == {
        "/etc/NetworkManager/system-connections/lo.nmconnection": 0o600,
        "/etc/NetworkManager/system-connections/eth0.nmconnection": 0o600,
        "/etc/NetworkManager/system-connections/wlan0.nmconnection": 0o600,
        "/etc/netplan/50-agent.yaml": 0o600,
    }
