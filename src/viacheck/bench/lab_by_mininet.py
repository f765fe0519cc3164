"""The same lab by mininet, if it is installed: run by the Python that has mininet, in a namespace of its own.

mininet's start-up changes limits and sysctls of the whole machine, so that part is left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from netns_lab.plan import PROBE_TARGET
from viacheck.bench.figures import BenchFailed
from viacheck.bench.readiness import first_ping
from viacheck.host import syscalls
from viacheck.host.namespace import Namespace

NOT_INSTALLED = "not installed"
_SCRIPT = """
import sys, time
from mininet.link import Link
from mininet.net import Mininet
from mininet.node import Node

Mininet.inited = True
for _ in sys.stdin:
    begin = time.perf_counter()
    net = Mininet(controller=None, build=False)
    host, agent, office, radio = (net.addHost(name, cls=Node, ip=None) for name in ("host", "agent", "gw1", "gw2"))
    for far, near_name, far_name in ((office, "host-eth0", "gw1-lan0"), (radio, "host-wlan0", "gw2-lan0"),
                                     (agent, "host-veth", "agent-eth0")):
        Link(host, far, intfName1=near_name, intfName2=far_name)
        host.cmd("ip link set %s up" % near_name)
        far.cmd("ip link set %s up" % far_name)
    for gateway, subnet in ((office, "10.10.40"), (radio, "10.10.50")):
        gateway.cmd("ip address add %s.1/24 dev %s-lan0" % (subnet, gateway.name))
        gateway.cmd("ip address add PROBE_TARGET/32 dev lo")
        gateway.cmd("ip link set lo up")
    for line in ("ip link add docker0 type bridge", "ip link set host-veth master docker0",
                 "ip link set docker0 up", "ip address add 10.10.40.9/24 dev host-eth0",
                 "ip address add 10.10.50.9/24 dev host-wlan0", "ip address add 172.17.0.1/16 dev docker0",
                 "sysctl -qw net.ipv4.ip_forward=1", "ip route add default via 10.10.40.1",
                 "ip route add default via 10.10.50.1 table 200", "ip rule add from 172.17.0.0/16 lookup 200",
                 "nft 'add table ip nat; add chain ip nat postrouting "
                 "{ type nat hook postrouting priority srcnat; }; "
                 "add rule ip nat postrouting ip saddr 172.17.0.0/16 oifname != docker0 masquerade'"):
        output = host.cmd(line)
        if output.strip():
            sys.exit(line + ": " + output)
    agent.cmd("ip address add 172.17.0.2/16 dev agent-eth0")
    agent.cmd("ip route add default via 172.17.0.1")
    print((time.perf_counter() - begin) * 1000, agent.pid, flush=True)
    sys.stdin.readline()
    net.stop()
"""
"""For each line of input it builds a lab, and prints the duration and the agent's pid; the next line ends the lab."""


def interpreter() -> str | None:
    """Return a Python on this machine that has mininet; None when there is no such Python."""
    for name in ("/usr/bin/python3", shutil.which("python3")):
        if name is not None and os.path.exists(name):
            probe = subprocess.run([name, "-I", "-c", "import mininet.net"], capture_output=True, check=False)
            if probe.returncode == 0:
                return name
    return None


def milliseconds(python: str, rounds: int) -> list[float]:
    """Build the lab several times; the start of Python and mininet's import are not counted.

    Raises:
        BenchFailed: with the last line of mininet's output.
    """
    place = Namespace.create("by-mininet", lambda: syscalls.mount("tmpfs", "/run", "tmpfs", options="mode=755"))
    argv = [python, "-I", "-c", _SCRIPT.replace("PROBE_TARGET", PROBE_TARGET)]
    try:
        with place.call(
            lambda: subprocess.Popen(
                argv, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        ) as process:
            try:
                return [_once(process) for _ in range(rounds)]
            except BaseException:
                process.kill()
                raise
    finally:
        place.close()


def _once(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write("build\n")
    process.stdin.flush()
    answer = process.stdout.readline().split()
    if len(answer) != 2:
        process.kill()
        lines = process.stderr.read().strip().splitlines() or ["ended without a message"]
        raise BenchFailed(f"mininet: {lines[-1]}")
    duration, pid = answer
    agent = Namespace.from_path(f"/proc/{pid}/ns/net")
    try:
        first_ping(agent, "mininet")
    finally:
        agent.close()
    process.stdin.write("end\n")
    process.stdin.flush()
    return float(duration)
