"""Hosts built by hand whose routes are unusual and right, or wrong in a way of their own, judged with ``--local``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.front_door import Finished
from tests.helpers.hand_made import SITE, HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.judgements import PASS, assert_bundle_and_replica_agree, judgements
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

OWN_DEFAULT_SITE = SITE.replace('[host]\ndefault_exit = "eth0"\n', "")
"""The main table decides for the host's own packets."""
ON_LINK_SITE = SITE.replace("10.10.50.1", "172.31.1.1")


@pytest.fixture
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as made:
        apply_the_guides_recipe(made)
        yield made


def judge(host: HandMadeHost, folder: Path, text: str = SITE, name: str = "report") -> Finished:
    """Judge the host by a site file of this text."""
    return host.viacheck(site=write_site(folder, text), report_dir=folder / name)


def result_of(done: Finished, check: str) -> CheckResult:
    """Return the first result of a check."""
    return next(result for result in done.outcome.results if result.check == check)


def code_of(done: Finished, check: str) -> tuple[Verdict, str | None]:
    """Return verdict and diagnosis code of a check."""
    result = result_of(done, check)
    return result.verdict, result.diagnosis.code if result.diagnosis else None


def half_defaults(host: HandMadeHost) -> None:
    """Add the routes that OpenVPN adds for ``redirect-gateway def1``."""
    host.uplink("tun0", "10.8.0")
    for half in ("0.0.0.0/1", "128.0.0.0/1"):
        host.ip(f"route add {half} via 10.8.0.1 dev tun0")


def test_a_default_in_two_halves_overlaps_no_subnet(host: HandMadeHost, tmp_path: Path) -> None:
    half_defaults(host)
    done = judge(host, tmp_path, OWN_DEFAULT_SITE)
    assert done.exit_code == 0, done.said
    assert "SUBNET_OVERLAP" not in done.said
    assert "suppress_prefixlength 0" not in done.said
    assert_bundle_and_replica_agree(done, dict.fromkeys(("HOST-05", "ROUTE-03", "EGRESS-01"), PASS), tmp_path / "saved")


def test_a_rule_that_lets_half_defaults_through_is_the_cause(host: HandMadeHost, tmp_path: Path) -> None:
    host.ip("rule del from 172.17.0.0/16 lookup 200")
    host.ip("rule add pref 990 from 172.17.0.0/16 lookup main suppress_prefixlength 0")
    host.ip("rule add pref 1000 from 172.17.0.0/16 lookup 200")
    host.ip("route add unreachable default metric 4278198272 table 200")
    half_defaults(host)
    broken = judge(host, tmp_path, OWN_DEFAULT_SITE, "broken")
    assert code_of(broken, "EGRESS-01") == (Verdict.FAIL, "RULE_SHADOWED"), broken.said
    shadowed = dict.fromkeys(("ROUTE-03", "EGRESS-01", "EGRESS-08"), (Verdict.FAIL, "RULE_SHADOWED"))
    assert_bundle_and_replica_agree(broken, shadowed, tmp_path / "saved")
    diagnosis = result_of(broken, "ROUTE-03").diagnosis
    assert diagnosis is not None
    assert "990" in diagnosis.cause
    assert "suppress_prefixlength 1" in " ".join(diagnosis.remedy)
    assert "suppress_prefixlength 0" in " ".join(diagnosis.undo)
    host.run("sh", "-ec", "\n".join(diagnosis.remedy))
    mended = judge(host, tmp_path, OWN_DEFAULT_SITE, "mended")
    assert mended.exit_code == 0, mended.said


def test_a_gateway_outside_the_subnet_is_a_gateway(host: HandMadeHost, tmp_path: Path) -> None:
    host.ip("address del 10.10.50.9/24 dev wlan0")
    host.ip("address add 203.0.113.9/32 dev wlan0")
    host.ip("-n gw1 address add 172.31.1.1/32 dev lan0")
    host.ip("-n gw1 route add 203.0.113.9/32 dev lan0")
    host.ip("route add default via 172.31.1.1 dev wlan0 onlink table 200")
    done = judge(host, tmp_path, ON_LINK_SITE)
    assert done.exit_code == 0, done.said
    expected = dict.fromkeys(("ROUTE-04", "HOST-03", "EGRESS-01", "EGRESS-09"), PASS)
    assert judgements(done).items() >= expected.items(), done.said
    assert_bundle_and_replica_agree(done, expected, tmp_path / "saved")


