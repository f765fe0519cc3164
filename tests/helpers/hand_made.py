"""A host built by hand: what a person types with ip(8), step by step as the guide says it, in namespaces of its own.

Nothing here comes from the lab builder, so that a run with ``--local`` inside it judges a host that viacheck did not
make. Only the masquerade rule is written by netlink, as no nft or iptables need be installed; and the gateways answer
by the lab's far end.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from netns_lab import nft_rules
from netns_lab.nft_rules import Masquerade
from netns_lab.plan import PROBE_TARGET, RESOLVER
from netns_lab.services.responders import Responders
from tests.helpers.front_door import Finished, command, finished
from viacheck.host.namespace import Namespace

AGENT_PATH = "/run/netns/agent"
AGENT_SUBNET = "172.17.0.0/16"
UPLINKS = {"eth0": "10.10.40", "wlan0": "10.10.50"}
"""Interface, and the first three octets of its network: the host is .9, the gateway .1."""
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")

SITE = """\
schema = 1
[site]
name = "by-hand"
[agent]
netns = "/run/netns/agent"
[agent.attach]
mode = "nat"
bridge = "docker0"
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[egress]
uplink = "wlan0"
table = 200
table_name = "wlan0rt"
persist = "none"
survives = []
[host]
default_exit = "eth0"
[probe]
target = "198.51.100.1"
timeout = "400ms"
"""

# Private copies of what a person would change on the machine; the first process ends with its standard input.
_FIRST_PROCESS = """
set -e
mount -t tmpfs none /run
mkdir -p /run/netns /etc/iproute2
mount -t tmpfs none /etc/iproute2
printf '255 local\\n254 main\\n253 default\\n0 unspec\\n' >/etc/iproute2/rt_tables
mount -t sysfs none /sys
sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
echo "nameserver $1" >/run/resolv.conf
mount --bind /run/resolv.conf "$(readlink -f /etc/resolv.conf)" 2>/dev/null || true
echo ready
cat >/dev/null
"""

_WAIT_UNTIL_UP = """
for _ in $(seq 600); do
    ! ip -br link show dev "$1" | grep -q " UP " || exit 0
    sleep 0.05
done
exit 1
"""
"""The kernel tells some time later that a bridge has a port with carrier."""


class HandMadeHost:
    """A host in network and mount namespaces of its own. It ends when it is closed, and at the latest with us."""

    def __init__(self) -> None:
        """Make the namespaces; nothing is in them yet."""
        self._process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _FIRST_PROCESS, "sh", RESOLVER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self.namespace = Namespace.from_path(f"/proc/{self._process.pid}/ns/net", "hand-made")
        self.responders: list[Responders] = []
        """Those behind the gateways."""
        self._endings = contextlib.ExitStack()
        self._endings.callback(self.namespace.close)

    @property
    def pid(self) -> int:
        """The number of the process that holds the namespaces."""
        return self._process.pid

    def inside(self, *argv: str) -> list[str]:
        """Words that run a command on this host."""
        return ["nsenter", "--target", str(self._process.pid), "--net", "--mount", *argv]

    def run(self, *argv: str) -> str:
        """Run a command on this host that must succeed."""
        done = subprocess.run(self.inside(*argv), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def ip(self, words: str, *names: str) -> str:
        """Run ``ip`` with these words; each ``{}`` among them stands for one of the names."""
        waiting = list(names)
        return self.run("ip", *(waiting.pop(0) if word == "{}" else word for word in words.split()))

    def _namespace(self, name: str) -> None:
        self.ip(f"netns add {name}")
        # Link-local addresses would come one by one while it is being judged.
        for which in ("all", "default"):
            self.ip(f"netns exec {name} sysctl -q -w net.ipv6.conf.{which}.disable_ipv6=1")

    def uplink(self, name: str, network: str) -> None:
        """Cable an interface to a gateway that leads to the probe target."""
        gateway = f"gw{len(self.ip('netns').splitlines())}"
        self._namespace(gateway)
        self.ip(f"-n {gateway} link set lo up")
        self.ip("link add {} type veth peer name lan0 netns {}", name, gateway)
        self.ip(f"address add {network}.9/24 dev {{}}", name)
        self.ip("link set {} up", name)
        self.ip(f"-n {gateway} address add {network}.1/24 dev lan0")
        self.ip(f"-n {gateway} link set lan0 up")
        for address in (PROBE_TARGET, RESOLVER):
            self.ip(f"-n {gateway} address add {address}/32 dev lo")
        path = f"/proc/{self._process.pid}/root/run/netns/{gateway}"
        with contextlib.closing(Namespace.from_path(path, gateway)) as namespace:
            self.responders.append(Responders([(namespace, [PROBE_TARGET, RESOLVER])]))
            self._endings.callback(self.responders[-1].close)
            self.responders[-1].wait_until_open()

    def uplink_on(self, parent: str, name: str, network: str) -> None:
        """Put an uplink as a macvlan child on another uplink, on whose wire the second gateway is too."""
        self.ip(f"-n gw0 address add {network}.1/24 dev lan0")
        self.ip("link add link {} name {} type macvlan mode bridge", parent, name)
        self.ip(f"address add {network}.9/24 dev {{}}", name)
        self.ip("link set {} up", name)

    def agent(self, name: str = "agent", bridge: str = "docker0", network: str = "172.17.0") -> None:
        """Put an agent behind a bridge, as Docker does; ``network`` is the first three octets of its /16."""
        self.ip(f"link add {bridge} type bridge")
        self.ip(f"address add {network}.1/16 dev {bridge}")
        self.ip(f"link set {bridge} up")
        self.agent_on(bridge, name, network, 2)
        self.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        table = "nat" if bridge == "docker0" else f"nat-{bridge}"
        nft_rules.apply(self.namespace, table, [Masquerade(source=f"{network}.0/16", not_oif=bridge)])

    def agent_on(self, bridge: str, name: str, network: str, number: int) -> None:
        """Put an agent behind a bridge that is there, with the address of this number in its network."""
        self._namespace(name)
        self.ip(f"link add veth-{name} type veth peer name eth0 netns {name}")
        self.ip(f"link set veth-{name} up master {bridge}")
        self.ip(f"-n {name} address add {network}.{number}/16 dev eth0")
        self.ip(f"-n {name} link set lo up")
        self.ip(f"-n {name} link set eth0 up")
        self.ip(f"-n {name} route add default via {network}.1")
        self.run("sh", "-c", _WAIT_UNTIL_UP, "sh", bridge)

    def viacheck(
        self,
        *arguments: str,
        report_dir: Path,
        site: Path | None = None,
        by: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """Judge this host from inside, as its operator would; ``by`` are words to start viacheck with."""
        local = ["--local", "--site", str(site)] if site is not None else []
        argv = self.inside(*by, *command(*local, *arguments, "--report-dir", str(report_dir)))
        return finished(argv, report_dir, env=env)

    def close(self) -> None:
        """End the host."""
        self._endings.close()
        self._process.communicate()


@contextlib.contextmanager
def hand_made_host(uplinks: Mapping[str, str] = UPLINKS) -> Iterator[HandMadeHost]:
    """The guide's host with two uplinks, an agent behind docker0, and the default route by the first uplink."""
    with contextlib.closing(HandMadeHost()) as host:
        for name, network in uplinks.items():
            host.uplink(name, network)
        name, network = next(iter(uplinks.items()))
        host.agent()
        host.ip(f"route add default via {network}.1 dev {{}}", name)
        yield host


