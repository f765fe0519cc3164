"""EGRESS-05 asks every resolver of the agent's resolv.conf, and says of each where the queries left."""

from __future__ import annotations

from pathlib import Path

from netns_lab.plan import PROBE_TARGET6, RESOLVER
from tests.helpers.front_door import by_check, viacheck
from viacheck.model.check_evidence import PacketsEvidence
from viacheck.model.verdict import Verdict


def test_every_resolver_is_judged_with_its_own_egress(tmp_path: Path) -> None:
    labs = ["policy-routing+dns-second-resolver", "policy-routing-hardened+dns-ipv6-escapes"]
    outcome = viacheck("--lab", ",".join(labs), "-k", "EGRESS-05", "-q", report_dir=tmp_path).outcome
    second, ipv6 = (by_check(outcome, f"lab:{lab}")["EGRESS-05"][0] for lab in labs)
    assert second.verdict is ipv6.verdict is Verdict.FAIL
    assert f"{RESOLVER}: 3 of 3 left by wlan0; 172.17.0.1: 3 of 3 left by eth0" in second.observed
    assert f"{RESOLVER}: 3 of 3 left by wlan0; {PROBE_TARGET6}: 3 of 3 left by eth0" in ipv6.observed
    assert [evidence.title for evidence in ipv6.evidence if isinstance(evidence, PacketsEvidence)] == [
        f"dns to {RESOLVER}", f"dns to {PROBE_TARGET6}",
    ]  # fmt: skip


def test_an_ipv6_resolver_by_the_intended_uplink_passes(tmp_path: Path) -> None:
    change = tmp_path / "resolvers.sh"
    change.write_text(f"printf 'nameserver {RESOLVER}\\nnameserver {PROBE_TARGET6}\\n' >/etc/resolv.conf\n")
    finished = viacheck(
        "--lab", "policy-routing-hardened", "--apply", str(change), "-k", "EGRESS-05", "-q", report_dir=tmp_path / "out"
    )
    (result,) = by_check(finished.outcome, "lab:policy-routing-hardened")["EGRESS-05"]
    assert result.verdict is Verdict.PASS, result.observed
    assert f"{PROBE_TARGET6}: 3 of 3 left by wlan0" in result.observed
