"""The routing model against the kernel: random rules and routes, loaded for real, read back for real, asked of both.

Every set comes from a seed. A difference is told with the seed, the packet, both answers and the commands that build
the set again.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from viacheck.analysis.routing.model import Decision, Packet, RoutingModel, decide, without_interface
from viacheck.host.namespace import Namespace
from viacheck.model.address_family import Family
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import PortRange, Rule
from viacheck.model.route import Nexthop, Route
from viacheck.parsers.iproute import parse_addresses, parse_links, parse_neighbours, parse_routes, parse_rules

NETLINK_ROUTE, RTM_GETROUTE, NLMSG_ERROR, NLM_F_REQUEST = 0, 26, 2, 1
RTM_F_LOOKUP_TABLE = 0x1000
RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_TABLE, RTA_MARK = 1, 2, 3, 4, 5, 7, 15, 16
RTA_VIA, RTA_UID, RTA_IP_PROTO, RTA_SPORT, RTA_DPORT = 18, 25, 27, 28, 29
INTERFACES = ("v0", "v1", "v2", "v3", "br0")
SYSCTLS = (
    "ipv4/conf/{}/forwarding",
    "ipv4/conf/{}/rp_filter",
    "ipv4/conf/{}/accept_local",
    "ipv4/conf/{}/send_redirects",
    "ipv4/conf/{}/route_localnet",
    "ipv4/conf/{}/ignore_routes_with_linkdown",
    "ipv6/conf/{}/ignore_routes_with_linkdown",
    "ipv6/conf/{}/forwarding",
    "ipv6/conf/{}/keep_addr_on_down",
    "ipv6/conf/{}/use_tempaddr",
)
ADDRESSES = """
address add 10.0.0.1/24 dev v0
address add 10.0.0.2/24 dev v0
address add 10.0.1.1/25 dev v0
address add 10.1.0.1/24 dev v1 scope link
address add 10.1.1.1/24 dev v1
address add 10.2.0.1 peer 10.2.0.9/32 dev v2
address add 10.2.1.1/24 dev v2
address add 10.3.0.1/24 dev v3
address add 10.4.0.1/24 dev br0
address add 192.0.2.1/32 dev lo
address add 2001:db8:0::1/64 dev v0 nodad
address add 2001:db8:0::2/64 dev v0 nodad preferred_lft 0
address add fd00:1::1/64 dev v1 nodad
address add 2001:db8:1::1/64 dev v1 nodad
address add 2002:a00:1::1/64 dev v2 nodad
address add 2001:db8:3::1/64 dev v3 nodad
"""
SETS, LOOKUPS = 40, 25
"""Sets of rules and routes for each test, and packets for each set."""
ACTIONS = ("unreachable", "blackhole", "prohibit")


class Host:
    """A namespace with five interfaces whose other ends lie in a second one; v3 has no carrier."""

    def __init__(self, tmp_path: Path) -> None:
        self.namespace = Namespace.create("model")
        self.far = Namespace.create("far")
        self._script = tmp_path / "batch"
        self.sysctl("net/ipv6/conf/default/accept_dad", "0")
        setup = ["link set lo up", "link add br0 type bridge", "link set br0 up"]
        for number in range(4):
            setup += [
                f"link add v{number} type veth peer name p{number} index {50 + number} netns {self.far.path}",
                f"link set v{number} up",
            ]
        self.batch(setup, strict=True)
        for number in range(3):
            result = self.far.run(["ip", "link", "set", f"p{number}", "up"])
            assert result.ok, result.stderr
        for name in ("all", "default", *INTERFACES):
            self.sysctl(f"net/ipv4/conf/{name}/rp_filter", "0")
        self.sysctl("net/ipv4/ip_forward", "1")
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
        self._settle()
        self.batch(ADDRESSES.split("\n"), strict=True)
        self._netlink = self.namespace.call(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
        self.index = {link.name: link.index for link in self.state().links}
        self.name = {index: name for name, index in self.index.items()}

    def _settle(self) -> None:
        """Wait until the links have the carrier that they will keep, and their link-local addresses are final."""
        wanted = {"v0": "UP", "v1": "UP", "v2": "UP", "v3": "LOWERLAYERDOWN", "br0": "UNKNOWN"}
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            state = self.state()
            states = {link.name: link.operstate for link in state.links if link.name != "lo"}
            if states == wanted and not any("tentative" in one.flags for one in state.addresses):
                return
        raise AssertionError(f"links did not settle: {states}, {state.addresses}")

    def sysctl(self, path: str, value: str) -> None:
        """Set a switch in the namespace."""
        self.namespace.call(lambda: Path(f"/proc/sys/{path}").write_text(value))

    def batch(self, lines: list[str], family: Family | None = None, *, strict: bool = False) -> None:
        """Run commands of ip; unless strict, those that the kernel refuses are left out."""
        self._script.write_text("\n".join(lines) + "\n")
        options = ([f"-{family}"] if family else []) + ([] if strict else ["-force"])
        result = self.namespace.run(["ip", *options, "-batch", str(self._script)])
        assert result.ok or not strict, result.stderr

    def _ip(self, *words: str) -> str:
        result = self.namespace.run(["ip", "-N", "-j", *words])
        assert result.ok, result
        return result.stdout

    def state(self, *families: Family) -> NetworkState:
        """The namespace (of both families unless told) through the real path: what ip prints, and the parsers."""

        def sysctls() -> dict[str, str]:
            names = [pattern.format(one) for one in ("all", *INTERFACES) for pattern in SYSCTLS]
            paths = [Path(f"/proc/sys/net/{name}") for name in names]
            return {
                f"net/{name}": path.read_text().strip()
                for name, path in zip(names, paths, strict=True)
                if path.exists()
            }

        families = families or (4, 6)
        return NetworkState(
            links=parse_links(self._ip("-d", "link", "show")),
            addresses=parse_addresses(self._ip("-d", "address", "show")),
            rules=sum((parse_rules(self._ip("-d", f"-{one}", "rule", "show"), one) for one in families), ()),
            routes=sum(
                (parse_routes(self._ip("-d", f"-{one}", "route", "show", "table", "all"), one) for one in families), ()
            ),
            neighbours=sum((parse_neighbours(self._ip(f"-{one}", "neigh", "show"), one) for one in families), ()),
            sysctls=self.namespace.call(sysctls),
        )

    def ask(self, packet: Packet) -> Answer:
        """The kernel's own decision: one RTM_GETROUTE with all that the packet says (rtnetlink(7), linux/rtnetlink.h).

        Written out here: pyroute2's message leaves RTA_IP_PROTO, RTA_SPORT and RTA_DPORT out without a word.
        """
        family = socket.AF_INET6 if ":" in packet.destination else socket.AF_INET
        attributes = [(RTA_DST, socket.inet_pton(family, packet.destination))]
        if packet.source:
            attributes.append((RTA_SRC, socket.inet_pton(family, packet.source)))
        for kind, name in ((RTA_IIF, packet.iif), (RTA_OIF, packet.oif)):
            if name:
                attributes.append((kind, struct.pack("=I", self.index[name])))
        if packet.mark:
            attributes.append((RTA_MARK, struct.pack("=I", packet.mark)))
        # Left out, IPv6 would ask about an arriving packet for no user at all, unlike where it passes one on.
        attributes.append((RTA_UID, struct.pack("=I", packet.uid)))
        for kind, layout, number in (
            (RTA_IP_PROTO, "=B", packet.protocol),
            (RTA_SPORT, "!H", packet.sport),
            (RTA_DPORT, "!H", packet.dport),
        ):
            if number is not None:
                attributes.append((kind, struct.pack(layout, number)))
        bits = 128 if family == socket.AF_INET6 else 32
        source_bits = bits if packet.source else 0
        body = struct.pack("=BBBBBBBBI", family, bits, source_bits, packet.tos, 0, 0, 0, 0, RTM_F_LOOKUP_TABLE)
        for kind, value in attributes:
            body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        self._netlink.send(struct.pack("=IHHII", 16 + len(body), RTM_GETROUTE, NLM_F_REQUEST, 1, 0) + body)
        return self._answer(self._netlink.recv(65536), family)

    def _answer(self, message: bytes, family: int) -> Answer:
        length, message_type = struct.unpack_from("=IH", message)
        if message_type == NLMSG_ERROR:
            return Answer(error=-int(struct.unpack_from("=i", message, 16)[0]))
        found: dict[int, bytes] = {}
        offset = 16 + 12
        while offset < length:
            size, kind = struct.unpack_from("=HH", message, offset)
            found[kind] = message[offset + 4 : offset + size]
            offset += size + (-size % 4)
        gateway = found.get(RTA_GATEWAY)
        text = socket.inet_ntop(family, gateway) if gateway else None
        if RTA_VIA in found:
            (via_family,) = struct.unpack_from("=H", found[RTA_VIA])
            text = socket.inet_ntop(via_family, found[RTA_VIA][2:])
        return Answer(
            type=message[16 + 7],
            table=_number(found.get(RTA_TABLE)),
            interface=self.name.get(_number(found.get(RTA_OIF))),
            gateway=text,
            source=socket.inet_ntop(family, found[RTA_PREFSRC]) if RTA_PREFSRC in found else None,
        )

    def close(self) -> None:
        """Let go of both namespaces."""
        self._netlink.close()
        self.namespace.close()
        self.far.close()


@dataclass(frozen=True)
class Answer:
    """What the kernel answered: an error number, or a way."""

    error: int = 0
    type: int = 0
    table: int | None = None
    interface: str | None = None
    gateway: str | None = None
    source: str | None = None


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value else 0


TYPE_NUMBERS = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5}


def difference(decision: Decision, answer: Answer) -> str | None:
    """Name what the model and the kernel do not agree on."""
    packet = decision.packet
    expected: dict[str, tuple[int, ...]] = {
        "no-route": (errno.ENETUNREACH,),
        "unreachable": (errno.EHOSTUNREACH if decision.route else errno.ENETUNREACH,),
        "prohibit": (errno.EACCES,),
        "blackhole": (errno.EINVAL,),
        "martian": (errno.EINVAL, errno.EXDEV),
        "foreign-source": (errno.EINVAL, errno.ENETUNREACH),
        "not-forwarded": (errno.EHOSTUNREACH,),
    }
    if decision.outcome in expected:
        return None if answer.error in expected[decision.outcome] else "outcome"
    if answer.error == errno.EINVAL and decision.refused_exits:
        return None
    if answer.error or TYPE_NUMBERS[decision.outcome] != answer.type:
        return "outcome"
    if answer.table and decision.table != answer.table and (decision.table, answer.table) != (255, 254):
        return "table"
    fitting = [one for one in decision.exits if one.interface == answer.interface and one.gateway == answer.gateway]
    if not fitting:
        return "way"
    if packet.source is None and answer.source not in [one.source for one in fitting]:
        return "source"
    return None


class Generator:
    """Random rules, routes and packets over a small world of addresses, so that they meet often."""

    def __init__(self, seed: int, family: Family) -> None:
        self.random = random.Random(f"{family}-{seed}")
        self.family = family
        self.name = f"seed {seed}, IPv{family}"
        self.chosen: dict[str, str] = {}
        self.last: tuple[str, str, str] | None = None
        """Prefix, table and metric of the last route; others join it, so that ties are broken often."""

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random.random() < probability

    def address(self) -> str:
        """An address that routes and rules are likely to cover."""
        pick = self.random
        if self.family == 6:
            prefix = pick.choice(("2001:db8:0:", "2001:db8:1:", "fd00:1:", "2001:db8:7:", "2002:a00:1:", "2001:db8:3:"))
            return f"{prefix}:{pick.choice((1, 2, 3, 9, 0x100, ''))}"
        return f"10.{pick.randrange(6)}.{pick.randrange(3)}.{pick.choice((1, 2, 3, 9, 77, 130, 255))}"

    def prefix(self, lengths: tuple[int, ...] = ()) -> str:
        """A prefix around such an address."""
        return str(ip_network(self._unmasked(lengths), strict=False))

    def selector(self) -> str:
        """A prefix of a rule, sometimes with bits behind its length, which the kernel keeps and does not compare."""
        return self._unmasked() if self.chance(0.1) else self.prefix()

    def _unmasked(self, lengths: tuple[int, ...] = ()) -> str:
        lengths = lengths or (
            (0, 1, 7, 8, 14, 15, 16, 23, 24, 25, 32) if self.family == 4 else (0, 3, 16, 32, 47, 48, 64, 128)
        )
        return f"{self.address()}/{self.random.choice(lengths)}"

    def gateway(self, interface: str) -> str:
        """A gateway on an interface's link."""
        if self.family == 6:
            return self.random.choice(("fe80::1", "fe80::2"))
        return {"v0": "10.0.0.", "v1": "10.1.1.", "v2": "10.2.1.", "v3": "10.3.0.", "br0": "10.4.0."}[
            interface
        ] + self.random.choice(("9", "10"))

    def way(self) -> str:
        """One nexthop."""
        interface = self.random.choice(INTERFACES)
        if self.family == 4 and self.chance(0.05):
            return f"via inet6 fe80::1 dev {interface}"
        if self.chance(0.7):
            return f"via {self.gateway(interface)} dev {interface}"
        return f"dev {interface}"

    def route(self) -> str:
        """A command that makes a route; the kernel may refuse it."""
        kind = self.random.choices(("unicast", "multipath", "reject", "local", "other"), (60, 15, 15, 5, 5))[0]
        if self.last is None or self.chance(0.7):
            table = self.random.choice((254, 254, 200, 200, 201, 202, 253, 255 if self.chance(0.2) else 202))
            metric = f" metric {self.random.choice((5, 10, 1024, 2000))}" if self.chance(0.4) else ""
            self.last = (self.prefix(), f" table {table}", metric)
        prefix, table_words, metric = self.last
        tail = table_words + metric
        if self.family == 4 and self.chance(0.15):
            tail += f" tos {self.random.choice(('0x08', '0x10', '0x04'))}"
        way = self.way()
        # A dump shows IPv6 routes by gateways that are alike as one, whatever stands between them in the kernel's list
        # and whatever src and preference the later ones have: such a state cannot be read back, so none is made.
        joins = self.family == 4 or (kind != "multipath" and "via" not in way)
        start = f"route {self.random.choice(('add', 'append')) if joins else 'add'} "
        if self.family == 6 and self.chance(0.1):
            tail += f" from {self.prefix((0, 32, 48, 64))}"
        if kind == "multipath":
            hops = " ".join(
                f"nexthop via {self.gateway(one)} dev {one} weight {self.random.randrange(1, 4)}"
                for one in self.random.sample(INTERFACES, self.random.randrange(2, 4))
            )
            return f"{start}{prefix}{tail} {hops}"
        if kind == "reject":
            return f"{start}{self.random.choice((*ACTIONS, 'throw'))} {prefix}{tail}"
        if kind == "local":
            return f"{start}local {prefix} dev lo{tail}"
        if kind == "other":
            other = "broadcast" if self.family == 4 else "anycast"
            return f"{start}{other} {prefix} dev {self.random.choice(INTERFACES)}{tail}"
        if self.chance(0.15):
            sources = {4: ("10.0.0.2", "10.1.1.1", "192.0.2.1"), 6: ("2001:db8:1::1", "fd00:1::1")}
            tail += f" src {self.random.choice(sources[self.family])}"
        if self.family == 6 and self.chance(0.4):
            tail += f" pref {self.random.choice(('low', 'high'))}"
        return f"{start}{prefix} {way}{tail}"

    def rule(self) -> str:
        """A command that makes a rule; the kernel may refuse it."""
        pick = self.random
        priority = pick.choice((pick.randrange(1, 60), 0 if self.chance(0.1) else pick.randrange(1, 60)))
        words = [f"rule add priority {priority}"]
        if self.chance(0.12):
            words.append("not")
        words.append(f"from {self.selector()}" if self.chance(0.4) else "from all")
        if self.chance(0.25):
            words.append(f"to {self.selector()}")
        if self.chance(0.25):
            words.append(f"iif {pick.choice((*INTERFACES, 'lo', 'nowhere'))}")
        if self.chance(0.08):
            words.append(f"oif {pick.choice((*INTERFACES, 'nowhere'))}")
        if self.chance(0.15):
            words.append(f"fwmark {pick.choice(('0x1', '0x11', '0x10/0xf0', '0x0/0xff', '0x1/0x3'))}")
        if self.chance(0.08):
            words.append(f"tos {pick.choice(('0x08', '0x10', '0xa8'))}")
        if self.chance(0.15):
            words.append(f"ipproto {pick.choice(('tcp', 'udp', 'icmp' if self.family == 4 else 'ipv6-icmp'))}")
        if self.chance(0.1):
            words.append(f"sport {pick.choice(('1000', '1000-2000', '5'))}")
        if self.chance(0.1):
            words.append(f"dport {pick.choice(('53', '50-60', '443'))}")
        if self.chance(0.05):
            words.append(f"uidrange {pick.choice(('0-0', '1-1000', '0-100'))}")
        kind = pick.choices(("lookup", "suppress", "goto", "nop", "action"), (60, 15, 10, 3, 12))[0]
        if kind == "goto":
            words.append(f"goto {priority + pick.randrange(1, 30)}")
        elif kind == "nop":
            words.append("nop")
        elif kind == "action":
            words.append(pick.choice(ACTIONS))
        else:
            words.append(f"lookup {pick.choice((254, 200, 201, 202, 253, 999))}")
            if kind == "suppress":
                words.append(f"suppress_prefixlength {pick.choice((0, 0, 8, 24))}")
        return " ".join(words)

    def settings(self) -> dict[str, str]:
        """Sysctls that routing heeds, by path below /proc/sys."""
        pick, chosen = self.random, self.chosen
        for name in INTERFACES:
            conf = f"net/ipv4/conf/{name}/"
            chosen[conf + "rp_filter"] = pick.choice("0000012")
            chosen[conf + "accept_local"] = pick.choice("00001")
            chosen[conf + "send_redirects"] = pick.choice("01")
            chosen[conf + "route_localnet"] = pick.choice("00001")
            chosen[conf + "forwarding"] = pick.choice("1111110")
            for family in (4, 6):
                chosen[f"net/ipv{family}/conf/{name}/ignore_routes_with_linkdown"] = pick.choice("01")
        chosen["net/ipv4/conf/all/send_redirects"] = "0"
        chosen["net/ipv6/conf/all/forwarding"] = pick.choice("01")
        return chosen

    def neighbours(self) -> list[str]:
        """Gateways, some of which do not answer."""
        states = ("failed", "reachable", "stale", "incomplete")
        return [
            f"neigh replace {gateway} dev {name} lladdr 02:00:00:00:00:09 nud {self.random.choice(states)}"
            for name in INTERFACES
            for gateway in (("fe80::1", "fe80::2") if self.family == 6 else (self.gateway(name),))
        ]

    def packet(self) -> Packet:
        """A packet to ask about."""
        pick = self.random
        iif = pick.choice((None, None, *INTERFACES[:4]))
        # Asked about IPv4 without a protocol, the kernel makes up one of UDP.
        protocol = pick.choice((6, 17, 1) if self.family == 4 else (6, 17, 58, None))
        with_ports = protocol in (6, 17)
        own = ("10.0.0.1", "10.0.0.2", "10.1.1.1", "192.0.2.1") if self.family == 4 else ("2001:db8:0::1", "fd00:1::1")
        foreign = self.chance(0.05) or iif is not None
        source = self.address() if foreign else pick.choice(own) if self.chance(0.5) else None
        destination = self.address()
        if self.chance(0.03) and iif is None:
            destination = (
                pick.choice(("224.0.0.5", "239.1.1.1", "255.255.255.255", "127.0.0.1", "127.3.0.1", "8.8.8.8"))
                if self.family == 4
                else pick.choice(("fe80::9", "ff02::5", "::1"))
            )
        return Packet(
            source=source,
            destination=destination,
            iif=iif,
            oif=pick.choice(INTERFACES) if iif is None and self.chance(0.15) else None,
            mark=pick.choice((0, 0, 1, 0x11, 0x13)),
            protocol=protocol,
            sport=pick.choice((5, 1000, 1500)) if with_ports else None,
            dport=pick.choice((53, 443, 9)) if with_ports else None,
            tos=pick.choice((0, 0, 0x08, 0x10, 0x14, 0xA8)),
        )


