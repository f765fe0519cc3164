"""A bundle, from the host that it is made on to the verdict on another machine, through the front door."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.faults import FAULTS
from netns_lab.scenarios import BLANK, SCENARIOS
from tests.helpers.bundles import COMMANDS, case_of, in_lab, site
from tests.helpers.front_door import Finished, by_check, command, finished, sub_command, viacheck
from tests.helpers.hand_made import NOBODY, SITE, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.paths import ROOT
from viacheck import __version__
from viacheck.bundle.manifest import RESULT
from viacheck.bundle.reader import read_bundle
from viacheck.bundle.writer import write_bundle
from viacheck.model.verdict import Verdict

LAB, FAULT = "policy-routing", "rule-missing"


def judged(path: Path, report_dir: Path) -> Finished:
    """A run on a bundle."""
    return viacheck("--bundle", str(path), "-q", report_dir=report_dir)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles of the broken and the healthy lab, by viacheck and by its shell script."""
    folder = tmp_path_factory.mktemp("cases")
    file, script = site(folder), folder / "collect.sh"
    script.write_text(sub_command("collect-script").stdout)
    collect = " ".join([*COMMANDS, "collect", "--site", str(file)])
    for name, lab in (("broken", f"{LAB}+{FAULT}"), ("healthy", LAB)):
        in_lab(
            lab,
            f"{collect} -o {folder}/{name}.tar.gz && sh {script} --site {file} -o {folder}/{name}-script.tar.gz",
            {},
        )
    return folder


@pytest.mark.parametrize("name", ["broken", "broken-script"])
def test_a_bundle_of_a_lost_rule_names_it(cases: Path, name: str, tmp_path: Path) -> None:
    run = judged(cases / f"{name}.tar.gz", tmp_path)
    assert run.exit_code == 1, run.said
    (target,) = run.outcome.targets
    assert (target.id, target.kind, target.verdict) == (f"bundle:{name}.tar.gz", "bundle", "fail")
    results = by_check(run.outcome, target.id)
    (lost,) = results["ROUTE-02"]
    assert lost.verdict is Verdict.FAIL
    assert lost.diagnosis is not None
    assert lost.diagnosis.code == "RULE_MISSING"
    for result in (*results["EGRESS-01"], *results["ROUTE-05"]):
        assert result.verdict is Verdict.FAIL
        assert result.diagnosis is not None
        assert (result.diagnosis.code, result.diagnosis.reported_by) == ("RULE_MISSING", "ROUTE-02")
    assert all(one.observed.startswith("predicted, not seen: leaves by eth0") for one in results["EGRESS-01"])


@pytest.mark.parametrize("name", ["healthy", "healthy-script"])
def test_a_healthy_bundle_proves_nothing_about_packets(cases: Path, name: str, tmp_path: Path) -> None:
    run = judged(cases / f"{name}.tar.gz", tmp_path)
    assert run.exit_code == 0, run.said
    (target,) = run.outcome.targets
    results = by_check(run.outcome, target.id)
    for result in results["EGRESS-01"]:
        assert result.verdict is Verdict.NOT_RUN
        assert result.observed.startswith("predicted, not proven: leaves by wlan0, source 10.10.50.9; needs packets")
    assert [one.verdict for one in results["ROUTE-05"]] == [Verdict.PASS]
    assert results["ROUTE-05"][0].observed.endswith("(by the routing model: a bundle has no kernel to ask)")
    for check in ("HOST-03", "EGRESS-02", "EGRESS-03", "EGRESS-04", "ROUTE-06"):
        assert all(one.verdict is Verdict.NOT_RUN for one in results[check])
        assert all("run viacheck --local on the host itself" in one.observed for one in results[check])
    for check in ("HOST-02", "HOST-04", "NAT-02", "ROUTE-01", "ROUTE-02", "ROUTE-03", "ROUTE-04"):
        assert [one.verdict for one in results[check]] == [Verdict.PASS], check
    assert not any("proven" in one.observed.replace("not proven", "") for every in results.values() for one in every)


@pytest.mark.parametrize("lab", [name for name in SCENARIOS if name not in BLANK])
def test_a_healthy_labs_bundle_shows_nothing_wrong(lab: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "case.tar.gz", case_of(lab), "strict")
    run = judged(tmp_path / "case.tar.gz", tmp_path / "report")
    assert run.exit_code == 0, run.said
    assert not [one for one in run.outcome.results if one.verdict.bad]


@pytest.mark.parametrize(
    "fault", ["rule-missing", "table-empty", "rule-shadowed", "forward-dropped", "masquerade-missing"]
)
def test_what_a_snapshot_shows_is_diagnosed_from_a_bundle_as_on_the_spot(fault: str, tmp_path: Path) -> None:
    lab = LAB if LAB in FAULTS[fault].on else FAULTS[fault].on[0]
    write_bundle(tmp_path / "case.tar.gz", case_of(lab, fault), "default")
    run = judged(tmp_path / "case.tar.gz", tmp_path / "report")
    codes = {one.diagnosis.code for one in run.outcome.results if one.diagnosis and one.verdict is Verdict.FAIL}
    assert FAULTS[fault].diagnosis in codes, run.said