def apply_the_guides_recipe(host: HandMadeHost, uplink: str = "wlan0") -> None:
    """Steps 1 to 5 of "Host with multiple physical interfaces", as they stand there."""
    host.run("sh", "-c", "echo 200 wlan0rt >> /etc/iproute2/rt_tables")
    host.ip("rule add from 172.17.0.0/16 lookup wlan0rt")
    host.ip("route add default via 10.10.50.1 dev {} table wlan0rt", uplink)


def agent_on_lan_bridge(host: HandMadeHost) -> None:
    """Put eth0 into a bridge that takes its address over, and the agent as a port of it, as pipework does."""
    host.ip("link del docker0")
    host.ip("-n agent link del eth0")
    host.ip("link add br0 type bridge")
    host.ip("address del 10.10.40.9/24 dev eth0")
    host.ip("link set eth0 master br0")
    host.ip("link set br0 up")
    host.ip("address add 10.10.40.9/24 dev br0")
    host.ip("route add default via 10.10.40.1 dev br0")
    host.ip("link add veth1pl1 type veth peer name eth1 netns agent")
    host.ip("link set veth1pl1 up master br0")
    host.ip("-n agent address add 10.10.40.200/24 dev eth1")
    host.ip("-n agent link set eth1 up")
    host.ip("-n agent route add default via 10.10.40.1")


def macvlan_on_lan_bridge(host: HandMadeHost) -> None:
    """Put eth0 into a bridge that takes its address over, and the agent on a macvlan child of it."""
    agent_on_lan_bridge(host)
    host.ip("link del veth1pl1")
    host.ip("link add link br0 name agent0 type macvlan mode bridge")
    host.ip("link set agent0 netns agent name eth0")
    host.ip("-n agent address add 10.10.40.200/24 dev eth0")
    host.ip("-n agent link set eth0 up")
    host.ip("-n agent route add default via 10.10.40.1")


def with_pipework(folder: Path) -> tuple[str, ...]:
    """Return the start of a command line with a pipework program on its PATH."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "pipework"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return ("env", f"PATH={folder / 'bin'}:{os.environ['PATH']}")


@contextlib.contextmanager
def nobodys_folder() -> Iterator[Path]:
    """A folder of the user nobody, in one that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="viacheck-test-") as parent:
        os.chmod(parent, 0o755)
        folder = Path(parent, "nobody")
        folder.mkdir()
        os.chown(folder, 65534, 65534)
        yield folder


def write_site(folder: Path, text: str = SITE) -> Path:
    """Write a site.toml that any user may read."""
    path = folder / "site.toml"
    path.write_text(text)
    os.chmod(path, 0o644)
    return path
