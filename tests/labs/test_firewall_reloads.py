"""The programs of packet filters on whole hosts: their reloads are made for real, and so is what they break.

Run with ``--releases`` only: the base roots of forky and trixie alone have these programs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from netns_lab.whole_host.base_root import BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from tests.helpers.front_door import viacheck
from tests.helpers.side_event import assert_named_and_mended, judged
from viacheck.model.verdict import Verdict

LAB = "host:policy-routing-networkd@forky"
ACTIVE = {
    # An engine makes its zone only if firewalld answers when it starts; systemctl does not wait for the answer.
    "firewalld-reload": (
        "systemctl enable --now firewalld.service\nfirewall-cmd --state\nsystemctl restart docker.service\n"
    ),
    # Saved while the engine runs, as the package does it when a person says yes.
    "netfilter-persistent-restart": (
        "systemctl enable --now netfilter-persistent.service\nnetfilter-persistent save\n"
    ),
}
"""By event, how its program comes to run on a healthy host."""
BROKEN = {"saved-rules-without-nat": "netfilter-persistent-restart", "zone-not-permanent": "firewalld-reload"}
"""By fault, the event that shows it."""
UFW, UFW_RELOAD = "host:policy-routing-networkd@trixie", "ufw-reload"
"""ufw cannot be installed beside netfilter-persistent."""
_MISSING = missing_for(BaseRoot("forky"))
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


@pytest.mark.parametrize("event", ACTIVE)
def test_a_healthy_host_survives_the_reload(event: str, tmp_path: Path) -> None:
    result = judged(tmp_path / "healthy", LAB, event, ACTIVE[event])
    assert result.verdict is Verdict.PASS, result


def test_a_healthy_host_survives_the_reload_of_ufw(tmp_path: Path) -> None:
    result = judged(tmp_path / "healthy", UFW, UFW_RELOAD, "ufw --force enable\n")
    assert result.verdict is Verdict.PASS, result


def test_a_reload_of_ufw_that_flushes_nat_is_named_and_passes_without_the_line(tmp_path: Path) -> None:
    typed = "sed -i '/^-F POSTROUTING$/d' /etc/ufw/before.rules\n"
    assert_named_and_mended(tmp_path, f"{UFW}+ufw-flushes-nat", UFW_RELOAD, typed)


@pytest.mark.parametrize(("fault", "event"), BROKEN.items())
def test_a_reload_that_removes_what_the_agent_needs_is_named_and_its_remedy_mends(
    fault: str, event: str, tmp_path: Path
) -> None:
    assert_named_and_mended(tmp_path, f"{LAB}+{fault}", event)


def test_an_engine_that_started_before_firewalld_is_named_and_its_remedy_mends(tmp_path: Path) -> None:
    lab = f"{LAB}+engine-before-firewalld"
    broken = viacheck("--lab", lab, "-k", "not FLAP", report_dir=tmp_path / "broken")
    (cause,) = (r.diagnosis for r in broken.outcome.results if r.diagnosis and r.diagnosis.reported_by is None)
    assert cause.code == "FORWARD_DROPPED"
    assert "the engine started before firewalld answered" in cause.cause
    (tmp_path / "typed.sh").write_text("".join(f"{line}\n" for line in (*cause.remedy, *cause.remedy)))
    options = ("--apply", str(tmp_path / "typed.sh"), "-k", "not FLAP or FLAP-08")
    mended = viacheck("--lab", lab, *options, report_dir=tmp_path / "mended")
    assert mended.exit_code == 0, mended.said