def test_every_local_run_leaves_a_bundle(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(SITE)
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        run = host.viacheck("--with-captures", "-n", "1", report_dir=tmp_path / "report", site=file)
        assert run.exit_code == 0, run.said
    bundle = read_bundle(tmp_path / "report" / "bundle.tar.gz")
    assert bundle.result == run.outcome
    assert bundle.snapshot.agent is not None
    assert any(one.command == "ip -N -j -4 rule show" and one.place == "agent" for one in bundle.commands)
    with tarfile.open(tmp_path / "report" / "bundle.tar.gz") as archive:
        names = archive.getnames()
    assert {"manifest.json", "intent.json", "snapshot.json", RESULT, "report.html"} <= set(names)
    assert any(name.startswith("captures/") for name in names)
    again = judged(tmp_path / "report" / "bundle.tar.gz", tmp_path / "again")
    assert again.exit_code == 0, again.said


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder that every user may write to; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_an_ordinary_user_collects_and_judges_what_it_can(everybodys: Path) -> None:
    folder = everybodys
    file = folder / "site.toml"
    file.write_text(SITE)
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

        def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
            argv = host.inside(*NOBODY, *COMMANDS, *arguments)
            return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/", env=environment)

        done = as_nobody("collect", "--site", str(file), "-o", str(folder / "case.tar.gz"))
        draft = as_nobody("site", "init", "--netns", "/run/netns/agent", "-o", str(folder / "draft.toml"))
        twin = as_nobody("--local", "--twin", "--site", str(file), "--report-dir", str(folder / "twin"))
    line = "viacheck site init: --netns: /run/netns/agent: entering a network namespace needs root\n"
    assert (draft.returncode, draft.stderr) == (4, line)
    assert (twin.returncode, twin.stderr.count("ERROR: --local --twin needs root: ")) == (4, 1)
    assert done.returncode == 0, done.stderr
    assert "could not collect agent:" in done.stdout
    assert "could not collect packet filter:" in done.stdout
    report = folder / "report"
    judging = ["setpriv", *NOBODY[1:], *command("--bundle", str(folder / "case.tar.gz"), "--report-dir", str(report))]
    run = finished(judging, report, env={"PYTHONDONTWRITEBYTECODE": "1"}, cwd=folder)
    assert run.exit_code in (0, 1), run.said
    assert run.outcome.targets[0].kind == "bundle"
    assert "RULE_MISSING" not in run.stdout
    bundle = read_bundle(folder / "case.tar.gz")
    assert any(line.startswith("agent:") for line in bundle.manifest.could_not)
    assert any(rule.table == 200 for rule in bundle.snapshot.host.rules)


def test_a_bundle_is_explained(cases: Path) -> None:
    done = sub_command("explain", "--bundle", cases / "broken.tar.gz", "--to", "203.0.113.9")
    assert done.returncode == 0, done.stderr
    assert "on wire    by eth0 via 10.10.40.1, source 10.10.40.9" in done.stdout
    assert "kernel" not in done.stdout


def test_two_bundles_are_compared(cases: Path) -> None:
    done = sub_command("diff", cases / "healthy.tar.gz", cases / "broken.tar.gz")
    assert done.returncode == 1
    assert "The host's rule priority 32765 from 172.17.0.0/16 lookup 200 is gone." in done.stdout
    same = sub_command("diff", cases / "broken.tar.gz", cases / "broken.tar.gz")
    assert same.returncode == 0
    assert same.stdout.splitlines()[-1] == "no change: the same state"
    assert f"{cases / 'broken.tar.gz'}: holds no verdicts, so only the state is compared" in same.stdout


def test_a_bundle_is_compared_with_a_run_whatever_it_is_called(cases: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "case"
    renamed.write_bytes((cases / "broken.tar.gz").read_bytes())
    run = viacheck("--lab", LAB, "-q", "-k", "ROUTE", report_dir=tmp_path / "report")
    done = sub_command("diff", run.report_dir / "result.json", renamed)
    assert done.returncode == 1
    assert "The host's rule priority 32765 from 172.17.0.0/16 lookup 200 is gone." in done.stdout
    assert "not there" not in done.stdout


@pytest.mark.parametrize("words", [("explain", "--to", "203.0.113.9", "--bundle"), ("diff", "absent.tar.gz")])
def test_a_bad_bundle_is_told_in_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"no archive")
    done = sub_command(*words, bad)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1


def test_wrong_words_are_usage_errors(cases: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"no archive")
    for words, said in (
        (("--bundle", str(bad)), "not a usable bundle"),
        (("--bundle", str(cases / "broken.tar.gz"), "--lab", "nat"), "--bundle excludes --lab and --local"),
    ):
        run = viacheck(*words, report_dir=tmp_path / "report")
        assert run.exit_code == 4
        assert said in run.stderr
        assert "Traceback" not in run.said
    done = sub_command("collect", "--site", cases / "site.toml", "--redact", "strict", "--with-captures")
    assert done.returncode == 4
    assert "packets hold the addresses that strict maps" in done.stderr
    assert sub_command("collect", "--site", tmp_path / "absent.toml").returncode == 4


@pytest.mark.parametrize("words", [("collect",), ("explain", "--local", "--to", "203.0.113.9")])
def test_every_mistake_of_a_site_file_has_a_line_of_its_own(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "site.toml"
    file.write_text("schema = 1\n[site]\nname = 3\n")
    done = sub_command(*words, "--site", file)
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    assert len(lines) == 4, done.stderr
    assert all(line.startswith(f"viacheck {words[0]}: {file}: ") for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--site", "/absent.toml"), "/absent.toml: cannot be read"),
        (("--site",), "--site needs a value"),
        (("--redact", "some", "--site", "/dev/null"), "--redact: unknown 'some'; allowed: none, default"),
        (("--redact", "strict", "--site", "/dev/null"), "--redact strict needs viacheck itself"),
        (("--what",), "unknown argument '--what'"),
    ],
)
def test_the_script_tells_wrong_words_in_one_line(words: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "src" / "viacheck" / "bundle" / "collect.sh"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh"])
def test_the_script_runs_in_any_shell_and_minds_no_name(cases: Path, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"needs {shell.split()[0]}")
    folder = tmp_path / 'it\'s a "strange" place'
    folder.mkdir()
    file = folder / "si te.toml"
    file.write_text((cases / "site.toml").read_text())
    words = shlex.join([str(cases / "collect.sh"), "--site", str(file), "-o", str(folder / "the\ncase.tar.gz")])
    said = in_lab(f"{LAB}+{FAULT}", f"TMPDIR={shlex.quote(str(folder))} PATH=/usr/bin:/bin {shell} {words}", {})
    assert "could not collect" not in said
    assert sorted(path.name for path in folder.iterdir()) == ["si te.toml", "the\ncase.tar.gz"]
    bundle = read_bundle(folder / "the\ncase.tar.gz")
    assert bundle.snapshot.agent is not None
    assert bundle.snapshot.host.routes
    assert not bundle.snapshot.problems


def test_the_script_leaves_nothing_behind_and_names_its_maker(cases: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(cases / "collect.sh"), "--site", str(cases / "site.toml"), "-o", "here.tar.gz"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here.tar.gz"]
    assert read_bundle(tmp_path / "here.tar.gz").manifest.made_by == f"viacheck {__version__} (collect.sh)"


@pytest.fixture(scope="module")
def without_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle that the script made without a site file, and the site file of its host."""
    folder = tmp_path_factory.mktemp("without-site")
    script = ROOT / "src" / "viacheck" / "bundle" / "collect.sh"
    with hand_made_host() as host:
        host.run("sh", "-c", "echo 200 wlan0rt >> /etc/iproute2/rt_tables")
        host.ip("route add default via 10.10.50.1 dev wlan0 table wlan0rt")
        host.run("sh", str(script), "-o", f"{folder}/case.tar.gz")
    write_site(folder)
    return folder


def test_a_bundle_without_a_site_file_is_judged_with_one(without_site: Path, tmp_path: Path) -> None:
    words = ("--bundle", f"{without_site}/case.tar.gz", "--site", f"{without_site}/site.toml", "-q")
    run = viacheck(*words, report_dir=tmp_path)
    assert run.exit_code == 1, run.said
    codes = {
        result.diagnosis.code for result in run.outcome.results if result.verdict is Verdict.FAIL and result.diagnosis
    }
    assert codes == {"RULE_MISSING"}
    snapshot = run.outcome.targets[0].snapshot
    assert snapshot is not None
    assert snapshot["agent"]["addresses"], "the agent's namespace is one of those that the script entered"
    explained = sub_command("explain", *words[:4], "--to", "203.0.113.9")
    assert explained.returncode == 0, explained.stderr
    assert "eth0" in explained.stdout


@pytest.mark.parametrize(
    ("site_file", "line"),
    [
        (None, "it has neither intent.json nor site.toml; give the site file by --site FILE"),
        ("missing.toml", "missing.toml: cannot be read: No such file or directory"),
    ],
)
def test_a_bundle_without_a_site_file_asks_for_one(
    site_file: str | None, line: str, without_site: Path, tmp_path: Path
) -> None:
    words = ["--bundle", f"{without_site}/case.tar.gz", *(["--site", site_file] if site_file else [])]
    run = viacheck(*words, report_dir=tmp_path)
    assert (run.exit_code, line in run.stderr) == (4, True), run.said


def test_a_bundle_with_an_intent_takes_no_other(cases: Path, without_site: Path, tmp_path: Path) -> None:
    run = viacheck("--bundle", f"{cases}/broken.tar.gz", "--site", f"{without_site}/site.toml", report_dir=tmp_path)
    assert run.exit_code == 4
    assert "it carries its own intent; leave out --site" in run.stderr