CLEAN = [
    "rule flush",
    *["rule del priority 0"] * 8,
    *(f"route flush table {table}" for table in (200, 201, 202, 253)),
    *(f"route flush table {table} proto boot" for table in (254, 255)),
    "rule add priority 0 lookup 255 protocol kernel",
    "rule add priority 32766 lookup 254 protocol kernel",
    "rule add priority 32767 lookup 253 protocol kernel",
]


def compare(host: Host, generator: Generator, script: list[str], packets: int) -> None:
    """Ask the model and the kernel about random packets; the first difference ends the test, told in full."""
    state = host.state(generator.family)
    model = RoutingModel(state)
    for _ in range(packets):
        packet = generator.packet()
        decision, answer = model.decide(packet), host.ask(packet)
        found = difference(decision, answer)
        if found is None:
            continue
        steps = [f"  {step.rule}  =>  {step.outcome}" for step in decision.steps]
        pytest.fail(
            "\n".join(
                [
                    f"{generator.name}: {packet}: the {found} differs",
                    f"model:  {decision}",
                    f"kernel: {answer}",
                    *steps,
                    f"ip -{generator.family} -batch of:",
                    *(f"  {line}" for line in script),
                    "addresses:",
                    *(f"  {line}" for line in ADDRESSES.split("\n") if line),
                    "sysctls:",
                    *(f"  {path} = {value}" for path, value in generator.chosen.items()),
                ]
            )
        )


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("model"))
    yield host
    host.close()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("block", range(6))
