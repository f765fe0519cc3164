"""A person's own commands are tried on a lab's host before the checks; the first that fails stops it, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.front_door import viacheck
from viacheck.model.check_evidence import CommandEvidence
from viacheck.model.verdict import Verdict

RECIPE = """\
# the guide's steps 1 to 5
echo 200 wlan0rt >> /etc/iproute2/rt_tables
ip rule add from 172.17.0.0/16 lookup wlan0rt
ip route add default via 10.10.50.1 dev wlan0 table wlan0rt
"""


def test_a_blank_host_does_not_do_what_is_meant(tmp_path: Path) -> None:
    done = viacheck("--lab", "multihomed-blank", "-q", report_dir=tmp_path / "report")
    assert done.exit_code == 1
    assert "RULE_MISSING" in done.stdout


def test_the_recipe_makes_it_so(tmp_path: Path) -> None:
    change = tmp_path / "change.sh"
    change.write_text(RECIPE)
    done = viacheck(
        "--lab", "multihomed-blank", "--apply", "change.sh", "-q", report_dir=tmp_path / "report", cwd=tmp_path
    )
    assert done.exit_code == 0, done.said
    (target,) = done.outcome.targets
    assert any("change.sh was run before the checks" in note for note in target.notes)
    assert not Path("/etc/iproute2/rt_tables").read_text().count("wlan0rt"), "the machine's own file was changed"


def test_a_line_that_fails_is_named(tmp_path: Path) -> None:
    change = tmp_path / "change.sh"
    change.write_text(
        "ip rule add from 172.17.0.0/16 lookup 200\nip route add default via 10.99.0.1 table 200\n: never\n"
    )
    words = ("--lab", "multihomed-blank", "--apply", "change.sh", "-q")
    done = viacheck(*words, report_dir=tmp_path / "report", cwd=tmp_path)
    assert done.exit_code == 1
    said = " ".join(done.stdout.split())
    assert "change.sh: line 2: ip route add default via 10.99.0.1 table 200: exit 2" in said
    assert "FAILURES" not in done.stdout, "the line that failed says it all"
    (error,) = (result for result in done.outcome.results if result.verdict is Verdict.INCONCLUSIVE)
    (transcript,) = error.evidence
    assert isinstance(transcript, CommandEvidence)
    assert transcript.stdout.splitlines() == [
        "line 1: ip rule add from 172.17.0.0/16 lookup 200",
        "line 2: ip route add default via 10.99.0.1 table 200",
        "Error: Nexthop has invalid gateway.",
    ]
    assert "\n    line 1: ip rule add from 172.17.0.0/16 lookup 200\n    line 2: ip route add" in done.stdout
    assert (done.report_dir / "junit.xml").read_text().count("<error ") == 1


def test_a_script_runs_in_its_own_folder_under_its_own_name(tmp_path: Path) -> None:
    folder = tmp_path / "change"
    folder.mkdir()
    (folder / "part.sh").write_text("echo part of $0\n")
    (folder / "change.sh").write_text(". ./part.sh\npwd\n")
    words = ("--lab", "multihomed-blank", "--apply", "change/change.sh", "-q", "-k", "HOST-02")
    (target,) = viacheck(*words, report_dir=tmp_path / "report", cwd=tmp_path).outcome.targets
    (note,) = (note for note in target.notes if "was run before the checks" in note)
    assert "part of change/change.sh" in note.splitlines()
    assert str(folder) in note.splitlines()


def test_a_fix_is_tried_in_a_lab_that_the_script_has_changed(tmp_path: Path) -> None:
    """The rule leads to another table, at a priority before that of a fix's rule."""
    change = tmp_path / "change.sh"
    change.write_text(
        "ip rule del from 172.17.0.0/16 lookup 200\n"
        "ip rule add priority 500 from 172.17.0.0/16 lookup 201\n"
        "ip route add default via 10.10.40.1 dev eth0 table 201\n"
    )
    words = ("--lab", "policy-routing", "--apply", str(change), "-q", "-k", "ROUTE-02 or EGRESS-01", "--mend-in-lab")
    done = viacheck(*words, report_dir=tmp_path / "report")
    (cause,) = (r.diagnosis for r in done.outcome.results if r.check == "ROUTE-02")
    assert cause is not None
    assert cause.code == "RULE_MISSING"
    assert "and the rule 'priority 500 from 172.17.0.0/16 lookup 201' decides for the agent's packets" in cause.cause
    assert cause.remedy == ["ip rule add priority 499 from 172.17.0.0/16 lookup 200"]
    assert cause.remedy_check is not None
    assert cause.remedy_check.text.startswith("fix verified: ROUTE-02 fail -> pass, "), cause.remedy_check.text
    assert "EGRESS-01 (icmp, udp, tcp) fail -> pass" in cause.remedy_check.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\nset -u\nfalse\n", "line 3: false: exit 1: no output"),
        (
            "way() {\n  ip link set nobody up\n}\nway\n",
            'line 2: ip link set nobody up: exit 1: Cannot find device "nobody"',
        ),
        ("if true; then\n  echo 'open\nfi\n", "line 2: unexpected EOF"),
        ("ip link | grep -q nobody\n", "line 1: ip link | grep -q nobody: exit 1"),
    ],
)
def test_the_line_is_the_files_own(tmp_path: Path, text: str, said: str) -> None:
    change = tmp_path / "change.sh"
    change.write_text(text)
    words = ("--lab", "multihomed-blank", "--apply", str(change), "-q", "-k", "HOST-02")
    done = viacheck(*words, report_dir=tmp_path / "report")
    assert done.exit_code == 1
    (target,) = done.outcome.targets
    assert any(said in note for note in target.notes), target.notes


def test_nothing_is_tried_on_a_host_or_in_a_bundle(tmp_path: Path) -> None:
    change = tmp_path / "change.sh"
    change.write_text("true\n")
    for words in (("--apply", str(change)), ("--mend-in-lab",)):
        done = viacheck("--bundle", "case.tar.gz", *words, report_dir=tmp_path / "report", cwd=tmp_path)
        assert done.exit_code == 4
        assert f"{words[0]} goes with --lab or --twin" in done.stderr


def test_a_change_that_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    done = viacheck("--lab", "nat", "--apply", "absent.sh", report_dir=tmp_path / "report", cwd=tmp_path)
    assert done.exit_code == 4
    assert "--apply: absent.sh: cannot be read" in done.stderr
