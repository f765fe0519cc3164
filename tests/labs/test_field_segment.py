"""Two interfaces of one host on one LAN: requests leave by one of them, and the answers come back by the other.

The gateway's neighbour table is what a person would set, or what two answers to one ARP request leave there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from reports.egress_summary import egress_summary
from reports.topology import topology
from tests.helpers.front_door import Finished
from tests.helpers.hand_made import SITE, HandMadeHost, hand_made_host, write_site
from tests.helpers.judgements import PASS, assert_bundle_and_replica_agree, judgements
from viacheck.model.verdict import Verdict

ONE_LAN_SITE = SITE.replace("10.10.50.1", "10.10.40.1")
GATEWAYS_BRIDGE = (
    "-n gw0 link add lan type bridge",
    "-n gw0 address del 10.10.40.1/24 dev lan0",
    "-n gw0 link set lan0 master lan",
    "-n gw0 link set lan up",
    "-n gw0 address add 10.10.40.1/24 dev lan",
)


def interface_on_the_lan(host: HandMadeHost, name: str, number: int) -> None:
    """Cable one more interface to the gateway's bridge, with the address of this number."""
    host.ip(f"link add {name} type veth peer name lan{number} netns gw0")
    host.ip(f"-n gw0 link set lan{number} up master lan")
    host.ip(f"link set {name} up")
    host.ip(f"address add 10.10.40.{number}/24 dev {name}")


def answers_for(host: HandMadeHost, number: int, interface: str) -> None:
    """Let the gateway send what is for an address of the host to the MAC address of another interface."""
    mac = host.run("cat", f"/sys/class/net/{interface}/address").strip()
    host.ip(f"-n gw0 neigh replace 10.10.40.{number} lladdr {{}} dev lan nud permanent", mac)


@contextlib.contextmanager
def two_on_one_lan() -> Iterator[HandMadeHost]:
    """The guide's host with both uplinks on one LAN; its gateway sends what is for wlan0's address to eth0."""
    with hand_made_host({"eth0": "10.10.40"}) as host:
        for words in GATEWAYS_BRIDGE:
            host.ip(words)
        interface_on_the_lan(host, "wlan0", 10)
        answers_for(host, 10, "eth0")
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


def test_the_drawing_shows_the_ways_that_were_seen(tmp_path: Path) -> None:
    """The packets are meant for wlan0, leave by eth0, and their answers come in by eth1."""
    with two_on_one_lan() as host:
        interface_on_the_lan(host, "eth1", 11)
        answers_for(host, 9, "eth1")
        host.ip("rule del from 172.17.0.0/16 lookup wlan0rt")
        text = ONE_LAN_SITE.replace("[egress]", '[uplinks.eth1]\ngateway = "10.10.40.1"\n[egress]')
        site = write_site(tmp_path, text)
        done = host.viacheck("-q", "-k", "EGRESS-01 or EGRESS-03", site=site, report_dir=tmp_path / "report")
    assert judgements(done) == {
        "EGRESS-01": (Verdict.FAIL, "RULE_MISSING"), "EGRESS-03": (Verdict.ADVISORY, OTHER),
    }, done.said  # fmt: skip
    causes = [result.diagnosis.cause for result in done.outcome.results if result.diagnosis]
    assert any("probes leave by eth0, and their answers come in by eth1" in cause for cause in causes), causes
    (target,) = done.outcome.targets
    drawn = topology(target, egress_summary(target, done.outcome.results), done.outcome.results)
    assert drawn is not None
    lines = {node.name: node.lines for node in drawn.nodes}
    assert (lines["eth0"][1], lines["wlan0"][1], lines["eth1"][2]) == (
        "leak: 9 of 9", "no probe seen", "9 answers came in",
    )  # fmt: skip
    drawn_as = {
        kind: {(drawn.nodes[start].name, drawn.nodes[end].name) for start, end, of in drawn.edges if of == kind}
        for kind in drawn.kinds
    }
    assert {("docker0", "eth0"), ("eth0", "10.10.40.1"), ("10.10.40.1", "198.51.100.1")} <= drawn_as["leak"]
    assert {("10.10.40.1", "eth1"), ("eth1", "docker0"), ("docker0", "/run/netns/agent")} <= drawn_as["answer"]
    assert ("docker0", "wlan0") in drawn_as["missed"]
    page = (done.report_dir / "report.html").read_text()
    assert "Answers came back: 9 by eth1; 9 reached the agent." in page


def test_another_holder_of_the_agents_address_is_in_the_bundle(tmp_path: Path) -> None:
    """A replica has no such machine, and names it from what the run's ARP requests showed."""
    site = ONE_LAN_SITE.replace(
        'mode = "nat"\nbridge = "docker0"',
        'mode = "pipework-static"\nparent = "eth0"\naddress = "10.10.40.200/24"\ngateway = "10.10.40.1"',
    )
    site = site.replace('[uplinks.wlan0]\ngateway = "10.10.40.1"\n', "")
    site = site.replace('uplink = "wlan0"\ntable = 200\ntable_name = "wlan0rt"', 'uplink = "eth0"')
    with hand_made_host({"eth0": "10.10.40"}) as host:
        for words in (
            "link del docker0", "-n agent link del eth0", "link add link eth0 name mv type macvlan mode bridge",
            "link set mv netns agent name eth1", "-n agent link set eth1 up",
            "-n agent address add 10.10.40.200/24 dev eth1", "-n gw0 address add 10.10.40.200/24 dev lan0",
        ):  # fmt: skip
            host.ip(words)
        other = host.ip("netns exec gw0 cat /sys/class/net/lan0/address").strip()
        done = host.viacheck("-q", "-k", "MACVLAN-05", site=write_site(tmp_path, site), report_dir=tmp_path / "report")
    assert judgements(done) == {"MACVLAN-05": (Verdict.FAIL, "ADDRESS_CONFLICT")}, done.said
    snapshot = done.outcome.targets[0].snapshot
    assert snapshot is not None
    assert snapshot["address_claimed_by"] == [other]
