"""The lab's DHCP server and client: leases, renewals and refusals, with each other and with clients of the field."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netns_lab.pid_namespace import contain_processes
from netns_lab.services.dhcp_client import DHCPClient, NoLease
from netns_lab.services.dhcp_server import DHCPPool, DHCPServer
from viacheck.host.namespace import Namespace

SERVER, POOL = "10.10.40.1", DHCPPool(
    subnet="10.10.40.0/24", first="10.10.40.100", last="10.10.40.101", router="10.10.40.1", lease_seconds=600
)  # fmt: skip


@pytest.fixture
def segment() -> Iterator[tuple[Namespace, Namespace]]:
    """A router with an address, and a machine with an interface that is up and has no address."""
    router, machine = Namespace.create("router"), Namespace.create("machine")
    try:
        for namespace, arguments in (
            (router, ["link", "add", "lan0", "index", "20", "type", "veth", "peer", "name", "eth1", "index", "30"]),
            (router, ["address", "add", f"{SERVER}/24", "dev", "lan0"]),
            (router, ["link", "set", "dev", "eth1", "netns", machine.path]),
            (machine, ["link", "set", "dev", "eth1", "up"]),
            (router, ["link", "set", "dev", "lan0", "up"]),
            (machine, ["link", "show", "dev", "eth1"]),
        ):
            result = namespace.run(["ip", *arguments])
            assert result.ok, result
        yield router, machine
    finally:
        router.close()
        machine.close()


@pytest.fixture
def server(segment: tuple[Namespace, Namespace]) -> Iterator[DHCPServer]:
    running = DHCPServer(segment[0], "lan0", SERVER, POOL)
    yield running
    running.close()


@pytest.fixture
def machine(segment: tuple[Namespace, Namespace]) -> Namespace:
    return segment[1]


@pytest.fixture
def client(server: DHCPServer, machine: Namespace) -> Iterator[DHCPClient]:
    running = DHCPClient.start(machine, "eth1")
    yield running
    running.close()


def addresses(machine: Namespace) -> dict[str, int]:
    """Return the machine's IPv4 addresses with the seconds that each is valid."""
    links = json.loads(machine.run(["ip", "-json", "-4", "address", "show", "dev", "eth1"]).stdout)
    return {address["local"]: address["valid_life_time"] for link in links for address in link.get("addr_info", [])}


def default_gateway(machine: Namespace) -> str | None:
    routes = json.loads(machine.run(["ip", "-json", "route", "show", "default"]).stdout)
    return routes[0]["gateway"] if routes else None


def port_is_open(machine: Namespace) -> bool:
    """Return whether a client has port 68 open (0x44 in /proc/net/udp)."""

    def read() -> bool:
        with open("/proc/thread-self/net/udp") as table:
            return any(line.split()[1].endswith(":0044") for line in table.readlines()[1:])

    return machine.call(read)


def test_a_lease_is_obtained_and_set(client: DHCPClient, server: DHCPServer, machine: Namespace) -> None:
    assert (client.lease.address, client.lease.prefixlen, client.lease.router) == ("10.10.40.100", 24, SERVER)
    (valid,) = addresses(machine).values()
    assert 590 < valid <= 600
    assert default_gateway(machine) == SERVER
    assert list(server.leases.values()) == ["10.10.40.100"]
    assert port_is_open(machine)


def test_a_renewal_brings_the_new_router_and_time(client: DHCPClient, server: DHCPServer, machine: Namespace) -> None:
    server.pool = replace(POOL, router="10.10.40.254", lease_seconds=1200)
    lease = client.renew()
    assert (lease.address, lease.router, lease.seconds) == ("10.10.40.100", "10.10.40.254", 1200)
    assert default_gateway(machine) == "10.10.40.254"
    assert addresses(machine)["10.10.40.100"] > 1100


def test_a_client_may_ignore_a_new_router_like_debians_dhclient(server: DHCPServer, machine: Namespace) -> None:
    client = DHCPClient.start(machine, "eth1", follow_router=False)
    try:
        server.pool = replace(POOL, router="10.10.40.254")
        assert client.renew().router == "10.10.40.254"
        assert default_gateway(machine) == SERVER
    finally:
        client.close()


def test_a_refused_renewal_brings_another_address(client: DHCPClient, server: DHCPServer, machine: Namespace) -> None:
    server.pool = replace(POOL, first="10.10.40.180", last="10.10.40.190")
    assert client.renew().address == "10.10.40.180"
    assert list(addresses(machine)) == ["10.10.40.180"]
    assert default_gateway(machine) == SERVER


