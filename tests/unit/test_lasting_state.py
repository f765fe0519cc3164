"""Two boots of one host compare as equal; a change that a person made does not."""

from __future__ import annotations

from dataclasses import replace

from viacheck.model.diff import changes
from viacheck.model.docker_state import DockerContainer, DockerEngine
from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule, PacketFilter
from viacheck.model.lasting_state import lasting
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import Snapshot


def boot(veth: str, mac: str, identifier: str, first_index: int, pid: int) -> Snapshot:
    """A host after a boot, with Docker's bridge and a container on it."""
    own, on_veth = f"fe80::{identifier}", FilterMatch(field="iifname", values=(veth,))
    host = NetworkState(
        links=(
            Link(index=2, name="eth0", mac="b8:27:eb:00:00:01"),
            Link(index=first_index, name="docker0", kind="bridge", mac=mac),
            Link(index=first_index + 2, name=veth, kind="veth", mac=mac, master="docker0"),
        ),
        addresses=(
            Address(interface="eth0", family=6, address="fe80::ba27:ebff:fe00:1", prefixlen=64),
            Address(interface=veth, family=6, address=own, prefixlen=64),
        ),
        routes=(
            Route(family=6, table=255, destination=f"{own}/128", nexthops=(Nexthop(interface=veth),)),
            Route(family=6, table=254, destination="fe80::/64", nexthops=(Nexthop(interface=veth),)),
        ),
        sysctls={f"net/ipv4/conf/{veth}/rp_filter": "0"},
        packet_filter=PacketFilter(
            chains=(
                FilterChain(
                    backend="nft", family="ip", table="raw", name="PREROUTING",
                    rules=(FilterRule(matches=(on_veth,), packets=pid, verdict="drop"),),
                ),
            )
        ),
    )  # fmt: skip
    container = DockerContainer(name="agent", id="9f", running=True, pid=pid)
    engine = DockerEngine(version="28.5.2", api_version="1.51", container=container)
    return Snapshot(taken="", hostname="h", kernel="6", host=host, engine=engine)


BEFORE = boot("veth78e5e43", "9e:c6:af:30:4b:88", "9cc6:afff:fe30:4b88", 4, 150)
AFTER = boot("veth1pl4711", "a6:5f:60:92:5e:ca", "a45f:60ff:fe92:5eca", 8, 4712)


def test_a_clean_reboot_is_no_change() -> None:
    assert len(changes(BEFORE, AFTER)) > 8
    assert changes(lasting(BEFORE), lasting(AFTER)) == []


def test_what_a_person_changed_is_still_found() -> None:
    links = (*AFTER.host.links[:2], replace(AFTER.host.links[2], mtu=1400))
    routes = (*AFTER.host.routes, Route(family=4, table=200, destination="0.0.0.0/0"))
    addresses = (replace(AFTER.host.addresses[0], address="fe80::ba27:ebff:fe00:2"), AFTER.host.addresses[1])
    changed = replace(AFTER, host=replace(AFTER.host, links=links, routes=routes, addresses=addresses))
    subjects = [change.subject.value for change in changes(lasting(BEFORE), lasting(changed))]
    assert sorted(set(subjects)) == ["address", "link", "route"]


def test_a_physical_card_that_was_exchanged_is_a_change() -> None:
    links = (replace(AFTER.host.links[0], mac="b8:27:eb:00:00:02"), *AFTER.host.links[1:])
    changed = replace(AFTER, host=replace(AFTER.host, links=links))
    assert changes(lasting(BEFORE), lasting(changed))
