"""The path model against real packets: random rules, routes, marks, NAT and forward chains on a lab's host.

From seed FLOW_MARKS on, rules of nftables and iptables mark flows and change destinations as well; from MESSAGE_TYPES
on they ask for types of ICMP and for the TTL; from CONCATENATIONS on for several fields at once, for MAC addresses, and
they take verdicts, marks and addresses out of maps.
Each random host is a lab with random commands typed on it. Its snapshot is read, the model traces random packets of the
agent, and the same packets are sent and watched on every interface. The model's egress, source and answer must equal
what the captures saw. VIACHECK_RANDOM_HOSTS sets how many hosts a run tries; a seed that ever differed is in SEEDS.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from random import Random

import pytest

from netns_lab.builder import build
from netns_lab.lab import Lab
from netns_lab.lab_specs import LabSpec
from netns_lab.lab_targets import LabTarget
from viacheck.analysis.paths import PathTracer
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.traced_path import Path, PathEnd, Traffic
from viacheck.model.check_evidence import PacketsEvidence
from viacheck.model.intent import TransportProtocol
from viacheck.packets.agent_probes import AgentProbes, PacketWatch
from viacheck.packets.tokens import TokenSpace

RANDOM_HOSTS = int(os.environ.get("VIACHECK_RANDOM_HOSTS", "12"))
PACKETS = 12
"""Packets for each host."""
SEEDS: tuple[int, ...] = (172, 200_025, 200_053, 200_078, 200_145)
"""Seeds at which the model once differed from the packets."""
FLOW_MARKS, UNTRACKED, MESSAGE_TYPES, CONCATENATIONS = 100_000, 200_000, 300_000, 400_000
"""The first of the seeds whose hosts mark flows, too; of those with packets that conntrack does not see, with marks of
chains for NAT, and with sets; of those with rules for types of ICMP and for the TTL; and of those with concatenations,
maps, and sets of MAC addresses."""
FAMILIES = (0, FLOW_MARKS, UNTRACKED, MESSAGE_TYPES, CONCATENATIONS)
ANSWERING = "198.51.100.1"
TIMEOUT = 0.25
"""Seconds for an answer: every answer of a lab takes less than a hundredth of it."""
LABS = ("policy-routing", "policy-routing-hardened", "nat-multihomed", "macvlan")
DESTINATIONS = (ANSWERING, "203.0.113.9", "203.0.113.200", "192.0.2.55", "10.10.40.1", "10.10.50.1", "100.64.3.3")
PREFIXES = ("203.0.113.0/24", "203.0.113.128/25", "192.0.2.0/24", "198.51.100.0/24", "100.64.0.0/10", "0.0.0.0/1")
GATEWAYS = {"eth0": "10.10.40.1", "wlan0": "10.10.50.1"}
OPEN_PORT = 33434
PORTS = (443, OPEN_PORT, 5201)


@dataclass(frozen=True)
class Change:
    """One random command on the lab's host or in the agent."""

    machine: str
    argv: tuple[str, ...]


def _rule(random: Random) -> tuple[str, ...]:
    selectors: list[str] = []
    if random.random() < 0.5:
        selectors += ["from", random.choice(["172.17.0.0/16", "172.17.0.2", "10.0.0.0/8", "0.0.0.0/0"])]
    if random.random() < 0.5:
        selectors += ["to", random.choice(PREFIXES)]
    if random.random() < 0.4:
        protocol = random.choice(["tcp", "udp", "icmp"])
        selectors += ["ipproto", protocol]
        if protocol != "icmp" and random.random() < 0.7:
            selectors += ["dport", str(random.choice(PORTS))]
    if random.random() < 0.3:
        selectors += ["fwmark", random.choice(["0x1", "0x2", "0x1/0x3"])]
    if random.random() < 0.2:
        selectors += ["iif", random.choice(["docker0", "eth0"])]
    action = random.choice(
        [("lookup", "main"), ("lookup", "200"), ("lookup", "300"), ("lookup", "main", "suppress_prefixlength", "0"),
         ("unreachable",), ("blackhole",)]
    )  # fmt: skip
    return ("ip", "rule", "add", "priority", str(random.randrange(10, 32000)), *selectors, *action)


