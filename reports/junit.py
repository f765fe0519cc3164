"""junit.xml: the run as CI systems read it, one suite for each target and one case for each check and case.

A fail is a failure, an inconclusive check an error, and a check that did not run is skipped; an advisory passes, with
its text in the case's output, and a waived check is skipped. XML 1.0 allows no control characters, so every text passes
`text.escape_unprintable`.
"""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from reports.text import escape_unprintable, reason
from viacheck.model.result import CheckResult, RunResult, Verdict

_ELEMENTS = {
    Verdict.FAIL: "failure",
    Verdict.INCONCLUSIVE: "error",
    Verdict.NOT_RUN: "skipped",
    Verdict.NOT_APPLICABLE: "skipped",
}
_COUNTED = (("failures", Verdict.FAIL), ("errors", Verdict.INCONCLUSIVE))


def junit(outcome: RunResult) -> str:
    """Write a run in the form that CI systems share (testsuites, testsuite, testcase)."""
    suites = Xml.Element("testsuites", {"name": "viacheck", **_numbers(outcome.results)})
    for target in outcome.targets:
        results = [result for result in outcome.results if result.target == target.id]
        about = {"name": _text(target.id), "timestamp": outcome.run.started, **_numbers(results)}
        suite = Xml.SubElement(suites, "testsuite", about)
        suite.extend(_case(result) for result in results)
    Xml.indent(suites)
    return Xml.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _numbers(results: list[CheckResult]) -> dict[str, str]:
    numbers = {name: sum(result.counted is verdict for result in results) for name, verdict in _COUNTED}
    skipped = sum(
        result.waiver is not None or result.verdict in (Verdict.NOT_RUN, Verdict.NOT_APPLICABLE) for result in results
    )
    seconds = sum(result.seconds for result in results)
    return {
        "tests": str(len(results)),
        **{name: str(number) for name, number in numbers.items()},
        "skipped": str(skipped),
        "time": f"{seconds:.4f}",
    }


def _case(result: CheckResult) -> Xml.Element:
    name = f"{result.check}[{result.case}]" if result.case else result.check
    case = Xml.Element("testcase", classname=_text(result.target), name=_text(name), time=f"{result.seconds:.4f}")
    element = _ELEMENTS.get(result.verdict)
    if result.waiver is not None:
        Xml.SubElement(case, "skipped", type="waived", message=_text(result.waiver.text))
        Xml.SubElement(case, "system-out").text = _details(result)
    elif element is not None:
        kind = result.diagnosis.code if result.diagnosis else result.verdict.value
        child = Xml.SubElement(case, element, type=_text(kind), message=_text(reason(result)))
        child.text = _details(result) if element != "skipped" else None
    elif result.verdict is Verdict.ADVISORY:
        Xml.SubElement(case, "system-out").text = _details(result)
    return case


def _details(result: CheckResult) -> str:
    lines = [result.title, f"expected: {result.expected}", f"observed: {result.observed}"]
    if result.diagnosis is not None:
        lines.append(f"{result.diagnosis.code}: {result.diagnosis.cause}")
        lines += [f"fix: {command}" for command in result.diagnosis.remedy]
        lines += [f"roll back: {command}" for command in result.diagnosis.undo]
    return _text("\n".join(lines))


def _text(text: str) -> str:
    return escape_unprintable(text, keep="\n\t")
