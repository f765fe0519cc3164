"""junit.xml says what result.json says, in the form that CI systems read, whatever names come from outside."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

import pytest

from reports.junit import junit
from tests.helpers.sample_outcomes import SAMPLES
from viacheck.model.verdict import Verdict


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_result_is_a_case_with_its_verdict(sample: str) -> None:
    outcome = SAMPLES[sample]()
    root = Xml.fromstring(junit(outcome))
    cases = root.findall("testsuite/testcase")
    known = {target.id for target in outcome.targets}
    results = [result for result in outcome.results if result.target in known]
    assert len(cases) == len(results)
    bad = {Verdict.FAIL: "failure", Verdict.INCONCLUSIVE: "error"}
    for verdict, element in bad.items():
        number = sum(result.verdict is verdict for result in results)
        assert len(root.findall(f"testsuite/testcase/{element}")) == number
    assert sum(int(suite.attrib["tests"]) for suite in root) == len(results)


@pytest.mark.parametrize("sample", SAMPLES)
def test_nothing_in_it_is_a_control_character(sample: str) -> None:
    assert [c for c in junit(SAMPLES[sample]()) if not c.isprintable() and c not in "\n\t"] == []


def test_a_case_is_named_for_a_person_and_grouped_by_chapter() -> None:
    outcome = SAMPLES["healthy"]()
    (result,) = (result for result in outcome.results if (result.check, result.case) == ("EGRESS-01", "icmp"))
    suite = Xml.fromstring(junit(outcome)).find("testsuite")
    assert suite is not None
    names = {(case.attrib["classname"], case.attrib["name"]) for case in suite.iter("testcase")}
    assert ("EGRESS", f"EGRESS-01 {result.title} [icmp]") in names
    properties = {entry.attrib["name"]: entry.attrib["value"] for entry in suite.iter("property")}
    assert outcome.targets[0].snapshot is not None
    assert properties["host"] == outcome.targets[0].snapshot["hostname"]
    assert properties["version"] == outcome.run.versions["viacheck"]


def test_a_run_of_several_targets_names_them_where_jenkins_and_gitlab_look() -> None:
    """Neither shows the name of a suite, and GitLab keeps one case of those that have one class and one name."""
    outcome = SAMPLES["mixed"]()
    cases = list(Xml.fromstring(junit(outcome)).iter("testcase"))
    packages = {case.attrib["classname"].rpartition(".")[0] for case in cases}
    assert packages == {target.id for target in outcome.targets}
    keys = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
    assert len(set(keys)) == len(keys)


def test_gitlab_shows_text_alone_so_each_skip_and_failure_has_some() -> None:
    root = Xml.fromstring(junit(SAMPLES["mixed"]()))
    marked = [element for case in root.iter("testcase") for element in case if element.tag != "system-out"]
    assert {"failure", "skipped"} <= {element.tag for element in marked}
    assert all((element.text or "").strip() for element in marked)


@pytest.mark.parametrize("sample", SAMPLES)
def test_it_has_what_the_schema_of_jenkins_allows(sample: str) -> None:
    """As junit-10.xsd of the xUnit plug-in says: its attributes, and times of three decimals."""
    allowed = {
        "testsuites": {"name", "time", "tests", "failures", "errors"},
        "testsuite": {"name", "time", "tests", "failures", "errors", "skipped", "timestamp"},
        "testcase": {"name", "time", "classname"},
    }
    for element in Xml.fromstring(junit(SAMPLES[sample]())).iter():
        assert set(element.attrib) <= allowed.get(element.tag, {"name", "value", "type", "message"})
        assert re.fullmatch(r"\d+\.\d{3}", element.get("time", "0.000"))


def test_an_advisory_is_output_or_with_strict_a_failure() -> None:
    outcome = SAMPLES["healthy"]()
    advisories = sum(result.verdict is Verdict.ADVISORY for result in outcome.results)
    lenient = Xml.fromstring(junit(outcome))
    assert (len(lenient.findall(".//system-out")), lenient.attrib["failures"]) == (advisories, "0")
    outcome.run.strict = True
    strict = Xml.fromstring(junit(outcome))
    assert (len(strict.findall(".//failure")), strict.attrib["failures"]) == (advisories, str(advisories))
    assert strict.findall(".//system-out") == []


def test_a_failure_says_what_mends_it() -> None:
    root = Xml.fromstring(junit(SAMPLES["rule-missing"]()))
    failures = root.findall("testsuite/testcase/failure")
    assert any("fix: ip rule add" in (failure.text or "") for failure in failures)
