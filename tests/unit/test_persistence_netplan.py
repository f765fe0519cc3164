"""netplan's YAML is read by its nodes: every finding has its line, hostile YAML is a problem and no traceback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.helpers.persistence_hosts import recorded, resolved
from viacheck.diagnosis.persistence import cannot_run_twice, not_written_down
from viacheck.model.measurements import Measurements
from viacheck.model.snapshot import HostFile
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.file_edit import WriteFile
from viacheck.persistence.lint import findings_of
from viacheck.persistence.netplan import YAMLProblem, compose

YAML = "/etc/netplan/01-netcfg.yaml"
HEALTHY = recorded("netplan-healthy")


def changed(old: str, new: str) -> dict[str, str]:
    assert old in HEALTHY[YAML]
    return HEALTHY | {YAML: HEALTHY[YAML].replace(old, new)}


def test_a_healthy_host_is_netplans_whatever_works_below_it() -> None:
    case = resolved(HEALTHY)
    persistence = assess_persistence(case)
    assert persistence.manager == "netplan"
    assert [str(place) for place in persistence.places] == [f"{YAML}:9", f"{YAML}:24"]
    assert (persistence.missing, persistence.problems, findings_of(case, persistence)) == ((), (), [])


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ("from: 172.17.0.0/16", "from: 172.18.0.0/16", "a rule from"),
        ("routing-policy:", "routing-polici:", "a rule from"),
        ("via: 10.10.50.1", "via: 10.10.50.2", "a route default"),
        ("to: default", "to: 10.0.0.0/8", "a route default"),
    ],
)
def test_what_is_missing_is_named_and_remedied(tmp_path: Path, old: str, new: str, missing: str) -> None:
    files = changed(old, new)
    assert [missing in sentence for sentence in assess_persistence(resolved(files)).missing] == [True]
    (cause,) = not_written_down(resolved(files), Measurements())
    # The files that netplan generated at boot hold both still: nothing is applied.
    assert len(cause.remedy.lines) == len(cause.remedy.rollback_lines) == 1
    never_generated = {path: text for path, text in files.items() if not path.startswith("/run/systemd/network/")}
    (typed,) = not_written_down(resolved(never_generated), Measurements())
    # The host has the rule and not the route: applied without the rule, networkd would remove it.
    read_again = "netplan apply" if "route" in missing else "netplan generate"
    assert (typed.remedy.lines[-1], typed.remedy.rollback_lines[-1]) == ("netplan apply", read_again)
    subprocess.run(["/bin/sh", "-ec", cause.remedy.lines[0].replace("/etc/", f"{tmp_path}/etc/")], check=True)
    (written,) = tmp_path.rglob("*.yaml")
    assert written.stat().st_mode & 0o777 == 0o600
    assert ("wifis:" in written.read_text()) is ("route" in missing)
    assert "    lo:" in written.read_text()
    assert assess_persistence(resolved(files | {f"/etc/netplan/{written.name}": written.read_text()})).holds


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("      routing-policy:\n", "      routing-policy:\n      routing-policy:\n"),
        ("network:\n", "network:\n  renderer: x\n"),
        ("    lo:\n", "    lo:\n    lo:\n"),
        ("          priority: 1000 ", "          metric: 1000 "),
    ],
)
def test_files_that_netplan_refuses_hold_nothing(old: str, new: str) -> None:
    persistence = assess_persistence(resolved(changed(old, new)))
    assert not persistence.holds
    assert any(problem.refused for problem in persistence.problems)


def test_a_device_is_matched_by_its_pattern() -> None:
    assert assess_persistence(resolved(changed("wlan0:\n", "radio:\n      match: {name: 'wl*'}\n"))).holds
    assert (
        assess_persistence(resolved(changed("wlan0:\n", "radio:\n      match: {name: 'en*'}\n"))).manager == "networkd"
    )


@pytest.mark.parametrize(("name", "quoted"), [("radio", "radio"), ("-{", '"-{"')])
def test_the_fix_stands_under_the_name_that_the_files_have(tmp_path: Path, name: str, quoted: str) -> None:
    files = changed("wlan0:\n", f"{quoted}:\n      match: {{name: 'wl*'}}\n") | {"/run/systemd/netif/links/12": ""}
    files[YAML] = files[YAML].replace("via: 10.10.50.1", "via: 10.10.50.2")
    (cause,) = not_written_down(resolved(files), Measurements())
    (path,) = (step.path for step in cause.remedy.steps if isinstance(step, WriteFile))
    subprocess.run(["/bin/sh", "-ec", cause.remedy.lines[0].replace("/etc/", f"{tmp_path}/etc/")], check=True)
    written = (tmp_path / path.removeprefix("/")).read_text()
    assert f"\n  wifis:\n    {quoted}:\n      routes:\n" in written
    assert assess_persistence(resolved(files | {path: written})).holds
    # A second device for the interface configures nothing, or takes its address away.
    assert not assess_persistence(resolved(files | {path: written.replace(quoted, "wlan0")})).holds


def test_of_two_devices_for_an_interface_the_first_name_counts() -> None:
    beside = "{name}:\n      match: {{name: wlan0}}\n      addresses: [10.10.50.9/24]\n    wlan0:\n"
    for name, holds in (("a", False), ("wlan", False), ("wlan00", True), ("z", True)):
        assert assess_persistence(resolved(changed("wlan0:\n", beside.format(name=name)))).holds is holds, name


def test_a_device_that_is_other_interfaces_too_is_left_to_a_person() -> None:
    files = changed("wlan0:\n", "all:\n      match: {name: '*0'}\n")
    files[YAML] = files[YAML].replace("via: 10.10.50.1", "via: 10.10.50.2")
    (cause,) = not_written_down(resolved(files), Measurements())
    assert not cause.remedy
    assert cause.decision is not None
    assert cause.decision.startswith("netplan's 'all' configures eth0, docker0 as well")


def test_a_rule_without_priority_is_advice() -> None:
    case = resolved(changed("          priority: 1000   # CANARY-comment\n", ""))
    assert [(f.code, f.breaks) for f in findings_of(case, assess_persistence(case))] == [("NOT_IDEMPOTENT", False)]


def test_what_stands_under_the_uplink_goes_with_it() -> None:
    policy = HEALTHY[YAML].partition("    lo:\n")[2].partition("      routes:\n")[0]
    under = HEALTHY[YAML].replace(policy, "").replace("    wlan0:\n", f"    wlan0:\n{policy}")
    case = resolved(HEALTHY | {YAML: under})
    (cause,) = cannot_run_twice(case, Measurements())
    assert cause.code == "LEAK_WHILE_DOWN"
    assert "/etc/netplan/90-viacheck-200-172.17.0.0-16-lo.yaml" in cause.remedy.lines[0]
    assert cause.remedy.lines[-1] == cause.remedy.rollback_lines[-1] == "netplan apply"


def test_a_metric_that_netplan_cannot_write_is_no_backstop() -> None:
    case = resolved(changed("metric: 2147483647", "metric: 4278198272"))
    (finding,) = findings_of(case, assess_persistence(case))
    assert (finding.code, finding.breaks, finding.replacement) == ("FAIL_OPEN", False, "metric: 2147483647")


@pytest.mark.parametrize(
    ("text", "line"),
    [("network: [\n", 2), ("network:\n\tversion: 2\n", 2), ("a: 1\n", 0), ("network:\n  x: *password\n", 2),
     ("[" * 3000, 0), ("network: {ethernets: {wlan0: {routes: [{to: nonsense}]}}}\n", 1),
     ("network: !!python/object/apply:os.system ['false']\n", 1), ("- 1\n- 2\n", 0), ("\0", 0)],
)  # fmt: skip
def test_garbage_is_a_problem_with_its_line(text: str, line: int) -> None:
    file = HostFile(path=YAML, exists=True, text=text)
    problems = assess_persistence(resolved((file,), persist="netplan")).problems
    assert [problem.path for problem in problems] in ([YAML], []), problems
    assert all(problem.line == line for problem in problems), problems
    assert not any("password" in str(problem) for problem in problems)


def test_a_short_text_makes_no_large_tree() -> None:
    with pytest.raises(YAMLProblem, match="an alias"):
        compose("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n")


NM_YAML = """\
network:
  version: 2
  renderer: NetworkManager
  ethernets:
    wlan0:
      addresses: [10.10.50.9/24]
      routing-policy:
        - {from: 172.17.0.0/16, table: 200, priority: 1000}
      routes:
        - {to: 0.0.0.0/0, via: 10.10.50.1, table: 200}