def test_the_model_decides_as_the_kernel_does(host: Host, family: Family, block: int) -> None:
    for seed in range(block * SETS, (block + 1) * SETS):
        generator = Generator(seed, family)
        for path, value in generator.settings().items():
            host.sysctl(path, value)
        script = [generator.route() for _ in range(generator.random.randrange(5, 30))]
        script += [generator.rule() for _ in range(generator.random.randrange(1, 14))]
        host.batch([*CLEAN, *generator.neighbours(), *script], family)
        compare(host, generator, script, LOOKUPS)


@pytest.mark.parametrize("family", [4, 6])
def test_rules_that_nobody_touched_are_decided_as_the_kernel_does(tmp_path: Path, family: Family) -> None:
    for seed in range(1000, 1015):
        host = Host(tmp_path)
        generator = Generator(seed, family)
        # Local and main share one trie here, so routes of the one shadow those of the other.
        script = [generator.route().replace("table 200", "table 255") for _ in range(20)]
        host.batch(script, family)
        compare(host, generator, script, LOOKUPS)
        host.close()


@pytest.mark.parametrize("name", ["v0", "v1", "v3", "br0", "v2"])
def test_a_lost_interface_leaves_what_the_kernel_leaves(tmp_path: Path, name: str) -> None:
    host = Host(tmp_path)
    families: tuple[Family, Family] = (4, 6)
    for family in families:
        generator = Generator(len(name) + family, family)
        for path, value in generator.settings().items():
            host.sysctl(path, value)
        host.batch([generator.route() for _ in range(60)], family)
        host.batch([generator.rule() for _ in range(10)], family)
    expected = without_interface(host.state(), name)
    host.batch([f"link set {name} down"], strict=True)
    found = host.state()
    assert sorted(map(repr, found.routes)) == sorted(map(repr, expected.routes))
    assert found.addresses == expected.addresses
    assert found.rules == expected.rules
    assert (found.link(name), [one for one in found.neighbours if one.interface == name]) == (expected.link(name), [])
    host.close()


