"""Scapy as its manual shows it, for comparison: sniff on interfaces, and keep the packets that a function accepts.

It is a program of its own inside the watched namespace, so that scapy's look-ups by name are right and it has an
interpreter lock of its own. A line of standard input begins a period; the next line ends it and is answered.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence

from viacheck.bench.figures import BenchFailed
from viacheck.host.namespace import Namespace
from viacheck.packets.probe_request import DEFAULT_PORT
from viacheck.packets.scapy_import import ICMP, IP, TCP, UDP, Packet

TARGET_ARGUMENT, INTERFACES = 1, 2
_SOL_PACKET, _PACKET_STATISTICS = 263, 6


class ScapySniffer:
    """The program, as the benchmark controls it."""

    def __init__(self, namespace: Namespace, target: str, interfaces: Sequence[str]) -> None:
        """Start the program inside a namespace; ``target`` is the destination of the probes."""
        argv = [sys.executable, "-I", "-m", __name__, target, *interfaces]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}
        self._process = namespace.call(
            lambda: subprocess.Popen(
                argv, text=True, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
        self._answer()

    def begin(self) -> None:
        """Begin to sniff, and return once the sockets are open."""
        self._write("begin")
        self._answer()

    def end(self) -> dict[str, int]:
        """Stop; return how many probes left by each interface, and as ``lost`` how many packets the kernel dropped."""
        self._write("end")
        counts: dict[str, int] = json.loads(self._answer())
        return counts

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            lines = self._process.stderr.read().strip().splitlines() or ["ended without a message"]
            raise BenchFailed(f"scapy: {lines[-1]}")
        return line

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.communicate()


def main(target: str, interfaces: Sequence[str]) -> None:
    """Sniff for a period at each two lines of standard input."""
    from scapy.config import conf
    from scapy.sendrecv import AsyncSniffer

    def wanted(packet: Packet) -> bool:
        if IP not in packet or packet[IP].dst != target:
            return False
        if UDP in packet:
            return bool(packet[UDP].dport == DEFAULT_PORT)
        return TCP in packet or ICMP in packet

    _answer("ready")
    for _ in sys.stdin:
        seen: dict[str, set[bytes]] = {name: set() for name in interfaces}
        sockets = {conf.L2listen(iface=name, promisc=False): name for name in interfaces}
        sniffing = threading.Event()
        sniffer = AsyncSniffer(
            opened_socket=sockets, lfilter=wanted, store=False, started_callback=sniffing.set,
            prn=lambda packet, seen=seen: seen[packet.sniffed_on].add(bytes(packet[IP].payload)) or None,
        )  # fmt: skip
        sniffer.start()
        sniffing.wait()
        _answer("sniffing")
        sys.stdin.readline()
        sniffer.stop()
        lost = sum(_lost(listener.ins) for listener in sockets)
        for listener in sockets:
            listener.close()
        _answer(json.dumps({name: len(probes) for name, probes in seen.items()} | {"lost": lost}))


def _lost(packet_socket: object) -> int:
    statistics: bytes = packet_socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)  # type: ignore[attr-defined]
    return int(struct.unpack("@II", statistics)[1])


def _answer(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[TARGET_ARGUMENT], sys.argv[INTERFACES:])