def _route(random: Random) -> tuple[str, ...]:
    table = random.choice(["main", "200", "300"])
    if random.random() < 0.15:
        kind = random.choice(["unreachable", "blackhole", "throw"])
        return ("ip", "route", "replace", kind, random.choice(PREFIXES), "table", table)
    uplink = random.choice(list(GATEWAYS))
    prefix = random.choice([*PREFIXES, "default"])
    return ("ip", "route", "replace", prefix, "via", GATEWAYS[uplink], "dev", uplink, "table", table)


def _filter(random: Random) -> tuple[str, ...]:
    mark = random.choice(["1", "2"])
    protocol = random.choice(["tcp", "udp"])
    port, prefix = random.choice(PORTS), random.choice(PREFIXES)
    uplink = random.choice(list(GATEWAYS))
    return random.choice(
        [
            ("nft", "add", "rule", "ip", "rnd", "pre", "ip", "saddr", "172.17.0.0/16", protocol, "dport", str(port),
             "meta", "mark", "set", mark),
            ("nft", "add", "rule", "ip", "rnd", "pre", "ip", "daddr", prefix, "meta", "mark", "set", mark),
            ("nft", "add", "rule", "ip", "rnd", "passing", "ip", "daddr", prefix, "drop"),
            ("nft", "add", "rule", "ip", "rnd", "passing", protocol, "dport", str(port), "drop"),
            ("nft", "add", "rule", "ip", "rnd", "passing", "iifname", uplink, "ip", "saddr", prefix, "drop"),
            ("nft", "add", "rule", "ip", "rnd", "passing", "iifname", uplink, "ct", "state", "established", "accept"),
            ("nft", "add", "rule", "ip", "rnd", "post", "oifname", uplink, "ip", "daddr", prefix, "accept"),
            ("nft", "add", "rule", "ip", "rnd", "post", "oifname", uplink, "ip", "saddr", "172.17.0.0/16",
             "snat", "to", f"{GATEWAYS[uplink][:-1]}9"),
        ]
    )  # fmt: skip


def _flow_mark(random: Random) -> tuple[str, ...]:
    mark, port, uplink = random.choice(["0x1", "0x2"]), str(random.choice(PORTS)), random.choice(list(GATEWAYS))
    mangle = ("iptables", "-t", "mangle", "-A")
    pre = ("nft", "add", "rule", "ip", "rnd", "pre")
    return random.choice(
        [
            (*mangle, "PREROUTING", "-j", "CONNMARK", "--restore-mark"),
            (*mangle, "PREROUTING", "-i", uplink, "-j", "CONNMARK", "--restore-mark", "--mask", "0x1"),
            (*mangle, "PREROUTING", "-p", "tcp", "--dport", port, "-j", "CONNMARK", "--set-mark", mark),
            (*mangle, "PREROUTING", "-m", "connmark", "!", "--mark", "0", "-j", "MARK", "--set-mark", mark),
            (*mangle, "FORWARD", "-m", "connmark", "--mark", f"{mark}/0x3", "-j", "DROP"),
            (*mangle, "FORWARD", "-o", uplink, "-j", "CONNMARK", "--set-xmark", f"{mark}/0x3"),
            (*mangle, "POSTROUTING", "-j", "CONNMARK", "--save-mark"),
            (*mangle, "POSTROUTING", "-o", uplink, "-j", "CONNMARK", "--set-mark", mark),
            (*pre, "ct", "mark", "!=", "0", "meta", "mark", "set", "ct", "mark"),
            (*pre, "ct", "state", "new", "ip", "saddr", "172.17.0.0/16", "ct", "mark", "set", mark),
            (*pre, "iifname", uplink, "ct", "mark", mark, "drop"),
            ("nft", "add", "rule", "ip", "rnd", "passing", "oifname", uplink, "ct", "mark", "set", "meta", "mark"),
            ("nft", "add", "rule", "ip", "rnd", "passing", "ct", "mark", "&", "0x3", "==", mark, "drop"),
        ]
    )  # fmt: skip