def agent_host(*extra: Route) -> NetworkState:
    """The guide's set-up: docker0 behind eth0 and wlan0, and a rule that sends the agent to wlan0."""

    def route(destination: str, interface: str, gateway: str | None = None, table: int = 254) -> Route:
        return Route(
            family=4,
            table=table,
            destination=destination,
            nexthops=(Nexthop(gateway=gateway, interface=interface),),
            scope="global" if gateway else "link",
        )

    return NetworkState(
        links=tuple(
            Link(index=number, name=name, flags=("UP", "LOWER_UP"), operstate="UP")
            for number, name in enumerate(("lo", "eth0", "wlan0", "docker0"), 1)
        ),
        addresses=(
            Address(interface="eth0", family=4, address="10.10.40.9", prefixlen=24),
            Address(interface="wlan0", family=4, address="10.10.50.9", prefixlen=24),
            Address(interface="docker0", family=4, address="172.17.0.1", prefixlen=16),
        ),
        rules=(
            Rule(family=4, priority=0, table=255, protocol="kernel"),
            Rule(family=4, priority=1000, source="172.17.0.0/16", table=200),
            Rule(family=4, priority=32766, table=254, protocol="kernel"),
            Rule(family=4, priority=32767, table=253, protocol="kernel"),
        ),
        routes=(
            route("0.0.0.0/0", "eth0", "10.10.40.1"),
            route("10.10.40.0/24", "eth0"),
            route("10.10.50.0/24", "wlan0"),
            route("172.17.0.0/16", "docker0"),
            route("0.0.0.0/0", "wlan0", "10.10.50.1", table=200),
            *extra,
        ),
    )


