"""Two interfaces of one host on one LAN: requests leave by one of them, and the answers come back by the other.

The gateway's neighbour table is what a person would set, or what two answers to one ARP request leave there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.front_door import Finished
from tests.helpers.hand_made import SITE, HandMadeHost, hand_made_host, write_site
from tests.helpers.judgements import PASS, assert_bundle_and_replica_agree, judgements
from viacheck.model.result import Verdict

ONE_LAN_SITE = SITE.replace("10.10.50.1", "10.10.40.1")
SECOND_INTERFACE = (
    "-n gw0 link add lan type bridge",
    "-n gw0 address del 10.10.40.1/24 dev lan0",
    "-n gw0 link set lan0 master lan",
    "-n gw0 link set lan up",
    "-n gw0 address add 10.10.40.1/24 dev lan",
    "link add wlan0 type veth peer name lan1 netns gw0",
    "-n gw0 link set lan1 up master lan",
    "link set wlan0 up",
    "address add 10.10.40.10/24 dev wlan0",
)


@contextlib.contextmanager
def two_on_one_lan() -> Iterator[HandMadeHost]:
    """The guide's host with both uplinks on one LAN; its gateway sends what is for wlan0's address to eth0."""
    with hand_made_host({"eth0": "10.10.40"}) as host:
        for words in SECOND_INTERFACE:
            host.ip(words)
        mac = host.run("cat", "/sys/class/net/eth0/address").strip()
        host.ip("-n gw0 neigh replace 10.10.40.10 lladdr {} dev lan nud permanent", mac)
        host.run("sh", "-c", "echo 200 wlan0rt >> /etc/iproute2/rt_tables")
        host.ip("rule add from 172.17.0.0/16 lookup wlan0rt")
        host.ip("route add default via 10.10.40.1 dev wlan0 table wlan0rt")
        yield host


OTHER = "ANSWERS_BY_OTHER_UPLINK"
NOT_COPIED = "answers came in by eth0, and not by wlan0: what the gateway holds for its address is not on the host"
CHECKS = ("EGRESS-01", "EGRESS-03", "EGRESS-09", "HOST-03")


def judged(host: HandMadeHost, folder: Path, default_exit: str = "eth0") -> Finished:
    text = ONE_LAN_SITE.replace('default_exit = "eth0"', f'default_exit = "{default_exit}"')
    folder.mkdir(exist_ok=True)
    chosen = ("-q", "-k", " or ".join(CHECKS))
    return host.viacheck(*chosen, site=write_site(folder, text), report_dir=folder / "report")


def test_answers_by_the_other_interface_are_named(tmp_path: Path) -> None:
    with two_on_one_lan() as host:
        loose = judged(host, tmp_path / "loose")
        host.run("sysctl", "-q", "-w", "net.ipv4.conf.eth0.rp_filter=1")
        host.ip("route replace default via 10.10.40.1 dev wlan0")
        strict = judged(host, tmp_path / "strict", default_exit="wlan0")
        # The remedy is the gateway's: its neighbour table holds the right address again.
        host.ip("-n gw0 neigh del 10.10.40.10 dev lan")
        host.run("sysctl", "-q", "-w", "net.ipv4.conf.all.arp_ignore=1")
        corrected = judged(host, tmp_path / "corrected", default_exit="wlan0")
    assert judgements(corrected) == dict.fromkeys(CHECKS, PASS), corrected.said
    for done, verdict in ((loose, Verdict.ADVISORY), (strict, Verdict.FAIL)):
        expected = {**dict.fromkeys(CHECKS, PASS), "EGRESS-03": (verdict, OTHER)}
        assert judgements(done) == expected, done.said
        (cause, *_) = (result.diagnosis for result in done.outcome.results if result.diagnosis)
        assert cause is not None
        assert "leave by wlan0, and their answers come in by eth0" in cause.cause
        assert ("the strict reverse-path check of eth0 drops them" in cause.cause) == (verdict is Verdict.FAIL)
        assert_bundle_and_replica_agree(
            done, expected, done.report_dir.parent, in_bundle={"EGRESS-03": (verdict, OTHER)},
            in_replica={"EGRESS-03": PASS}, replica_notes=(NOT_COPIED,),
        )  # fmt: skip