def _untracked(random: Random) -> tuple[str, ...]:
    port, uplink, prefix = str(random.choice(PORTS)), random.choice(list(GATEWAYS)), random.choice(PREFIXES)
    mark, protocol = random.choice(["0x1", "0x2"]), random.choice(["tcp", "udp"])
    raw, nat = ("iptables", "-t", "raw", "-A", "PREROUTING"), ("iptables", "-t", "nat", "-A")
    early = ("nft", "add", "rule", "ip", "rnd", "early")
    return random.choice(
        [
            (*raw, "-i", "docker0", "-d", prefix, "-j", "NOTRACK"),
            (*raw, "-i", "docker0", "-p", protocol, "--dport", port, "-j", "CT", "--notrack"),
            (*raw, "-i", uplink, "-p", protocol, "--sport", port, "-j", "NOTRACK"),
            (*raw, "-m", "conntrack", "--ctstate", "INVALID", "-j", "MARK", "--set-mark", mark),
            (*early, "ip", "daddr", prefix, "notrack"),
            (*early, "iifname", uplink, "notrack"),
            (*early, "meta", "mark", "0x1", "notrack"),
            ("nft", "add", "rule", "ip", "rnd", "pre", "ip", "daddr", prefix, "notrack"),
            ("nft", "add", "rule", "ip", "rnd", "pre", "ct", "state", "untracked", "meta", "mark", "set", mark),
            ("nft", "add", "rule", "ip", "rnd", "passing", "ct", "state", "untracked", "drop"),
            ("nft", "add", "rule", "ip", "rnd", "passing", "ct", "mark", "!=", mark, "drop"),
            ("nft", "add", "rule", "ip", "rnd", "to", "iifname", "docker0", protocol, "dport", port, "meta", "mark",
             "set", mark),
            ("nft", "add", "rule", "ip", "rnd", "late", "ip", "daddr", prefix, "meta", "mark", "set", mark),
            (*nat, "PREROUTING", "-i", "docker0", "-d", prefix, "-j", "MARK", "--set-mark", mark),
            (*nat, "PREROUTING", "-i", "docker0", "-j", "CONNMARK", "--set-mark", mark),
            (*nat, "POSTROUTING", "-o", uplink, "-j", "CONNMARK", "--set-mark", mark),
        ]
    )  # fmt: skip


def _message_type(random: Random) -> tuple[str, ...]:
    kind, mark = random.choice(["echo-request", "echo-reply"]), random.choice(["0x1", "0x2"])
    uplink, ttl = random.choice(list(GATEWAYS)), str(random.choice([1, 2, 3, 64, 65]))
    came, low = random.choice(["docker0", uplink]), str(random.choice([2, 63, 64, 65]))
    mangle = ("iptables", "-t", "mangle", "-A")
    pre, passing = ("nft", "add", "rule", "ip", "rnd", "pre"), ("nft", "add", "rule", "ip", "rnd", "passing")
    return random.choice(
        [
            (*mangle, "PREROUTING", "-p", "icmp", "--icmp-type", kind, "-j", "MARK", "--set-mark", mark),
            ("iptables", "-A", "FORWARD", "-p", "icmp", "--icmp-type", kind, "-j", "DROP"),
            ("iptables", "-A", "FORWARD", "-p", "icmp", "-m", "icmp", "!", "--icmp-type", kind, "-j", "DROP"),
            ("iptables", "-t", "raw", "-A", "PREROUTING", "-p", "icmp", "--icmp-type", kind, "-j", "NOTRACK"),
            (*pre, "icmp", "type", kind, "meta", "mark", "set", mark),
            (*pre, "icmp", "type", "{ echo-request, timestamp-request }", "ct", "mark", "set", mark),
            (*passing, "icmp", "type", kind, "drop"),
            (*mangle, "PREROUTING", "-i", came, "-j", "TTL", "--ttl-set", ttl),
            (*mangle, "PREROUTING", "-i", came, "-j", "TTL", "--ttl-dec", random.choice(["1", "63", "64"])),
            (*mangle, "FORWARD", "-o", uplink, "-j", "TTL", "--ttl-inc", "3"),
            (*mangle, "FORWARD", "-m", "ttl", "--ttl-lt", low, "-j", "DROP"),
            (*mangle, "FORWARD", "-m", "ttl", "--ttl-eq", low, "-j", "DROP"),
            (*pre, "iifname", came, "ip", "ttl", "set", ttl),
            (*pre, "ip", "ttl", low, "meta", "mark", "set", mark),
            (*passing, "ip", "ttl", "<", low, "drop"),
            (*passing, "ip", "ttl", "!=", low, "drop"),
        ]
    )  # fmt: skip