AGENT = Packet("172.17.0.2", "198.51.100.1", iif="docker0", protocol=1)
BACKSTOP = Route(family=4, table=200, destination="0.0.0.0/0", type="unreachable", metric=4278198272)


def test_the_agent_leaves_by_its_table_and_leaks_when_the_uplink_is_away() -> None:
    state = agent_host()
    decision = decide(state, AGENT)
    assert (decision.outcome, decision.table, decision.interface, decision.gateway, decision.source) == (
        "unicast",
        200,
        "wlan0",
        "10.10.50.1",
        "172.17.0.2",
    )
    assert [step.outcome for step in decision.steps] == [
        "table 255: no route, on to the next rule",
        "table 200: default via 10.10.50.1 dev wlan0 table 200",
    ]
    away = decide(without_interface(state, "wlan0"), AGENT)
    assert (away.table, away.interface, away.rule and away.rule.priority) == (254, "eth0", 32766)


def test_an_unreachable_backstop_keeps_the_agent_from_leaking() -> None:
    state = agent_host(BACKSTOP)
    before, after = decide(state, AGENT), decide(without_interface(state, "wlan0"), AGENT)
    assert (before.interface, before.runners_up) == ("wlan0", (BACKSTOP,))
    assert (after.outcome, after.table, after.route, after.interface) == ("unreachable", 200, BACKSTOP, None)
    assert str(after) == "table 200: unreachable (rule priority 1000)"


