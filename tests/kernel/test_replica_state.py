"""A replica has the state of its host: every kind of rule, route, address and filter, on a real kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.lab import Lab
from netns_lab.lab_specs import ReplicaSpec
from netns_lab.lab_targets import ReplicaTarget
from netns_lab.replica import ReplicaImpossible, build_replica, plan_replica
from viacheck.analysis.replica_diff import differences
from viacheck.host.namespace import Namespace
from viacheck.host.snapshot_reader import take_snapshot
from viacheck.model.intent import Intent
from viacheck.model.intent_file import parse_intent
from viacheck.model.namespace_state import Neighbour
from viacheck.model.route import Route
from viacheck.model.snapshot import HostFile, Problem, Snapshot
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Prober
from viacheck.packets.tokens import TokenSpace

INTENT = parse_intent(
    {
        "schema": 1,
        "site": {"name": "strange"},
        "agent": {"netns": "/run/netns/agent", "attach": {"mode": "nat", "bridge": "docker0"}},
        "uplinks": {"br0": {"gateway": "10.1.0.1"}, "wan0": {"gateway": "10.2.0.1"}},
        "egress": {"uplink": "br0"},
    },
    source="test",
)
STATE = """
link set lo up
link add docker0 index 22 address 02:00:00:00:00:22 type bridge
link add br0 index 21 address 02:00:00:00:00:21 type bridge
link set eth0 master br0
link set vagent master docker0
link set wan0 mtu 1400
link set eth0 up
link set wan0 up
link set cut0 up
link set vagent up
link set br0 up
link set docker0 up
address add 10.1.0.9/24 dev br0
address add 10.1.0.10/24 dev br0
address add 10.2.0.9/24 dev wan0 noprefixroute
address add 10.9.0.1 peer 10.9.0.2/32 dev cut0
address add 10.3.0.9/24 dev cut0 valid_lft 900 preferred_lft 900
address add 2001:db8:1::9/64 dev br0 nodad
address add 172.17.0.1/16 dev docker0
address add 192.0.2.9/24 dev down0
route add 10.2.0.0/24 dev wan0 proto kernel scope link src 10.2.0.9 metric 700
route add default via 10.1.0.1 dev br0 proto dhcp src 10.1.0.9 metric 100
route add default via 10.2.0.1 dev wan0 metric 600 mtu 1300
route add 192.0.2.0/24 table 1000 nexthop via 10.1.0.1 dev br0 weight 3 nexthop via 10.2.0.1 dev wan0
route add unreachable 198.18.0.0/15 metric 7
route add blackhole default table 77 metric 4278198272
route add prohibit 203.0.113.0/24 table 5
route add throw 203.0.112.0/24 table 5
route add 100.64.0.0/10 via 192.168.77.1 dev wan0 onlink tos 0x10
route add 100.65.0.0/16 via inet6 fe80::77 dev wan0
route add local 192.0.2.77 dev lo table 88
-6 route add default via fe80::1 dev br0 proto ra metric 1024 pref high
-6 route add 2001:db8:77::/48 from 2001:db8:1::/64 via 2001:db8:1::1 dev br0
-6 route add 2001:db8:99::/48 nexthop via 2001:db8:1::1 dev br0 weight 2 nexthop via fe80::9 dev wan0
rule add priority 5 lookup local
rule del priority 0 lookup local
rule add priority 100 not from 172.17.0.0/16 to 10.5.0.0/16 iif docker0 oif wan0 tos 0x10 fwmark 0x20/0xff lookup 1000
rule add priority 101 iif gone0 goto 32766
rule add priority 102 ipproto tcp sport 1000-2000 dport 443 uidrange 5-10 lookup 77 suppress_prefixlength 0
rule add priority 103 from 10.77.0.0/16 prohibit
rule add priority 104 nop
rule add priority 105 l3mdev protocol static
rule del priority 32767
-6 rule add priority 200 from 2001:db8:1::/64 lookup 77
"""
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/wan0/rp_filter": "2",
    "net/ipv4/conf/cut0/forwarding": "0",
    "net/ipv6/conf/cut0/disable_ipv6": "1",
}
NFT = """
table inet firewall {
  set inside { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.0.0/16 } }
  chain input { type filter hook input priority 0; policy accept;
    ct state { established, related } accept
    ip saddr @inside tcp dport { 22, 80, 8000-8100 } counter accept
    iifname "eth*" ip6 saddr 2001:db8::/32 drop
    icmp type 5 drop
    ct status dnat accept
    meta mark & 0xff == 0x20 drop
    fib daddr type local accept
    ip saddr != 10.0.0.0/8 udp dport != 53 reject
    ip saddr 192.0.2.7-192.0.2.9 ip daddr != 192.0.2.3-192.0.2.6 tcp flags syn drop
  }
  chain leaving { type nat hook postrouting priority 100;
    ip saddr 172.18.0.0/16 oifname { "wan0", "br0" } masquerade
    ip saddr 172.19.0.0/16 snat to 10.1.0.9-10.1.0.10
  }
  chain arriving { type nat hook prerouting priority -100;
    iifname "wan0" tcp dport 8443 dnat ip to 172.17.0.2:443
    tcp dport 81 redirect to :8081
  }
}
"""
IPTABLES = """
-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-t nat -N DOCKER
-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-N DOCKER-USER
-P FORWARD DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
-A INPUT -p icmp --icmp-type 3/4 -j DROP
-A INPUT -p icmp ! --icmp-type 3/1 -j DROP
-A INPUT -p tcp -m multiport --dports 22,80,443 -j ACCEPT
-A OUTPUT -p udp --dport 1000:2000 -j REJECT
-A INPUT -m iprange --src-range 192.0.2.1-192.0.2.9 ! --dst-range 192.0.2.3-192.0.2.6 -j DROP
-A INPUT -p udp -m multiport ! --ports 9,67:68 -m pkttype --pkt-type broadcast -j DROP
-A INPUT -p tcp ! --syn -m conntrack --ctstate NEW -j DROP
-t mangle -A PREROUTING -i docker0 -j MARK --set-mark 0x10/0xf0
-t mangle -A PREROUTING -i eth0 -m connmark --mark 0x2/0xff -j CONNMARK --restore-mark --ctmask 0xff
-t mangle -A FORWARD -j CONNMARK --set-xmark 0x1/0x3
-t mangle -A POSTROUTING -o wan0 -j CONNMARK --save-mark
"""
ASSUMED_AGENT = "the snapshot does not hold the agent's namespace: the replica assumes it from engine and intent"
NOT_REPRODUCIBLE = """
-A INPUT -p icmp --icmp-type 8 -m limit --limit 5/min -j ACCEPT
-A INPUT -p tcp --dport 25 -j NFQUEUE
-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
"""


def run(namespace: Namespace, *argv: str) -> None:
    result = namespace.run(argv)
    assert result.ok, f"{result.command}: {result.stderr}"


class StrangeHost:
    """A host with every kind of state, in namespaces of its own."""

    def __init__(self) -> None:
        self.host, self.agent, self.outside = (Namespace.create(name) for name in ("host", "agent", "outside"))
        for index, name in enumerate(("eth0", "wan0", "cut0", "down0"), start=10):
            far = ("peer", "name", f"far-{name}", "netns", self.outside.path)
            run(self.host, "ip", "link", "add", name, "index", str(index), "type", "veth", *far)
            if name != "cut0":
                run(self.outside, "ip", "link", "set", "dev", f"far-{name}", "up")
        inside = ("peer", "name", "eth0", "netns", self.agent.path)
        run(self.host, "ip", "link", "add", "vagent", "index", "20", "type", "veth", *inside)
        for line in STATE.split("\n"):
            if line:
                run(self.host, "ip", *line.split())
        for line in ("link set lo up", "address add 172.17.0.2/16 dev eth0", "link set eth0 up"):
            run(self.agent, "ip", *line.split())
        run(self.agent, "ip", "route", "add", "default", "via", "172.17.0.1")
        for path, value in SYSCTLS.items():
            self.host.call(lambda path=path, value=value: Path("/proc/sys", path).write_text(value))  # type: ignore[misc]

    def snapshot(self) -> Snapshot:
        """Return its present state."""
        return take_snapshot(self.host, self.agent)

    def close(self) -> None:
        """End it."""
        for namespace in (self.host, self.agent, self.outside):
            namespace.close()


@pytest.fixture(scope="module")
def strange() -> Iterator[StrangeHost]:
    with contextlib.closing(StrangeHost()) as host:
        yield host


@pytest.fixture(scope="module")
def snapshot(strange: StrangeHost) -> Snapshot:
    return strange.snapshot()


@contextlib.contextmanager
def replica_of(snapshot: Snapshot, intent: Intent = INTENT) -> Iterator[tuple[Lab, ReplicaTarget]]:
    lab = build_replica(plan_replica(snapshot, intent, "test"))
    with contextlib.closing(ReplicaTarget(ReplicaSpec("test", INTENT, None), lab)) as target:
        yield lab, target


def answered(namespace: Namespace, destination: str) -> bool:
    request = ProbeRequest(protocol="icmp", destination=destination)
    (exchange,) = Prober(namespace, TokenSpace()).send_many([request], 0.5)
    return exchange.answered == 1


def test_every_kind_of_rule_and_route_is_rebuilt(snapshot: Snapshot) -> None:
    with replica_of(snapshot) as (_lab, target):
        assert differences(snapshot, target.snapshot) == []


def test_links_carriers_and_gateways_are_rebuilt(snapshot: Snapshot) -> None:
    with replica_of(snapshot) as (lab, target):
        links = {link.name: link for link in target.snapshot.host.links}
        assert {name: link.index for name, link in links.items()} == {
            link.name: link.index for link in snapshot.host.links
        }
        assert not links["cut0"].carrier
        assert not links["down0"].up
        assert "cut0 had no carrier: its other end is down" in lab.notes
        # Both uplinks have a gateway: the bridge and the card.
        assert answered(lab.host.namespace, "10.1.0.1")
        assert answered(lab.host.namespace, "10.2.0.1")


def test_the_kernels_default_rules_are_gone_where_the_host_had_none(snapshot: Snapshot) -> None:
    with replica_of(snapshot) as (lab, _target):
        rules = lab.host.ip("-4", "rule").stdout
        assert not rules.startswith("0:")
        assert "32767:" not in rules


@pytest.mark.skipif(shutil.which("nft") is None or shutil.which("iptables-nft") is None, reason="no nft or iptables")
def test_the_packet_filter_is_rebuilt_and_rules_that_cannot_be_are_named() -> None:
    with contextlib.closing(StrangeHost()) as strange:
        run(strange.host, "sh", "-c", 'printf %s "$1" | nft -f -', "sh", NFT)
        for line in filter(None, IPTABLES.split("\n")):
            run(strange.host, "iptables-nft", *line.split())
        state = strange.snapshot()
        with replica_of(state) as (lab, target):
            assert differences(state, target.snapshot) == []
            assert not [note for note in lab.notes if "packet filter" in note]
            # Forwarded, marked, let through by the established flow, and masqueraded.
            assert answered(lab.agent.namespace, "198.51.100.1")
        for line in filter(None, NOT_REPRODUCIBLE.split("\n")):
            run(strange.host, "iptables-nft", *line.split())
        state = strange.snapshot()
        with replica_of(state) as (lab, target):
            assert differences(state, target.snapshot) == []
            left_out = [note for note in lab.notes if "packet filter" in note]
            for match in ("limit", "NFQUEUE", "TCPMSS"):
                assert any(match in note for note in left_out), match
            assert len(left_out) == 3


def changed(snapshot: Snapshot, interface: str, **other: object) -> Snapshot:
    """Return the snapshot with another state of an interface of the host."""
    links = tuple(
        dataclasses.replace(link, **other) if link.name == interface else link  # type: ignore[arg-type]
        for link in snapshot.host.links
    )
    return dataclasses.replace(snapshot, host=dataclasses.replace(snapshot.host, links=links))


@pytest.mark.parametrize("kind", ["vlan", "bond", "tun", "wireguard", "dummy"])
def test_a_cable_replaces_an_interface_that_the_kernel_cannot_build(snapshot: Snapshot, kind: str) -> None:
    other = changed(snapshot, "wan0", kind=kind, peer_index=None, peer_netnsid=None)
    with replica_of(other) as (lab, target):
        assert f"wan0: a cable replaces the {kind}, which cannot be built here" in lab.notes
        assert differences(other, target.snapshot) == []
        assert answered(lab.host.namespace, "10.2.0.1")


def test_a_gateway_that_did_not_answer_is_silent(snapshot: Snapshot) -> None:
    failed = Neighbour(interface="wan0", family=4, address="10.2.0.1", state="FAILED")
    other = dataclasses.replace(snapshot, host=dataclasses.replace(snapshot.host, neighbours=(failed,)))
    with replica_of(other) as (lab, _target):
        assert not answered(lab.host.namespace, "10.2.0.1")
        assert "the gateway on wan0 did not answer ARP on the host, and does not answer here" in lab.notes


def test_a_gateway_without_an_ipv6_address_knows_the_way_to_the_agent(snapshot: Snapshot) -> None:
    """A router that announces itself has only its link-local address in the host's routes, or no route names it."""
    own = next(address for address in snapshot.host.addresses if address.address == "2001:db8:1::9")
    bridge = dataclasses.replace(own, address="fd17::1", interface="docker0")
    host = dataclasses.replace(snapshot.host, addresses=(*snapshot.host.addresses, bridge))
    with replica_of(dataclasses.replace(snapshot, host=host)) as (lab, _target):
        routes = lab.machines["gw-br0"].namespace.run(["ip", "-6", "route", "show"]).stdout
        assert "fd17::/64 via 2001:db8:1::9 dev lan0" in routes


