"""The kernel's announcements as text, and the sysctls of a namespace, in a namespace of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.helpers.guarded_host import until
from viacheck.host.namespace import Namespace
from viacheck.host.sysctl import read_sysctl, read_sysctls, sysctls_in, write_sysctl
from viacheck.netlink.monitor import RouteMonitor
from viacheck.netlink.rtnetlink import IFF_UP, RouteSocket


@pytest.fixture
def host() -> Iterator[Namespace]:
    with contextlib.closing(Namespace.create("host")) as namespace:
        yield namespace


def ip(namespace: Namespace, *commands: str) -> None:
    """Run ``ip`` commands; none may fail."""
    for command in commands:
        result = namespace.run(["ip", *command.split()])
        assert result.ok, f"{result.command}: {result.stderr}"


def test_every_change_is_announced_in_order(host: Namespace) -> None:
    with contextlib.closing(RouteMonitor(host)) as monitor:
        ip(host, "link add name up0 type veth peer name up1", "addr add 10.0.0.1/24 dev up0")
        ip(host, "link set dev up0 up", "link set dev up1 up")
        # The kernel announces a carrier from a work queue, which a busy machine runs when it has the time.
        carrier = "link up0 up, carrier"
        until(lambda: any(announcement.text == carrier for announcement in monitor.announcements()), carrier)
        ip(host, "rule add from 10.0.0.0/8 lookup 200 priority 1000")
        ip(host, "route add default via 10.0.0.2 table 200", "route del default table 200", "link del dev up0")
        texts = [announcement.text for announcement in monitor.announcements()]
    wanted = [
        "address 10.0.0.1/24 of up0 there", "link up0 up, carrier",
        "rule priority 1000 from 10.0.0.0/8 lookup 200 there", "link up0 gone",
    ]  # fmt: skip
    assert [text for text in dict.fromkeys(texts) if text in wanted] == wanted, texts
    assert monitor.address_ns > 0


def test_a_link_that_leaves_a_bridge_is_not_announced_as_gone(host: Namespace) -> None:
    """The kernel reports the port's end in the bridge's own family, as if the link itself had been deleted."""
    ip(host, "link add name br0 type bridge", "link add name port type veth peer name other")
    with contextlib.closing(RouteMonitor(host)) as monitor:
        ip(host, "link set dev port master br0", "link set dev port nomaster")
        texts = [announcement.text for announcement in monitor.announcements()]
    assert texts
    assert "link port gone" not in texts


def test_a_link_is_read_by_its_name(host: Namespace) -> None:
    ip(host, "link set dev lo up")

    def read() -> tuple[int, int]:
        with RouteSocket() as netlink:
            with pytest.raises(OSError, match="No such device"):
                netlink.link("nowhere")
            link = netlink.link("lo")
            return link.index, link.flags & IFF_UP

    assert host.call(read) == (1, IFF_UP)


def test_sysctls_are_those_of_the_namespace(host: Namespace) -> None:
    path, missing = "net/ipv4/ip_forward", "net/ipv4/conf/nowhere/rp_filter"

    def change() -> tuple[str | None, str | None]:
        before = read_sysctl(path)
        write_sysctl(path, "1")
        return before, read_sysctl(path)

    assert host.call(change) == ("0", "1")
    assert host.call(lambda: read_sysctls((path, missing))) == {path: "1"}
    assert host.call(lambda: sysctls_in("net/ipv4/conf/nowhere")) == []
    assert "net/ipv4/conf/lo/rp_filter" in host.call(lambda: sysctls_in("net/ipv4/conf/lo"))
    with pytest.raises(FileNotFoundError):
        host.call(lambda: write_sysctl(missing, "1"))