def test_a_refused_renewal_removes_the_address_when_the_pool_has_no_other(
    client: DHCPClient, server: DHCPServer, machine: Namespace
) -> None:
    server.leases = {"02:00:00:00:00:01": "10.10.40.180"}
    server.pool = replace(POOL, first="10.10.40.180", last="10.10.40.180")
    with pytest.raises(NoLease, match="no answer"):
        client.renew(timeout=0.3)
    assert addresses(machine) == {}


def test_replacing_the_pool_waits_until_a_client_has_a_lease_of_it(client: DHCPClient, server: DHCPServer) -> None:
    assert not server.replace_pool(replace(POOL, router="10.10.40.254"), 0.05)
    renewing = threading.Timer(0.05, client.renew)
    renewing.start()
    assert server.replace_pool(replace(POOL, router="10.10.40.253"), 5)
    renewing.join()
    assert client.lease.router == "10.10.40.253"


@pytest.mark.skipif(shutil.which("dhclient") is None, reason="isc-dhcp-client is not installed")
def test_dhclient_renews_at_the_servers_renewal_time_and_ends_with_its_process_namespace(
    segment: tuple[Namespace, Namespace], machine: Namespace, tmp_path: Path
) -> None:
    server = DHCPServer(segment[0], "lan0", SERVER, replace(POOL, renew_after=1))
    end = contain_processes(machine)
    try:
        # The client's own script would set the address, but would also run this machine's hooks.
        assert machine.run(["ip", "address", "add", "10.10.40.100/24", "dev", "eth1"]).ok
        files = ["-pf", str(tmp_path / "pid"), "-lf", str(tmp_path / "leases")]
        assert machine.run(["dhclient", "-4", "-sf", "/bin/true", *files, "eth1"]).ok
        assert port_is_open(machine)
        assert server.replace_pool(replace(server.pool, router="10.10.40.254"), 5)
    finally:
        end()
        server.close()
    assert not port_is_open(machine)


def test_a_silent_server_leaves_the_lease_unchanged(client: DHCPClient, server: DHCPServer, machine: Namespace) -> None:
    server.pool = replace(POOL, router="10.10.40.254")
    assert machine.run(["ip", "neigh", "replace", SERVER, "lladdr", "02:00:00:00:00:99", "dev", "eth1"]).ok
    with pytest.raises(NoLease, match="no answer"):
        client.renew(timeout=0.3)
    assert "10.10.40.100" in addresses(machine)


def test_a_killed_client_leaves_an_address_that_will_expire(server: DHCPServer, machine: Namespace) -> None:
    DHCPClient.start(machine, "eth1").close()
    assert 0 < addresses(machine)["10.10.40.100"] <= 600
    assert not port_is_open(machine)


def test_a_segment_without_a_server_gives_no_lease(machine: Namespace) -> None:
    with pytest.raises(NoLease, match="no answer from a DHCP server"):
        DHCPClient.start(machine, "eth1", timeout=0.3)


def test_an_empty_pool_offers_nothing(server: DHCPServer, machine: Namespace) -> None:
    server.leases = {"02:00:00:00:00:01": "10.10.40.100", "02:00:00:00:00:02": "10.10.40.101"}
    with pytest.raises(NoLease):
        DHCPClient.start(machine, "eth1", timeout=0.3)


def test_a_held_address_is_not_given_twice(server: DHCPServer, machine: Namespace) -> None:
    server.leases = {"02:00:00:00:00:01": "10.10.40.100"}
    client = DHCPClient.start(machine, "eth1")
    client.close()
    assert client.lease.address == "10.10.40.101"


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")
def test_udhcpc_gets_a_lease_of_the_server(server: DHCPServer, machine: Namespace) -> None:
    result = machine.run(["busybox", "udhcpc", "-q", "-n", "-f", "-t", "5", "-T", "1", "-i", "eth1", "-s", "/bin/true"])
    assert result.ok, result
    assert "10.10.40.100" in result.stdout + result.stderr


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
def test_the_client_gets_a_lease_of_dnsmasq(segment: tuple[Namespace, Namespace]) -> None:
    router, machine = segment
    argv = [
        "dnsmasq", "--keep-in-foreground", "--port=0", "--interface=lan0", "--bind-interfaces", "--user=root",
        "--dhcp-range=10.10.40.100,10.10.40.150,255.255.255.0,600", "--dhcp-leasefile=/dev/null", "--no-ping",
        "--conf-file=/dev/null", "--log-facility=/dev/null", "--pid-file=",
    ]  # fmt: skip
    process = router.call(lambda: subprocess.Popen(argv, stderr=subprocess.PIPE))
    try:
        client = DHCPClient.start(machine, "eth1")
        client.close()
        assert client.lease.address in replace(POOL, last="10.10.40.150")
        assert client.lease.router == SERVER
    finally:
        process.kill()
        process.communicate()
