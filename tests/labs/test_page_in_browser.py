"""The page in Debian's Chromium: accessible by axe-core, short until opened, whole on a phone and in print."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from reports.fleet_page import render_fleet
from reports.fleet_report import summarise
from reports.report_page import render
from tests.helpers.sample_outcomes import healthy, many, mixed, rule_missing, timeline
from viacheck.model.result import RunResult

pytest.importorskip("playwright", reason="playwright has no wheel for this machine")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the Debian package chromium is not installed")

DESKTOP, PHONE = (1280, 900), (390, 844)
Scheme = Literal["light", "dark"]
SCREENS = 3
"""Screens of a desktop that a page takes at most before anything is opened."""
OPEN_ALL = "document.querySelectorAll('details').forEach(details => { details.open = true; })"
NO_SHADOWS = ".scroll { background: none !important; }"
"""axe-core judges the contrast of no text that has a gradient behind it, and the shadows at the edges are gradients."""


def with_everything() -> RunResult:
    """A run that failed, with a timeline and a note: every kind of element that a page of one target has."""
    outcome = rule_missing()
    target = outcome.targets[0]
    outcome.results.append(timeline(target.id))
    target.notes = ["something changed meanwhile"]
    return outcome


def without_details(outcome: RunResult) -> RunResult:
    """The same run without evidence and snapshots, as axe-core's cost grows with the page."""
    for result in outcome.results:
        result.evidence = [] if result.check != "EGRESS-01" else result.evidence
    for target in outcome.targets:
        target.snapshot = None
    return outcome


SAMPLES: dict[str, Callable[[], RunResult]] = {
    "healthy": healthy,
    "everything": with_everything,
    "mixed": lambda: without_details(mixed()),
    "eleven": lambda: without_details(many(11)),
}

FLEETS = {"fleet": 500, "small fleet": 4}
"""Pages of a fleet, by the number of hosts; what axe-core finds does not depend on it, and its cost does."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The address of each sample's page."""
    folder = tmp_path_factory.mktemp("pages")
    addresses = {}
    for name, sample in SAMPLES.items():
        path = Path(folder / f"{name}.html")
        path.write_text(render(sample()), encoding="utf-8")
        addresses[name] = path.as_uri()
    addresses |= {name: _fleet_page(folder, hosts).as_uri() for name, hosts in FLEETS.items()}
    return addresses


def _fleet_page(folder: Path, number: int) -> Path:
    """Write the page of a fleet of so many hosts, and return its path."""
    for name, sample in (("good", healthy), ("bad", rule_missing)):
        (folder / f"{name}.json").write_text(sample().model_dump_json(by_alias=True))
    hosts = summarise(folder, processes=1)
    many_hosts = [replace(hosts[n % 2], name=f"site-{n:03}.berlin.example.net") for n in range(number)]
    many_hosts[0] = replace(many_hosts[0], facts={**many_hosts[0].facts, "kernel": "5.10.0"})
    path = folder / f"fleet-{number}.html"
    path.write_text(render_fleet(many_hosts, datetime.now(UTC)), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Browser, written: dict[str, str]) -> Iterator[Callable[..., Page]]:
    """Open a sample's page in a window of a size."""
    contexts = []

    def _open(name: str, size: tuple[int, int] = DESKTOP, fragment: str = "") -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, bypass_csp=True)
        contexts.append(context)
        page = context.new_page()
        page.goto(written[name] + fragment)
        return page

    yield _open
    for context in contexts:
        context.close()