"""
PASSED_ON = """\
      networkmanager:
        name: CANARY-name
        passthrough:
          ipv4.routing-rule1: "priority 1000 from 172.17.0.0/16 table 200"
          wifi-security.psk: CANARY-psk
"""


def test_networkmanager_gets_no_routing_policy_from_netplan() -> None:
    case = resolved({YAML: NM_YAML}, wireless=False)
    persistence = assess_persistence(case)
    assert persistence.missing == ("a rule from 172.17.0.0/16 to table 200 (wlan0rt) is not in the files of netplan",)
    assert [problem.line for problem in persistence.problems] == [8]
    assert "networkmanager.passthrough" in str(persistence.problems[0])
    (cause,) = not_written_down(case, Measurements())
    text = cause.remedy.lines[0]
    assert 'ipv4.routing-rule91: "priority 1000 from 172.17.0.0/16 table 200"' in text
    assert "routing-policy" not in text
    assert "type: unreachable" not in text, "netplan refuses all its files then"


def test_networkmanager_gets_what_netplan_passes_on() -> None:
    case = resolved({YAML: NM_YAML + PASSED_ON}, wireless=False)
    assert assess_persistence(case).holds
    assert "CANARY" not in case.snapshot.files[1].text


def test_networkmanager_gets_unicast_routes_only() -> None:
    refused = NM_YAML.replace("via: 10.10.50.1", "type: unreachable")
    persistence = assess_persistence(resolved({YAML: refused + PASSED_ON}, wireless=False))
    assert not persistence.holds
    assert any(problem.refused for problem in persistence.problems)