def test_another_holder_of_the_agents_address_is_named(snapshot: Snapshot) -> None:
    notes = plan_replica(
        dataclasses.replace(snapshot, address_claimed_by=("02:00:00:00:00:77",)), INTENT, "test"
    ).lab.notes
    assert any("02:00:00:00:00:77, another machine on the segment that holds the agent's address" in n for n in notes)


def test_an_agent_that_was_not_entered_is_assumed(snapshot: Snapshot) -> None:
    problem = Problem(what="agent", reason="it was not entered", missing="root")
    other = dataclasses.replace(snapshot, agent=None, problems=(problem,))
    with replica_of(other) as (lab, target):
        assert ASSUMED_AGENT in lab.notes
        assert target.resolved.agent_address == "172.17.0.2"
        assert answered(lab.agent.namespace, "172.17.0.1")


def test_an_agent_that_did_not_run_does_not_run(snapshot: Snapshot) -> None:
    problem = Problem(what="agent", reason="/run/netns/agent: No such file or directory")
    other = dataclasses.replace(snapshot, agent=None, problems=(problem,))
    with replica_of(other) as (_lab, target):
        assert target.agent is None
        assert target.snapshot.problem("agent") == problem


def test_no_file_of_a_snapshot_is_written_outside_of_the_replica(snapshot: Snapshot, tmp_path: Path) -> None:
    paths = (
        str(tmp_path / "outside"), "/etc/network/../../tmp/viacheck-outside", "/root/.profile", "/etc/passwd",
        "/usr/share/viacheck-outside/x", "relative",
    )  # fmt: skip
    files = tuple(HostFile(path=path, exists=True, text="written", mode=0o755) for path in paths)
    kept = HostFile(path="/etc/network/interfaces", exists=True, text="auto lo\n", mode=0o644)
    other = dataclasses.replace(snapshot, files=(*files, kept))
    with replica_of(other) as (lab, _target):
        assert lab.host.read(kept.path) == kept.text
        assert "written" not in lab.host.read("/etc/passwd")
        for path in paths:
            assert any(note.startswith(f"{path} is not in the replica: ") for note in lab.notes)
    assert not (tmp_path / "outside").exists()