# Each size and each scheme is judged on both kinds of page; all combinations would cost twice as much.
@pytest.mark.parametrize(
    ("name", "script", "on_desktop", "on_phone"),
    [
        ("everything", OPEN_ALL, "light", "dark"),
        ("mixed", "", "dark", "light"),
        ("small fleet", OPEN_ALL, "light", "dark"),
        ("small fleet", "", "dark", "light"),
    ],
)
def test_axe_finds_no_violation(
    opened: Callable[..., Page], name: str, script: str, on_desktop: Scheme, on_phone: Scheme
) -> None:
    page = opened(name)
    page.add_style_tag(content=NO_SHADOWS)
    page.evaluate(script)
    for (width, height), scheme in ((DESKTOP, on_desktop), (PHONE, on_phone)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": height})
        found = Axe().run(page)
        assert found.violations_count == 0, f"at {width} px, {scheme}:\n{found.generate_report()}"


def test_axe_would_find_a_violation(opened: Callable[..., Page]) -> None:
    page = opened("healthy")
    page.evaluate("document.querySelector('nav').innerHTML = '<img src=x><a href=#run></a>'")
    found = {violation["id"] for violation in Axe().run(page, context="nav").response["violations"]}
    assert {"image-alt", "link-name"} <= found


@pytest.mark.parametrize("name", ["healthy", "everything", "eleven"])
def test_a_page_is_a_few_screens_before_anything_is_opened(opened: Callable[..., Page], name: str) -> None:
    height = opened(name).evaluate("document.documentElement.scrollHeight")
    assert height <= SCREENS * DESKTOP[1]


@pytest.mark.parametrize("name", [*SAMPLES, *FLEETS])
def test_nothing_is_wider_than_a_phone_and_commands_wrap(opened: Callable[..., Page], name: str) -> None:
    page = opened(name, PHONE)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    wide = "[...document.querySelectorAll('.commands')].filter(block => block.scrollWidth > block.clientWidth).length"
    assert page.evaluate(wide) == 0


def test_a_phone_shows_every_column_of_a_fleets_hosts(opened: Callable[..., Page]) -> None:
    box = "(box => box.scrollWidth - box.clientWidth)(document.querySelector('#hosts .scroll'))"
    page = opened("fleet", PHONE)
    assert page.evaluate(box) == 0
    assert page.locator("#hosts td", has_text="RULE_MISSING").first.is_visible()
    assert page.evaluate("document.scripts.length") == 0
    page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
    assert page.evaluate(box) == 0


def test_a_phone_gets_the_drawings_that_fit_it(opened: Callable[..., Page]) -> None:
    page = opened("everything")
    page.evaluate(OPEN_ALL)

    def shown(size: tuple[int, int]) -> list[str]:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        drawings = page.locator("svg.topology:visible, svg.flap:visible").all()
        return [str(drawing.get_attribute("class")).split()[1] for drawing in drawings]

    assert shown(DESKTOP) == ["lying", "wide"]
    assert shown(PHONE) == ["standing", "narrow"]


def test_the_matrix_shows_every_chapter_on_a_desktop(opened: Callable[..., Page]) -> None:
    box = "(box => [box.scrollWidth, box.clientWidth])(document.querySelector('#matrix .scroll'))"
    page = opened("mixed")
    needed, there = page.evaluate(box)
    assert needed <= there
    assert not page.locator(".cue").is_visible()
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert page.locator(".cue").is_visible(), "where it scrolls, a line says so"


def test_all_is_open_in_print(opened: Callable[..., Page]) -> None:
    page = opened("everything")
    hidden = (
        "[...document.querySelectorAll('details > :not(summary)')]"
        ".filter(element => !element.checkVisibility({contentVisibilityAuto: true})).length"
    )
    assert page.evaluate(hidden) > 0
    page.emulate_media(media="print")
    page.wait_for_function(f"{hidden} === 0")
    assert len(page.pdf(format="A4")) > 50_000


def test_a_link_opens_what_it_leads_to(opened: Callable[..., Page]) -> None:
    opened("everything", fragment="#t1-MACVLAN-03").locator("#t1-MACVLAN-03 .case").wait_for()
    page = opened("eleven")
    page.locator(".matrix a").last.click()
    page.locator(".case:visible").wait_for()


def test_a_click_selects_the_commands_as_they_are_typed(opened: Callable[..., Page]) -> None:
    page = opened("everything", PHONE)
    page.locator("#fix-1 .commands").first.click()
    results = (result for result in rule_missing().results if result.check == "ROUTE-02")
    remedy = next(result.diagnosis.remedy for result in results if result.diagnosis)
    assert page.evaluate("getSelection().toString()").splitlines() == remedy


def test_a_keyboard_opens_a_check(opened: Callable[..., Page]) -> None:
    page = opened("healthy")
    line = page.locator("summary", has_text="EGRESS-01").first
    for _ in range(200):
        page.keyboard.press("Tab")
        if line.evaluate("line => line === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.locator("#t1-EGRESS-01 .case").first.wait_for()