def test_evidence_names_the_question_each_step_and_the_answer() -> None:
    evidence = decide(agent_host(), AGENT).evidence(kernel="via 10.10.50.1 dev wlan0", agree=True)
    assert evidence.question == "198.51.100.1 from 172.17.0.2 iif docker0 ipproto 1"
    assert [step.chosen for step in evidence.steps] == [False, True]
    assert evidence.model == "table 200: via 10.10.50.1 dev wlan0 src 172.17.0.2 (rule priority 1000)"
    assert (evidence.kernel, evidence.agree) == ("via 10.10.50.1 dev wlan0", True)


def test_evidence_counts_the_rules_that_did_not_match_past_the_first() -> None:
    state = agent_host()
    many = tuple(Rule(family=4, priority=number, source="10.9.9.9/32", table=201) for number in range(1, 501))
    evidence = decide(replace(state, rules=(state.rules[0], *many, *state.rules[1:])), AGENT).evidence()
    assert len(evidence.steps) == 43
    assert (evidence.steps[41].rule, evidence.steps[41].outcome) == ("460 rules, priority 41 to 500", "no match")


def test_a_selector_that_the_reader_does_not_know_makes_the_decision_uncertain() -> None:
    state = agent_host()
    unknown = Rule(family=4, priority=10, source="172.17.0.0/16", table=201, unread=("flowlabel 0x5",))
    decision = decide(replace(state, rules=(state.rules[0], unknown, *state.rules[1:])), AGENT)
    assert not decision.certain
    assert "cannot be evaluated (flowlabel 0x5)" in decision.steps[1].outcome
    other = decide(replace(state, rules=(unknown, *state.rules)), replace(AGENT, source="10.10.40.7"))
    assert other.certain, "the rule is out of the question by what is known of it"


