"""A person's own commands are tried on a lab's host before the checks; the first that fails stops it, with its line."""

from __future__ import annotations

from pathlib import Path

from tests.front_door import viacheck

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
    done = viacheck("--lab", "multihomed-blank", "--apply", str(change), "-q", report_dir=tmp_path / "report")
    assert done.exit_code == 1
    assert "line 2: ip route add default via 10.99.0.1 table 200: exit 2" in done.stdout


def test_a_change_that_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    done = viacheck("--lab", "nat", "--apply", "absent.sh", report_dir=tmp_path / "report", cwd=tmp_path)
    assert done.exit_code == 4
    assert "--apply: absent.sh: cannot be read" in done.stderr
