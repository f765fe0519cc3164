"""A person's commands are tried on the host of their own site file: other names, other addresses, another table."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.front_door import by_check, sub_command, viacheck
from tests.unit.test_site_lab import BRIDGED, SITE
from viacheck.model.verdict import Verdict

RECIPE = """\
ip rule add from 172.30.8.0/22 lookup 77
ip route add default via 10.20.0.1 dev lte0.7 table 77
"""
BY_HAND = '[egress]\npersist = "none"\nsurvives = []\n'
BESIDE = """\
[agents.two]
container = "probe-2"
attach = { mode = "nat", network = "others", subnet = "172.31.0.0/24" }
egress = { uplink = "ens3" }
"""


def test_a_recipe_is_tried_with_the_sites_own_names(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SITE.replace("[egress]\n", BY_HAND))
    (tmp_path / "change.sh").write_text(RECIPE)
    words = ("--lab", "blank", "--site", "site.toml", "-k", "HOST or ROUTE or EGRESS", "-q")
    before = viacheck(*words, report_dir=tmp_path / "before", cwd=tmp_path)
    assert before.exit_code == 1, before.said
    assert "ip rule add priority 1000 from 172.30.8.0/22 lookup 77" in before.stdout
    after = viacheck(*words, "--apply", "change.sh", report_dir=tmp_path / "after", cwd=tmp_path)
    assert after.exit_code == 0, after.said
    assert "The agent's packets leave by lte0.7" in after.stdout


def test_pipework_is_tried_on_the_parent_of_the_site(tmp_path: Path) -> None:
    attach = 'address = "192.168.7.50/26"\ngateway = "192.168.7.30"'
    (tmp_path / "site.toml").write_text(BRIDGED.format(mode="pipework-static", attach=attach))
    (tmp_path / "change.sh").write_text("pipework ens3 probe-1 192.168.7.50/26@192.168.7.30\n")
    words = ("--lab", "blank", "--site", "site.toml", "-k", "PIPEWORK-03 or PIPEWORK-04 or EGRESS-01", "-q")
    done = viacheck(*words, "--apply", "change.sh", report_dir=tmp_path / "report", cwd=tmp_path)
    assert done.exit_code == 0, done.said
    results = by_check(done.outcome, "lab:blank")
    assert all(result.verdict is Verdict.PASS for check in results.values() for result in check)


def test_a_shell_and_an_explanation_have_the_same_host(tmp_path: Path) -> None:
    several = SITE.replace("[agent", "[agents.one").replace("[egress]", "[agents.one.egress]")
    (tmp_path / "site.toml").write_text(several + BESIDE)
    of_one = ("--site", "site.toml", "--agent", "one")
    shell = sub_command("shell", *of_one, "blank", "ip -br address show dev lte0.7", cwd=tmp_path)
    assert "10.20.3.4/16" in shell.stdout, shell.stderr
    told = sub_command("explain", "--lab", "blank", *of_one, "--to", "203.0.113.9", cwd=tmp_path)
    assert "via 192.168.7.254 dev ens3" in told.stdout, told.stderr


def test_each_of_several_agents_has_a_lab(tmp_path: Path) -> None:
    several = SITE.replace("[agent", "[agents.one").replace("[egress]", "[agents.one.egress]")
    (tmp_path / "site.toml").write_text(several + BESIDE)
    (tmp_path / "change.sh").write_text(RECIPE)
    words = ("--lab", "blank", "--site", "site.toml", "--apply", "change.sh", "-k", "EGRESS-01 or ROUTE-02", "-q")
    done = viacheck(*words, report_dir=tmp_path / "report", cwd=tmp_path)
    assert done.exit_code == 0, done.said
    assert [(target.id, target.agent, target.verdict) for target in done.outcome.targets] == [
        ("lab:blank:one", "one", "pass"), ("lab:blank:two", "two", "pass"),
    ]  # fmt: skip
    shell = sub_command("shell", "--site", "site.toml", "blank", "true", cwd=tmp_path)
    assert shell.returncode == 4
    assert "site.toml has several agents: choose one by --agent: one, two" in shell.stderr
    (tmp_path / "site.toml").write_text(several + BESIDE.replace(', subnet = "172.31.0.0/24"', ""))
    refused = viacheck(*words, report_dir=tmp_path / "refused", cwd=tmp_path)
    assert refused.exit_code == 4, refused.said
    assert "site.toml: agents.two.attach.subnet: --lab blank: missing" in refused.stderr