def test_rules_for_tunnels_vrfs_and_other_users_do_not_match() -> None:
    state = agent_host()
    rules = (
        Rule(family=4, priority=1, table=201, tun_id=7),
        Rule(family=4, priority=2, l3mdev=True),
        Rule(family=4, priority=3, table=201, uid_first=1000, uid_last=2000),
        Rule(family=4, priority=4, table=200, sport=PortRange(first=7, last=9)),
    )
    decision = decide(replace(state, rules=(*rules, *state.rules)), AGENT)
    assert [step.matched for step in decision.steps[:4]] == [False] * 4
    assert decision.interface == "wlan0"


@pytest.mark.parametrize("interface", ["wlan0", "vrf0"])
def test_a_packet_of_a_vrf_makes_the_decision_uncertain(interface: str) -> None:
    state = agent_host()
    links = tuple(replace(link, master="vrf0") if link.name == "wlan0" else link for link in state.links)
    vrf = Link(index=90, name="vrf0", kind="vrf", flags=("UP",))
    rule = Rule(family=4, priority=1000, l3mdev=True)
    state = replace(state, links=(*links, vrf), rules=(*state.rules[:1], rule, *state.rules[1:]))
    answer = decide(state, Packet("198.51.100.1", "172.17.0.2", iif=interface))
    assert not answer.certain
    assert answer.doubt.startswith("rule priority 1000 from all l3mdev")
    assert "belongs to a VRF" in answer.doubt
    request = decide(state, AGENT)
    assert request.certain, "docker0 is in no VRF"
    assert not request.doubt


@pytest.mark.parametrize(
    ("source", "destination"), [("10.0.0.1", "2001:db8::1"), ("10.0.0.300", "10.0.0.1"), (None, "example")]
)
def test_addresses_that_cannot_be_are_refused(source: str | None, destination: str) -> None:
    with pytest.raises(ValueError, match=r"different families|does not appear"):
        decide(agent_host(), Packet(source, destination))