SETS = (
    "create nets hash:net", "add nets 203.0.113.0/24", "add nets 203.0.113.128/25 nomatch", "add nets 198.51.100.1",
    "create hosts hash:ip", "add hosts 198.51.100.1", "add hosts 192.0.2.55",
    "create wide hash:ip netmask 24", "add wide 203.0.113.0",
    "create services hash:ip,port", f"add services 198.51.100.1,udp:{OPEN_PORT}", "add services 203.0.113.9,tcp:443",
    "create nets-ports hash:net,port", "add nets-ports 203.0.113.0/24,tcp:5201", "add nets-ports 172.17.0.0/16,udp:443",
    "create ports bitmap:port range 1-65535", "add ports 443", f"add ports {OPEN_PORT}",
    "create by-uplink hash:net,iface", "add by-uplink 198.51.100.0/24,wlan0", "add by-uplink 0.0.0.0/0,docker0",
    "create all list:set", "add all hosts", "add all wide",
)  # fmt: skip


def _by_set(random: Random) -> tuple[str, ...]:
    name, flags = random.choice(
        [("nets", "dst"), ("nets", "src"), ("hosts", "dst"), ("wide", "dst"), ("services", "dst,dst"), ("all", "dst"),
         ("nets-ports", "dst,dst"), ("nets-ports", "src,dst"), ("ports", "dst"), ("by-uplink", "src,src"),
         ("by-uplink", "dst,src"), ("services", "dst")]
    )  # fmt: skip
    where, effect = random.choice(
        [("mangle PREROUTING", "-j MARK --set-mark 0x1"), ("mangle PREROUTING", "-j MARK --set-mark 0x2"),
         ("raw PREROUTING", "-j NOTRACK"), ("filter FORWARD", "-j DROP"), ("nat POSTROUTING", "-j ACCEPT")]
    )  # fmt: skip
    table, chain = where.split()
    asks = [*random.choice([(), ("!",)]), "--match-set", name, flags]
    return ("iptables", "-t", table, "-I", chain, "-m", "set", *asks, *effect.split())


def _concatenated(random: Random, mac: str) -> tuple[str, ...]:
    add = ("nft", "add", "rule", "ip", "rnd")
    prefix, other = random.sample(PREFIXES[:4], 2)
    to, instead = random.sample(DESTINATIONS, 2)
    protocol, port, uplink = random.choice(["tcp", "udp"]), str(random.choice(PORTS)), random.choice(list(GATEWAYS))
    verdict = random.choice(["drop", "accept", "return", "jump marked"])
    services = f"{{ {prefix} . {protocol} . {port}, {other} . udp . 5000-6000, {to} . udp . 1-65535 }}"
    return random.choice(
        [
            (*add, "pre", f"ip daddr . meta l4proto . th dport {services} meta mark set 1"),
            (*add, "pre", f"ip daddr . {protocol} dport != {{ {to} . {port}, {instead} . 33434 }} meta mark set 2"),
            (*add, "pre", f"ip daddr . ip protocol . th dport {services} drop"),
            (*add, "pre", f'iifname . ip daddr vmap {{ "docker0" . {to} : {verdict}, "{uplink}" . {to} : drop }}'),
            (*add, "pre", f"ip saddr . ip daddr vmap {{ 172.17.0.2 . {to} : accept, * : {verdict} }}"),
            (*add, "pre", f"meta mark set ip daddr map {{ {to} : 0x1, {instead} : 0x2 }}"),
            (*add, "pre", f"meta mark set ip daddr . meta l4proto map {{ {to} . tcp : 0x1, {instead} . udp : 0x2 }}"),
            (*add, "pre", f"ct mark set ip daddr map {{ {to} : 0x1 }} meta mark set ct mark"),
            (*add, "pre", f"ether saddr . ip daddr {{ {mac} . {to}, 02:00:00:00:00:99 . {instead} }} meta mark set 1"),
            (*add, "pre", f"ether saddr {mac} th dport {port} meta mark set 2"),
            (*add, "passing", f'oifname . ip daddr . {protocol} dport {{ "{uplink}" . {to} . {port} }} drop'),
            (*add, "passing", f"ip daddr . udp dport vmap {{ {to} . {port} : {verdict}, {instead} . 33434 : drop }}"),
            (*add, "passing", f"ct state . ip saddr {{ established . {to}, new . 172.17.0.2 }} meta l4proto tcp drop"),
            (*add, "to", f'iifname "docker0" dnat to {protocol} dport map {{ {port} : {to}, 1 : {instead} }}'),
            (*add, "to", f'iifname "docker0" dnat to ip daddr . udp dport map {{ {to} . {port} : {instead} }}'),
            (*add, "post", f'ip saddr . ip daddr {{ 172.17.0.2 . {to} }} oifname "{uplink}" accept'),
            (*add, "pre", "ether saddr @macs meta mark set 1"),
            (*add, "early", "ether saddr != @macs notrack"),
            (*add, "passing", f"ether saddr . ip saddr . meta l4proto {{ {mac} . 172.17.0.2 . {protocol} }} drop"),
            ("iptables", "-t", "mangle", "-A", "PREROUTING", *random.choice([(), ("-p", protocol)]), "-m", "mac",
             *random.choice([(), ("!",)]), "--mac-source", mac, "-j", "MARK", "--set-mark", "0x1"),
        ]
    )  # fmt: skip


