"""The page: what it says, that it is safe to open, readable by everybody, and small whatever the host holds."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from reports.diagnoses import reported_causes
from reports.egress_summary import egress_summary, verdict_sentence
from reports.report_files import ResultUnreadable, link_latest, read_outcome, write_outcome
from reports.report_page import render
from reports.text import escape_unprintable, ids_shortened
from tests.helpers.front_door import sub_command
from tests.helpers.paths import RECORDED
from tests.helpers.sample_outcomes import HOSTILE, SAMPLES, egress, healthy, many, rule_missing, snapshot, timeline
from viacheck.model.check_evidence import PacketsEvidence
from viacheck.model.diagnosis_record import Diagnosis, OutputOf, RemedyStep
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

VOID = {"meta", "br", "link", "img", "input", "hr", "use", "path", "rect", "circle"}


class Page(HTMLParser):
    """A page taken apart: its elements with their attributes, and the text inside of each."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[tuple[str, int]] = []
        self._texts: list[str] = []
        self._spans: list[tuple[int, int]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element, and that it is open."""
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that closes itself."""
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._spans.append((len(self._texts), len(self._texts)))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element, which must be this one."""
        assert self.open, f"</{tag}> closes nothing"
        opened, index = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        self._spans[index] = (self._spans[index][0], len(self._texts))

    def handle_data(self, data: str) -> None:
        """Keep a text; it belongs to every element around it."""
        self._texts.append(data)

    def all(self, tag: str, **wanted: str) -> Iterator[tuple[dict[str, str], str]]:
        """Elements of a kind, with their attributes and text."""
        for (name, attributes), (begin, end) in zip(self.elements, self._spans, strict=True):
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items()):
                yield attributes, "".join(self._texts[begin:end])

    def text(self, tag: str, **wanted: str) -> str:
        """The text of the first element of a kind."""
        return next(text for _, text in self.all(tag, **wanted))


@cache
def sample_page(name: str) -> Page:
    return Page(render(SAMPLES[name]()))


@pytest.fixture(params=SAMPLES)
def page(request: pytest.FixtureRequest) -> Page:
    return sample_page(request.param)


def test_elements_nest_and_ids_are_unique(page: Page) -> None:
    assert not page.open, f"left open: {page.open}"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), [one for one in ids if ids.count(one) > 1]


def test_every_link_inside_the_page_has_its_end(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    ends = {attributes["href"][1:] for _, attributes in page.elements if attributes.get("href", "").startswith("#")}
    assert ends <= ids, ends - ids
    named = {one for _, a in page.elements for one in a.get("aria-labelledby", "").split()}
    assert named <= ids


def test_nothing_is_loaded_and_nothing_runs(page: Page) -> None:
    assert {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "embed", "base"} == set()
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("style", "src", "srcset") for name in attributes), (
            tag,
            attributes,
        )
        target = attributes.get("href", "#")
        assert target.startswith("#") or re.fullmatch(r"captures/[\w.+-]+", target), target
    style = page.text("style")
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_this_style_sheet_and_nothing_else(page: Page) -> None:
    policy = next(a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.text("style").encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]


def test_a_reader_without_sight_finds_the_way(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert next(page.all("html"))[0]["lang"] == "en"
    assert page.text("title").strip()
    assert [tags.count(landmark) for landmark in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert all(attributes.get("scope") for attributes, _ in page.all("th"))
    for attributes, _ in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or (
            attributes["role"] == "img" and "aria-labelledby" in attributes
        )


def test_one_page_fits_a_phone(page: Page) -> None:
    assert any(a.get("content") == "width=device-width, initial-scale=1" for a, _ in page.all("meta"))
    outside = re.sub(r'<div class="scroll".*?</table></div>', "", page.source, flags=re.S)
    assert "<table" not in outside, "a table outside of a box that scrolls"


def test_the_verdict_comes_first_in_words() -> None:
    page = sample_page("healthy")
    sentence = "The agent's packets leave by wlan0: proven by 9 of 9 probes, none elsewhere, 0 frames lost."
    assert sentence in page.text("h1")
    assert page.text("title").startswith("PASS: lab:policy-routing")


def test_one_cause_is_told_once_with_what_it_takes_along() -> None:
    page = sample_page("rule-missing")
    card = next(text for a, text in page.all("article") if a.get("id") == "fix-1")
    assert "No rule sends the agent's subnet" in card
    assert "Also caused by this: ROUTE-05, EGRESS-01 (icmp, udp, tcp), EGRESS-02." in card
    assert not any(a.get("id") == "fix-2" for a, _ in page.all("article"))
    order = [
        page.source.index(mark) for mark in ("<h1", 'id="t1-path"', 'id="fixes"', 'id="t1-checks"', 'id="t1-facts"')
    ]
    assert order == sorted(order)


def test_commands_are_plain_text_one_on_each_line() -> None:
    page = sample_page("rule-missing")
    blocks = [text for a, text in page.all("pre") if a.get("class") == "commands"]
    assert "ip rule add priority 1000 from 172.17.0.0/16 lookup 200\nip route flush cache" in blocks
    assert "ip rule del priority 1000 from 172.17.0.0/16 lookup 200" in blocks


def test_the_way_taken_is_drawn_and_told() -> None:
    page = sample_page("rule-missing")
    for shape in ("topology lying", "topology standing pair"):
        assert page.text("svg", **{"class": shape}).count("leak: 9 of 9") >= 1
    drawn = [a["class"] for a, _ in page.all("g") if a.get("class", "").startswith("way")]
    assert {"way taken", "way leak", "way missed"} <= set(drawn)
    assert "The packets left by eth0, which is not the intended uplink." in page.text("desc")


def test_a_healthy_way_is_drawn_without_a_leak() -> None:
    page = sample_page("healthy")
    assert not [a for a, _ in page.all("g") if a.get("class") in ("way leak", "way missed")]


def test_a_bridged_agent_is_drawn_on_its_parent() -> None:
    outcome = healthy()
    target = outcome.targets[0]
    attach = {"mode": "macvlan", "network": "macvlan0", "parent": "wlan0", "subnet": "10.10.50.0/24"}
    target.intent["agent"]["attach"] = attach
    page = Page(render(outcome))
    assert "sits on wlan0's network" in page.text("desc")
    assert "not intendeddocker0" in page.text("svg", **{"class": "topology lying"}), "the probes were seen on it"
    for result in outcome.results:
        for evidence in result.evidence:
            if isinstance(evidence, PacketsEvidence):
                evidence.sightings = [seen for seen in evidence.sightings if seen.interface != "docker0"]
    assert "docker0" not in Page(render(outcome)).text("svg", **{"class": "topology lying"})


def test_several_targets_have_a_matrix_that_says_words() -> None:
    page = sample_page("mixed")
    cells = page.text("table", **{"class": "matrix"})
    assert all(word in cells for word in ("pass", "fail", "inconclusive", "advisory", "not-run"))
    assert "3 targets: 1 fail, 1 inconclusive, 1 pass." in " ".join(page.text("h1").split())


def lines(page: Page) -> dict[str, tuple[bool, str]]:
    """The checks of a page of one target: whether each one is open, and its text."""
    return {
        str(re.search(r"[A-Z]+-\d+", text)[0]): ("open" in attributes, " ".join(text.split()))  # type: ignore[index]
        for attributes, text in page.all("details")
        if attributes["class"].startswith("check ")
    }


def test_what_was_not_run_says_why() -> None:
    page = sample_page("healthy")
    checks = lines(page)
    assert "Why it changes the target: --allow-disruptive" in checks["FLAP-03"][1]
    assert "Why belongs to macvlan" in checks["MACVLAN-05"][1]
    chapters = [" ".join(t.split()) for a, t in page.all("summary") if "chapter-title" not in a.get("class", "")]
    assert any(
        text.startswith("FLAP ") and "8 not-run: it changes the target: --allow-disruptive" in text for text in chapters
    ), "a chapter without a judged check is one line, with the reason that its checks share"


def test_what_passed_is_a_line_and_what_failed_is_open() -> None:
    assert not any(opened for opened, _ in lines(sample_page("healthy")).values())
    checks = lines(sample_page("rule-missing"))
    assert [check for check, (opened, _) in checks.items() if opened] == ["ROUTE-02"], "the check that found the cause"
    assert "(RULE_MISSING, see fix 1)" in checks["ROUTE-05"][1], "what follows from it is a line that names the fix"
    everything = {result.check for result in rule_missing().results}
    assert set(checks) == everything, "each check has its line"


def test_a_folded_chapter_says_why_only_where_nothing_was_judged() -> None:
    chapters = [" ".join(text.split()) for _, text in sample_page("unproven").all("summary")]
    assert "HOST The host: 6 pass, 1 not-run" in chapters
    assert any(text.startswith("PIPEWORK ") and "belongs to pipework" in text for text in chapters)


def test_cases_that_say_the_same_are_shown_once() -> None:
    text = lines(sample_page("rule-missing"))["EGRESS-01"][1]
    assert text.count("Expected") == 1
    assert "fail icmp, udp, tcp" in text
    assert text.count("Evidence of EGRESS-01") == 0
    assert all(f"Evidence of {case}:" in text.replace("  ", " ") for case in ("icmp", "udp", "tcp"))


def test_the_head_says_where_when_and_by_which_command() -> None:
    outcome = healthy()
    outcome.run.started, outcome.run.command = "2025-03-04T02:11:07+01:00", "./viacheck --lab 'a b'"
    head = " ".join(Page(render(outcome)).text("header").split())
    for part in ("Site berlin-7", "Host berlin-7", "2025-03-04 02:11:07 UTC+01:00", "Command ./viacheck --lab 'a b'"):
        assert part in head, head
    assert f"viacheck {outcome.run.versions['viacheck']}" in head
    assert "pass with 2 advisories" in head


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-27T06:07:57.929+00:00", "Started 2026-11-27 06:07:57 UTC "),
        ("2026-11-27T06:07:57-03:30", "Started 2026-11-27 06:07:57 UTC-03:30 "),
        ("2026-11-27T06:07:57", "Started 2026-11-27 06:07:57 Command"),
        ("yesterday", "Started yesterday "),
    ],
)
def test_a_moment_is_shown_with_the_zone_that_it_has(text: str, shown: str) -> None:
    outcome = healthy()
    outcome.run.started = text
    assert shown in " ".join(Page(render(outcome)).text("header").split())


def test_the_drawing_is_right_under_the_headline_with_the_agent_in_the_host() -> None:
    page = sample_page("healthy")
    between = page.source[page.source.index("</h1>") : page.source.index('id="t1-path"')]
    assert not re.search(r"<(section|article|nav|h2|ul)", between)
    svg = page.source[page.source.index('class="topology lying"') :]
    left, width = map(float, re.findall(r'class="frame" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)[0])
    boxes = re.findall(r'class="node[^"]*"><rect x="([\d.]+)".*?class="role"[^>]*>([^<]*)', svg)
    inside = [role for x, role in boxes if left <= float(x) <= left + width]
    assert {role.partition(" ")[0] for role in inside[: len(inside) // 2]} == {"agent", "bridge", "routing", "uplink"}


def test_each_hop_has_its_evidence() -> None:
    rows = [
        " ".join(text.split())
        for _, text in Page(sample_page("rule-missing").source).all("tr")
        if text.strip() and ("EGRESS-0" in text or "ROUTE-05" in text or "NAT-02" in text)
    ]
    table = "\n".join(rows)
    assert "bridge docker0" in table
    assert re.search(r"routing, departs here.*lookup main; table 254.*kernel and model agree", table)
    assert re.search(r"uplink eth0.*source 10.10.40.9, capture sound ?9 of 9 ?9", table)
    assert re.search(r"uplink wlan0, intended.*capture sound ?0 of 9 ?0", table)
    svg = sample_page("rule-missing").text("svg", **{"class": "topology lying"})
    for part in ("9 probes sent", "9 of 9 probes", "routing · departs here", "table 254", "kernel agrees"):
        assert part in svg


def _answers(interface: str, answered: int) -> RunResult:
    """A run in which the probes leave by wlan0, and the answers are seen on another interface."""
    outcome = healthy()
    for result in outcome.results:
        for evidence in result.evidence if result.check == "EGRESS-01" else ():
            if isinstance(evidence, PacketsEvidence):
                evidence.answered = answered
                for sighting in evidence.sightings:
                    if sighting.role == "answer":
                        sighting.interface = interface
    return outcome


def test_the_way_of_the_answers_is_drawn_where_it_differs() -> None:
    drawn = [
        [a["class"] for a, _ in Page(render(outcome)).all("g")].count("way answer")
        for outcome in (_answers("wlan0", 3), _answers("wlan0", 0), _answers("eth0", 3))
    ]
    # Each drawing is there twice, and the legend has a line. No answer was seen on the bridge in this sample.
    assert drawn == [0, 2 * 2 + 1, 2 * 3 + 1]
    page = Page(render(_answers("eth0", 3)))
    assert "Answers came back: 9 by eth0; 9 reached the agent." in page.text("desc")
    page = Page(render(_answers("wlan0", 0)))
    assert "9 sent, 0 answers back" in page.text("svg", **{"class": "topology lying"})
    assert "9 of 9 answered" in page.text("svg", **{"class": "topology lying"}), "the target did answer"


def test_a_fix_at_runtime_says_so_and_a_fix_in_a_file_does_not() -> None:
    ip = RemedyStep(argv=["ip", "rule", "add", "priority", "1000"])
    inside = RemedyStep(argv=["nsenter", "--net", "--target", OutputOf(command=["docker"]), "ip", "link", "del", "x"])
    file = RemedyStep(argv=["tee", "-a", "/etc/iproute2/rt_tables"], stdin="200 wlan0rt\n")
    told = []
    for steps in ([ip], [inside], [ip, file], [RemedyStep(argv=["docker", "network", "create"])]):
        bad = _bad("ROUTE-02", None)
        assert bad.diagnosis is not None
        bad.diagnosis.remedy_steps, bad.diagnosis.remedy = steps, ["a command"]
        told.append("Runtime only" in Page(render(_with(bad))).text("main"))
    assert told == [True, True, False, False]


def test_fix_and_rollback_are_in_one_box() -> None:
    box = next(text for a, text in sample_page("rule-missing").all("div") if a.get("class") == "remedy")
    assert "ip rule add priority 1000" in box
    assert "ip rule del priority 1000" in box


def test_a_note_has_a_label() -> None:
    outcome = healthy()
    outcome.targets[0].notes = ["the restore did not finish"]
    assert "Note: the restore did not finish" in Page(render(outcome)).text("main")


def test_several_notes_are_one_list() -> None:
    outcome = healthy()
    outcome.targets[0].notes = ["first", "second"]
    page = Page(render(outcome))
    assert [text for _, text in page.all("li") if text in ("first", "second")] == ["first", "second"]
    assert "Note:" not in page.text("main")


def test_a_fix_of_several_lines_has_the_whole_width() -> None:
    outcome = rule_missing()
    failed = next(result for result in outcome.results if result.check == "ROUTE-02")
    assert failed.diagnosis is not None
    failed.diagnosis.remedy = ["patch /etc/network/interfaces <<'EOF'\n+    mtu 1400\nEOF"]
    boxes = [attributes["class"] for attributes, _ in Page(render(outcome)).all("div") if "class" in attributes]
    assert [name for name in boxes if name.startswith("remedy")][0:1] == ["remedy of-lines"]


def test_an_interrupted_run_says_so() -> None:
    assert "interrupted by SIGINT" in sample_page("interrupted").text("header")


def test_names_from_outside_are_shown_and_not_obeyed() -> None:
    page = sample_page("hostile")
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert "evil" not in "".join(text for _, text in page.all("b"))
    assert "<b>\u2039U+001B\u203a[2J\u2039U+202E\u203aevil\u2039U+0007\u203a" in page.text("main")
    assert "{{ 7 * 7 }}" in page.text("main")
    assert "javascript:" not in "".join(a.get("href", "") for _, a in page.elements)
    assert [c for c in page.source if not c.isprintable() and c not in "\n\t"] == []


@pytest.mark.parametrize("name", ["\x1b[31m", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff", "\x7f", "\xad", "\ud800"])
def test_what_cannot_be_seen_is_made_visible(name: str) -> None:
    shown = escape_unprintable(f"eth{name}0")
    assert shown.isprintable()
    assert f"U+{ord(name[0]):04X}" in shown


def test_ordinary_text_of_any_script_stays_as_it_is() -> None:
    assert escape_unprintable("Zürich שלום 東京 → 9") == "Zürich שלום 東京 → 9"


def test_a_huge_host_makes_no_huge_page_and_says_what_is_left_out() -> None:
    page = sample_page("huge")
    assert len(page.source) < 3_000_000
    text = page.text("main")
    for told in (
        "Rules, IPv4 (10,003)",
        "9,803 rules left out here",
        "99,944 left out here",
        "sightings left out here",
    ):
        assert told in text, told
    assert "priority 32766 from all lookup main" in text, "the rules asked last are kept"
    assert "default via 10.10.40.1 dev eth0" in text, "default routes are kept"


def test_evidence_of_the_whole_page_is_capped() -> None:
    outcome = many()
    flood = packets_flood()
    for result in outcome.results:
        result.evidence = list(flood)
    source = render(outcome)
    assert len(source) < 12_000_000
    assert "of evidence left out here to keep the page small" in source


def packets_flood() -> list[PacketsEvidence]:
    one = egress("x")[0].evidence[0]
    assert isinstance(one, PacketsEvidence)
    return [one.model_copy(update={"sightings": one.sightings * 50})] * 20


def test_a_timeline_is_a_table_in_order() -> None:
    outcome = healthy()
    outcome.results.append(timeline("lab:policy-routing"))
    figure = next(text for a, text in Page(render(outcome)).all("figure") if a.get("class") == "timeline")
    assert figure.index("set down") < figure.index("probe 2 left by eth0") < figure.index("set up")


def _luminance(colour: str) -> float:
    channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", range(3), ids=["light", "dark", "print"])
def test_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    style = sample_page("healthy").text("style")
    block = re.findall(r":root \{(.*?)\}", style, re.S)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    behind = [name for name in colours if name in ("paper", "sheet", "sunk") or name.endswith("-wash")]
    inks = [name for name in colours if name not in behind and name != "rule"]
    weak = {(ink, back) for ink in inks for back in behind if _contrast(colours[ink], colours[back]) < 4.5}
    assert not weak, "below 4.5:1 (WCAG 2.2, 1.4.3)"


def _outcome(verdict: Verdict, uplinks: list[str], **more: str) -> str:
    """The sentence for EGRESS-01 with one protocol on each of three uplinks."""
    outcome = healthy()
    target = outcome.targets[0]
    results = [result for result in outcome.results if result.check != "EGRESS-01"]
    for result, uplink in zip(egress(target.id, verdict=verdict), uplinks, strict=True):
        evidence = next(iter(egress(target.id, uplink or "wlan0"))).evidence[0]
        assert isinstance(evidence, PacketsEvidence)
        result.evidence = [evidence if uplink else evidence.model_copy(update={"sightings": [], "answered": 0})]
        results.append(result.model_copy(update=more))
    return verdict_sentence(target, results).text


@pytest.mark.parametrize(
    ("uplinks", "told"),
    [
        (["eth0"] * 3, "leave by eth0 instead of wlan0: 9 of 9 probes seen on eth0, none on wlan0."),
        (
            ["wlan0", "eth0", "wlan0"],
            "Not all of the agent's packets leave by wlan0: 6 of 9 probes seen there, 3 on eth0 (udp).",
        ),
        ([""] * 3, "leave by no uplink: none of 9 probes was seen on eth0 or wlan0."),
        (["wlan0", "", "wlan0"], "Only 6 of 9 probes were seen leaving by wlan0, and none elsewhere."),
    ],
)
def test_a_wrong_way_is_told_as_it_was_seen(uplinks: list[str], told: str) -> None:
    assert told in _outcome(Verdict.FAIL, uplinks)


def test_what_could_not_be_proven_is_not_called_proven() -> None:
    told = _outcome(Verdict.INCONCLUSIVE, ["wlan0"] * 3, observed="no fence was seen on eth0")
    assert told.startswith("Not proven that the agent's packets leave by wlan0: no fence was seen on eth0.")
    assert "proven by" not in told


def test_a_passed_way_does_not_hide_other_failures() -> None:
    outcome = healthy()
    for result in outcome.results:
        if result.check in ("PERSIST-01", "PERSIST-02"):
            result.verdict = Verdict.FAIL
    text = verdict_sentence(outcome.targets[0], outcome.results).text
    assert text == (
        "Uses wlan0 now (proven by 9 of 9 probes, none elsewhere, 0 frames lost), "
        "but will not survive a reboot (PERSIST-01, PERSIST-02)."
    )


def test_without_packets_the_kernel_is_called_as_witness_only() -> None:
    outcome = healthy()
    outcome.results = [result for result in outcome.results if result.check != "EGRESS-01"]
    text = verdict_sentence(outcome.targets[0], outcome.results).text
    assert text.startswith("Egress by wlan0 was not tested")
    assert "The routing decision: table 200" in text


def test_a_probe_seen_twice_counts_once() -> None:
    outcome = healthy()
    evidence = next(r for r in outcome.results if r.check == "EGRESS-01").evidence[0]
    assert isinstance(evidence, PacketsEvidence)
    evidence.sightings *= 2
    assert egress_summary(outcome.targets[0], outcome.results).on_intended == 9


def _bad(check: str, reported_by: str | None, target: str = "t", code: str = "RULE_MISSING") -> CheckResult:
    diagnosis = Diagnosis(code=code, cause=f"{code} is so", reported_by=reported_by)
    return CheckResult(check=check, target=target, title="", verdict=Verdict.FAIL, diagnosis=diagnosis)


def _with(*results: CheckResult) -> RunResult:
    return healthy().model_copy(update={"results": list(results)})


def test_a_chain_of_tellers_ends_at_the_root() -> None:
    found = reported_causes(
        _with(_bad("EGRESS-01", "ROUTE-05"), _bad("ROUTE-05", "ROUTE-02"), _bad("ROUTE-02", None)), Verdict.FAIL
    )
    assert [(cause.checks, cause.also_affects) for cause in found] == [("ROUTE-02", ["ROUTE-05", "EGRESS-01"])]


@pytest.mark.parametrize("reported_by", ["ROUTE-02", "EGRESS-01"])
def test_a_bad_check_is_never_lost_when_its_teller_is_absent(reported_by: str) -> None:
    assert [cause.checks for cause in reported_causes(_with(_bad("EGRESS-01", reported_by)), Verdict.FAIL)] == [
        "EGRESS-01"
    ]


def test_a_ring_of_tellers_loses_no_check() -> None:
    found = reported_causes(_with(_bad("ROUTE-02", "ROUTE-05"), _bad("ROUTE-05", "ROUTE-02")), Verdict.FAIL)
    assert found[0].checks == "ROUTE-02, ROUTE-05"


def test_one_cause_on_two_targets_is_told_once() -> None:
    found = reported_causes(_with(_bad("ROUTE-02", None, "a"), _bad("ROUTE-02", None, "b")), Verdict.FAIL)
    assert [cause.targets for cause in found] == [["a", "b"]]


def test_what_moves_the_packets_is_to_be_mended_first() -> None:
    results = [_bad("HOST-04", None, code="FORWARDING_OFF"), _bad("ROUTE-02", None), _bad("EGRESS-01", "ROUTE-02")]
    assert [cause.code for cause in reported_causes(_with(*results), Verdict.FAIL)] == [
        "RULE_MISSING",
        "FORWARDING_OFF",
    ]


def test_ids_in_a_row_are_drawn_together() -> None:
    ids = ["FLAP-03", "FLAP-01", "FLAP-02", "EGRESS-01", "FLAP-08", "EGRESS-02"]
    assert ids_shortened(ids) == "EGRESS-01, EGRESS-02, FLAP-01 to FLAP-03, FLAP-08"


@pytest.mark.parametrize("recorded", sorted(RECORDED.glob("result-*.json")), ids=lambda path: path.stem)
def test_recorded_results_are_still_read_and_rendered(recorded: Path) -> None:
    outcome = read_outcome(recorded)
    assert verdict_sentence(outcome.targets[0], outcome.results).text in Page(render(outcome)).text("h1")


def test_a_run_is_written_whole_and_read_again(tmp_path: Path) -> None:
    report = write_outcome(rule_missing(), tmp_path / "run")
    assert sorted(path.name for path in report.parent.iterdir()) == ["junit.xml", "report.html", "result.json"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["schema"] == "viacheck.result/1"
    assert read_outcome(tmp_path / "run" / "result.json") == rule_missing()


def test_latest_points_to_the_last_run_and_takes_nothing_away(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        link_latest(tmp_path / name)
    assert (tmp_path / "latest").readlink() == Path("two")
    other = tmp_path / "other"
    (other / "latest").mkdir(parents=True)
    assert link_latest(other / "run") is None
    assert (other / "latest").is_dir()


@pytest.mark.parametrize("text", ["", "{", '{"schema": "viacheck.result/2"}', "[]"])
def test_a_file_that_is_no_result_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ResultUnreadable, match=r"result\.json: not a result of viacheck\.result/1: .+") as raised:
        read_outcome(path)
    assert "\n" not in str(raised.value)


def test_a_saved_result_is_rendered_again(tmp_path: Path) -> None:
    done = sub_command("report", RECORDED / "result-rule-missing.json", "-o", tmp_path / "again.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert "eth0 instead of wlan0" in done.stdout
    assert "eth0 instead of wlan0" in Page((tmp_path / "again.html").read_text()).text("h1")


def test_a_missing_result_is_a_usage_error() -> None:
    done = sub_command("report", "no-such.json")
    assert done.returncode == 4
    assert done.stderr == "viacheck report: no-such.json: cannot be read: No such file or directory\n"


def test_a_snapshot_of_another_version_is_shown_as_it_is() -> None:
    outcome = healthy()
    saved = snapshot()
    saved["host"]["rules"][1] = {"family": 4, "invented": HOSTILE}
    outcome.targets[0].snapshot = saved
    assert "invented" in Page(render(outcome)).text("main")


def test_an_empty_snapshot_is_no_obstacle() -> None:
    outcome = healthy()
    outcome.targets[0].snapshot = {}
    assert "Host facts" not in render(outcome)