def test_a_replica_has_no_network_configuration_of_this_machine(snapshot: Snapshot) -> None:
    here = take_snapshot(Namespace.current("here"), None).files
    own = {file.path for file in here if file.exists} - {file.path for file in snapshot.files}
    with replica_of(dataclasses.replace(snapshot, files=())) as (_lab, target):
        assert not [file.path for file in target.snapshot.files if file.exists and (file.text or file.path in own)]


@pytest.mark.parametrize("name", ["../../etc", "a b", "x" * 16, ".."])
def test_an_invalid_interface_name_is_refused(snapshot: Snapshot, name: str) -> None:
    with pytest.raises(ReplicaImpossible, match="which is not a valid name"):
        plan_replica(changed(snapshot, "wan0", name=name), INTENT, "test")


def test_a_snapshot_without_routes_is_refused(snapshot: Snapshot) -> None:
    other = dataclasses.replace(snapshot, problems=(Problem(what="routes", reason="ip was not there"),))
    with pytest.raises(ReplicaImpossible, match="the snapshot lacks the host's routes: ip was not there"):
        plan_replica(other, INTENT, "test")


def test_numbers_that_the_kernel_refuses_are_named_and_left_out(snapshot: Snapshot) -> None:
    rule = dataclasses.replace(snapshot.host.rules[-1], priority=1 << 40)
    route = Route(family=4, table=254, destination="203.0.113.0/24", type="blackhole", metric=-7)
    host = dataclasses.replace(snapshot.host, rules=(*snapshot.host.rules, rule), routes=(*snapshot.host.routes, route))
    with replica_of(dataclasses.replace(snapshot, host=host)) as (lab, _target):
        assert any("1099511627776" in note and "refuses" in note for note in lab.notes)
        assert any("metric -7" in note and "refuses" in note for note in lab.notes)


def test_an_invalid_address_is_refused(snapshot: Snapshot) -> None:
    address = dataclasses.replace(snapshot.host.addresses[-1], interface="wan0", address="nowhere")
    host = dataclasses.replace(snapshot.host, addresses=(*snapshot.host.addresses, address))
    with pytest.raises(ReplicaImpossible, match="'nowhere/"):
        plan_replica(dataclasses.replace(snapshot, host=host), INTENT, "test")