def _destination_nat(random: Random) -> tuple[str, ...]:
    to, protocol, port = random.choice(DESTINATIONS), random.choice(["tcp", "udp"]), str(random.choice(PORTS))
    pre = ("nft", "add", "rule", "ip", "rnd", "to")
    return random.choice(
        [
            (*pre, "iifname", "docker0", protocol, "dport", port, "dnat", "to", to),
            (*pre, "ip", "saddr", "172.17.0.0/16", protocol, "dport", port, "dnat", "to", f"{to}:{OPEN_PORT}"),
            (*pre, "ip", "daddr", random.choice(PREFIXES), "ip", "saddr", "172.17.0.0/16", "dnat", "to", to),
            (*pre, "iifname", "docker0", protocol, "dport", port, "redirect", "to", ":5353"),
            ("iptables", "-t", "nat", "-A", "PREROUTING", "-i", "docker0", "-p", protocol, "--dport", port,
             "-j", "DNAT", "--to-destination", to),
        ]
    )  # fmt: skip


def _sysctl(random: Random) -> tuple[str, ...]:
    interface = random.choice(["all", "eth0", "wlan0"])
    return ("sysctl", "-q", "-w", f"net.ipv4.conf.{interface}.rp_filter={random.choice([0, 1, 2])}")


def changes(random: Random, lab: str) -> list[Change]:
    """Return random commands for a lab."""
    if lab == "macvlan":
        return [Change("agent", ("ip", "route", "replace", random.choice(PREFIXES), "via", GATEWAYS["eth0"]))]
    chosen = [
        Change("host", argv)
        for argv in (
            ("nft", "add", "table", "ip", "rnd"),
            ("nft", "add", "chain", "ip", "rnd", "pre", "{ type filter hook prerouting priority -150; }"),
            ("nft", "add", "chain", "ip", "rnd", "passing", "{ type filter hook forward priority 5; }"),
            ("nft", "add", "chain", "ip", "rnd", "early", "{ type filter hook prerouting priority -300; }"),
            ("nft", "add", "chain", "ip", "rnd", "late", "{ type filter hook prerouting priority -50; }"),
            ("nft", "add", "chain", "ip", "rnd", "to", "{ type nat hook prerouting priority -110; }"),
            ("nft", "add", "chain", "ip", "rnd", "post", "{ type nat hook postrouting priority 90; }"),
        )
    ]
    for make, most in ((_rule, 4), (_route, 4), (_filter, 3), (_sysctl, 1)):
        chosen += [Change("host", make(random)) for _ in range(random.randint(1, most))]
    return chosen


def packets(random: Random) -> list[Traffic]:
    """Return random packets of the agent; at least a third can be answered."""
    chosen = []
    for number in range(PACKETS):
        destination = ANSWERING if number % 3 == 0 else random.choice(DESTINATIONS)
        protocol: TransportProtocol = random.choice(["icmp", "udp", "tcp"])
        port = None if protocol == "icmp" else random.choice(PORTS)
        chosen.append(Traffic(destination=destination, protocol=PROTOCOL_NUMBERS[protocol], dport=port))
    return chosen