def test_a_default_route_without_its_gateway_is_named(host: HandMadeHost, tmp_path: Path) -> None:
    host.ip("route replace default dev wlan0 table 200")
    done = judge(host, tmp_path)
    assert code_of(done, "ROUTE-04") == (Verdict.FAIL, "TABLE_WRONG_GATEWAY"), done.said
    assert "Error" not in done.said
    diagnosis = result_of(done, "ROUTE-04").diagnosis
    assert diagnosis is not None
    assert "has no gateway" in diagnosis.cause
    expected = {"ROUTE-04": (Verdict.FAIL, "TABLE_WRONG_GATEWAY")}
    assert_bundle_and_replica_agree(done, expected, tmp_path / "saved")


def test_two_gateways_on_one_uplink_are_one_uplink(host: HandMadeHost, tmp_path: Path) -> None:
    host.ip("-n gw1 address add 10.10.50.2/24 dev lan0")
    host.ip("route replace default table 200 nexthop via 10.10.50.1 dev wlan0 nexthop via 10.10.50.2 dev wlan0")
    done = judge(host, tmp_path)
    expected = {"ROUTE-04": (Verdict.FAIL, "TABLE_WRONG_GATEWAY"), "EGRESS-01": PASS, "EGRESS-08": PASS}
    assert judgements(done).items() >= expected.items(), done.said
    assert "Error" not in done.said
    # EGRESS-09 is not compared: which of the two a probe takes depends on a hash, and the replica says so.
    by_hash = ("has several next hops: the kernel chooses one by a hash of the packet",)
    assert_bundle_and_replica_agree(done, expected, tmp_path / "saved", replica_notes=by_hash)


def test_a_rule_for_the_agents_one_address_holds_until_it_changes(host: HandMadeHost, tmp_path: Path) -> None:
    host.ip("rule del from 172.17.0.0/16 lookup 200")
    host.ip("rule add from 172.17.0.2/32 lookup 200")
    done = judge(host, tmp_path)
    assert done.exit_code == 0, done.said
    expected = {"ROUTE-02": (Verdict.ADVISORY, "RULE_FOR_ONE_ADDRESS"), "EGRESS-01": PASS}
    assert judgements(done).items() >= expected.items(), done.said
    assert_bundle_and_replica_agree(done, expected, tmp_path / "saved")


def test_a_tunnel_in_the_agent_is_the_cause_and_no_masquerade_is_missed(host: HandMadeHost, tmp_path: Path) -> None:
    host.ip("netns exec agent ip tuntap add tun0 mode tun")
    host.ip("-n agent address add 10.99.0.2/24 dev tun0")
    host.ip("-n agent link set tun0 up")
    host.ip("-n agent route replace default dev tun0")
    done = judge(host, tmp_path)
    assert code_of(done, "EGRESS-01") == (Verdict.FAIL, "AGENT_USES_TUNNEL"), done.said
    assert code_of(done, "NAT-02") == (Verdict.NOT_APPLICABLE, None)
    assert "leads into tun0" in " ".join(done.said.split())
    assert "MASQUERADE" not in done.said
    expected = {"EGRESS-01": (Verdict.FAIL, "AGENT_USES_TUNNEL")}
    assert_bundle_and_replica_agree(done, expected, tmp_path / "saved")


def test_an_agent_on_the_hosts_network_is_named(host: HandMadeHost, tmp_path: Path) -> None:
    host.run("touch", "/run/netns/same")
    host.run("mount", "--bind", "/proc/self/ns/net", "/run/netns/same")
    done = judge(host, tmp_path, SITE.replace("/run/netns/agent", "/run/netns/same"))
    assert code_of(done, "EGRESS-01") == (Verdict.FAIL, "AGENT_ON_HOST_NETWORK"), done.said
    assert "shares the host's network" in " ".join(done.said.split())
    assert "MASQUERADE" not in done.said
    assert {result.diagnosis.code for result in done.outcome.results if result.diagnosis} == {"AGENT_ON_HOST_NETWORK"}
    expected = {"EGRESS-01": (Verdict.FAIL, "AGENT_ON_HOST_NETWORK"), "HOST-03": PASS}
    assert_bundle_and_replica_agree(done, expected, tmp_path / "saved")
