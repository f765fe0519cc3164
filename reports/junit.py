"""junit.xml: the run as CI systems read it, one suite for each target and one case for each check and case.

Jenkins groups cases by package and class, which are the two parts of ``classname`` around its last dot, and GitLab
shows ``classname`` as the suite of a case; neither shows the suite's own name. So the class is the chapter, and in a
run with several targets the package is the target. GitLab shows the text of an element, and not its ``message``.

A fail is a failure, an inconclusive check an error, and a check that did not run or is waived is skipped. An advisory
passes, with its text in the case's output, unless the run is strict: it is a failure then. XML 1.0 allows no control
characters, so every text passes `text.escape_unprintable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from reports.text import escape_unprintable, reason
from viacheck.model.chapters import chapter, check_order
from viacheck.model.result import CheckResult, Run, RunResult, TargetRecord
from viacheck.model.verdict import Verdict

_ELEMENTS = {
    Verdict.FAIL: "failure",
    Verdict.INCONCLUSIVE: "error",
    Verdict.NOT_RUN: "skipped",
    Verdict.NOT_APPLICABLE: "skipped",
}
_COUNTED = (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))


def junit(outcome: RunResult) -> str:
    """Write a run in the form that CI systems share (testsuites, testsuite, testcase)."""
    strict = outcome.run.strict
    several = len(outcome.targets) > 1
    numbers = _numbers(outcome.results, strict)
    # The schema of Jenkins' xUnit plug-in (junit-10.xsd) knows no ``skipped`` of all suites.
    del numbers["skipped"]
    suites = Xml.Element("testsuites", {"name": "viacheck", **numbers})
    for target in outcome.targets:
        results = [result for result in outcome.results if result.target == target.id]
        results.sort(key=lambda result: check_order(result.check))
        package = f"{target.id}." if several else ""
        about = {"name": _text(target.id), "timestamp": _text(outcome.run.started), **_numbers(results, strict)}
        suite = Xml.SubElement(suites, "testsuite", about)
        suite.append(_properties(outcome.run, target))
        suite.extend(_case(result, package, strict) for result in results)
    Xml.indent(suites)
    return Xml.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _numbers(results: list[CheckResult], strict: bool) -> dict[str, str]:
    elements = [_element(result, strict) for result in results]
    return {
        "tests": str(len(results)),
        **{name: str(elements.count(element)) for name, element in _COUNTED},
        "time": f"{sum(result.seconds for result in results):.3f}",
    }


def _element(result: CheckResult, strict: bool) -> str | None:
    """Return the element that marks a case as not passed; None for a case that passed."""
    if result.waiver is not None:
        return "skipped"
    return "failure" if strict and result.verdict is Verdict.ADVISORY else _ELEMENTS.get(result.verdict)


def _properties(run: Run, target: TargetRecord) -> Xml.Element:
    """Return where the target was judged, and by which version."""
    properties = Xml.Element("properties")
    about = {
        "host": str((target.snapshot or {}).get("hostname", "")),
        "version": run.versions.get("viacheck", ""),
        "verdict": target.verdict,
    }
    for name, value in about.items():
        if value:
            Xml.SubElement(properties, "property", name=name, value=_text(value))
    return properties


def _case(result: CheckResult, package: str, strict: bool) -> Xml.Element:
    name = f"{result.check} {result.title}" + (f" [{result.case}]" if result.case else "")
    classname = package + chapter(result.check)
    case = Xml.Element("testcase", classname=_text(classname), name=_text(name), time=f"{result.seconds:.3f}")
    element = _element(result, strict)
    if result.waiver is not None:
        child = Xml.SubElement(case, "skipped", type="waived", message=_text(result.waiver.text))
        child.text = _text(result.waiver.text)
        Xml.SubElement(case, "system-out").text = _details(result)
    elif element is not None:
        kind = result.diagnosis.code if result.diagnosis else result.verdict.value
        message = reason(result) if element == "skipped" else _message(result)
        child = Xml.SubElement(case, element, type=_text(kind), message=_text(message))
        child.text = _text(message) if element == "skipped" else _details(result)
    elif result.verdict is Verdict.ADVISORY:
        Xml.SubElement(case, "system-out").text = _details(result)
    return case


def _message(result: CheckResult) -> str:
    """Return a failure in one sentence: what was observed, and its cause where that says more."""
    observed = reason(result)
    if result.diagnosis is None or result.diagnosis.cause == observed:
        return observed
    return f"{observed} ({result.diagnosis.code}: {result.diagnosis.cause})"


def _details(result: CheckResult) -> str:
    lines = [f"expected: {result.expected}", f"observed: {result.observed}"]
    if result.diagnosis is not None:
        lines.append(f"{result.diagnosis.code}: {result.diagnosis.cause}")
        lines += [f"first: {need}" for need in result.diagnosis.needs]
        lines += _commands("fix", result.diagnosis.remedy)
        lines += _commands("roll back", result.diagnosis.undo)
        lines += [f"decide: {result.diagnosis.decision}"] if result.diagnosis.decision else []
        lines += _commands("site file", result.diagnosis.site_file)
    return _text("\n".join(lines))


def _commands(purpose: str, commands: Sequence[str]) -> list[str]:
    """Return commands behind their purpose; what has several lines starts a line of its own, to be copied whole."""
    return [f"{purpose}:{chr(10) if chr(10) in command else ' '}{command}" for command in commands]


def _text(text: str) -> str:
    return escape_unprintable(text, keep="\n\t")