def differs(path: Path, evidence: PacketsEvidence, egress_interfaces: tuple[str, ...]) -> str | None:
    """Return how a path differs from what the captures saw; None when both agree, or the model does not know."""
    left = {
        sighting.interface: sighting.source
        for sighting in evidence.sightings
        if sighting.role == "probe" and sighting.direction == "out" and sighting.interface in egress_interfaces
    }
    if path.end is PathEnd.UNKNOWN:
        return None
    if path.end is not PathEnd.LEAVES:
        return f"the model says {path.end} ({path.reason}), it left by {sorted(left)}" if left else None
    if len(left) != 1 or not set(left) <= path.egress:
        return f"the model says it leaves by {sorted(path.egress)} ({path.reason}), it left by {sorted(left)}"
    (source,) = left.values()
    if path.source is not None and source != path.source:
        return f"the model says source {path.source}, it was {source}"
    # A closed UDP port is answered by an ICMP error, whose own path back may be another.
    closed = path.traffic.protocol == PROTOCOL_NUMBERS["udp"] and path.traffic.dport != OPEN_PORT
    if (path.destination or path.traffic.destination) == ANSWERING and path.answer_returns is not None and not closed:
        # An answer is due only where the far end can send it back: to an address of the uplink.
        due = path.answer_returns and source.rpartition(".")[0] in ("10.10.40", "10.10.50")
        if due and not evidence.answered:
            return f"the model says that the answer returns ({path.answer_reason}), none came"
        if evidence.answered and not path.answer_returns:
            return f"the model says that no answer returns ({path.answer_reason}), one came"
    return None


@pytest.mark.parametrize(
    "seed",
    dict.fromkeys([*SEEDS, *(first + n for first in FAMILIES for n in range(RANDOM_HOSTS))]),
)
def test_the_model_says_what_packets_do(seed: int) -> None:
    random = Random(seed)
    name = LABS[seed % len(LABS)]
    spec = LabSpec(name)
    lab = build(spec.plan())
    target = LabTarget(spec, lab)
    try:
        typed = changes(random, name)
        if seed >= FLOW_MARKS and name != "macvlan":
            typed += [Change("host", _flow_mark(random)) for _ in range(random.randint(2, 4))]
            typed += [Change("host", _destination_nat(random)) for _ in range(random.randint(0, 2))]
        if seed >= UNTRACKED and name != "macvlan":
            typed += [Change("host", _untracked(random)) for _ in range(random.randint(2, 5))]
            typed += [Change("host", ("ipset", *line.split())) for line in SETS]
            typed += [Change("host", _by_set(random)) for _ in range(random.randint(1, 3))]
        if seed >= MESSAGE_TYPES and name != "macvlan":
            typed += [Change("host", _message_type(random)) for _ in range(random.randint(2, 5))]
        if seed >= CONCATENATIONS and name != "macvlan":
            (link,) = json.loads(lab.agent.namespace.run(["ip", "-j", "link", "show", "dev", "eth0"]).stdout)
            mac = link["address"]
            known = random.choice([mac, "02:00:00:00:00:99"])
            made = (
                "add chain ip rnd marked; add rule ip rnd marked meta mark set 2",
                f"add set ip rnd macs {{ type ether_addr; elements = {{ 02:00:00:00:00:98, {known} }}; }}",
            )
            typed += [Change("host", ("nft", text)) for text in made]
            typed += [Change("host", _concatenated(random, mac)) for _ in range(random.randint(3, 6))]
        for change in typed:
            _type(lab, change)
        resolved = ResolvedIntent(target.intent, target.read_state())
        tracer, tokens = PathTracer(resolved), TokenSpace()
        assert target.agent is not None
        namespace = target.agent
        agent, watch = AgentProbes(lambda: namespace, tokens, TIMEOUT), PacketWatch(lab.host.namespace, tokens)
        names = {number: protocol for protocol, number in PROTOCOL_NUMBERS.items()}
        for traffic in packets(random):
            path = tracer.trace(traffic)
            with watch(resolved.watchable) as seen:
                exchange = agent.send(names[traffic.protocol or 0], to=traffic.destination, count=1, port=traffic.dport)
            difference = differs(path, seen.evidence(exchange), resolved.egress_interfaces)
            commands = "\n".join(" ".join(change.argv) for change in typed)
            assert difference is None, f"seed {seed}, {name}: {traffic}: {difference}\n{commands}"
    finally:
        target.close()


def _type(lab: Lab, change: Change) -> None:
    """Run a random command. The kernel may refuse a rule that exists already; nft must accept every command."""
    machine = lab.host if change.machine == "host" else lab.agent
    done = machine.namespace.run(change.argv)
    assert done.exit_code == 0 or change.argv[0] == "ip", f"{' '.join(change.argv)}: {done.stderr}"
