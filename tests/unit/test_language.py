"""The product's code and texts use the field's terms and plain English: words that are banned stay away.

A small list, not a style guide: names that this code once had for things that have a standard term, and phrases that a
reader who has not learnt them cannot understand.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.paths import ROOT

CODE = ("src", "fixtures", "netns_lab", "reports", "checks", "tests")
TEXTS = ("README.md", "CONTRIBUTING.md", "viacheck", "docs/*.md", "src/**/*.sh", "reports/templates/*.html", ".ci/run")
NAMES = re.compile(
    r"one|found|told|fates?|fortunes?|journeys?|hands|LabHands|lessor|Lessor|trials?|Trials?|TrialRun|ground|Ground|Stage"
    r"|Situation|situation|Journeys|Fate|Fortune|Course|Flight|KernelNews|kernel_news|way_state|ways_out|own_words|heed"
    r"|OwnWord|Holding|Mending|Mend|mends|rehearse\w*|twins?|Twin\w*|NoTwin|SILENT_FOR_EVER|AWAY|look_again|close_apart"
    r"|process_space|ProcessSpace|faithfulness|in_words|visible|told_words|explains|Measured|RunRecord|Recogniser"
)
"""Identifiers. ``told_by``, ``mend`` and ``twin`` stay where a contract has them."""
ALLOWED_NAMES = {"twin"}
"""The option ``--twin`` keeps its name."""
PHRASES = re.compile(
    r"\bfor ever\b|\banew\b|\bnobody\b|\bsomebody\b|\bwhoever\b|\btold\b|\btells?\b|\bin words\b|\bis none\b"
    r"|\bare none\b|\bby hand and meant so\b|\bwhat is not meant\b|\bmade to be\b|\bblackened\b|\brehears\w+\b"
    r"|(?<!-)\bmends?\b|\bmended\b|\bfinds back\b|\bit is said\b|\bwords? of\b|\bfare[sd]?\b|\bteller\b",
    re.IGNORECASE,
)
"""Phrases in docstrings, comments, messages and documentation."""
EXEMPT = {"tests/unit/test_language.py"}


def code_files() -> Iterator[Path]:
    for top in CODE:
        yield from sorted((ROOT / top).rglob("*.py"))


def test_identifiers_are_the_fields_terms() -> None:
    wrong = []
    for path in code_files():
        place = str(path.relative_to(ROOT))
        if place in EXEMPT or place.startswith("tests/"):
            continue
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type == tokenize.NAME and NAMES.fullmatch(token.string) and token.string not in ALLOWED_NAMES:
                wrong.append(f"{place}:{token.start[0]}: {token.string}")
    assert not wrong, f"{len(wrong)} names:\n" + "\n".join(wrong)


def test_texts_are_plain_english() -> None:
    wrong = []
    for path in code_files():
        place = str(path.relative_to(ROOT))
        if place in EXEMPT or place.startswith("tests/"):
            continue
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT):
                wrong += [f"{place}:{token.start[0]}: {match[0]}" for match in PHRASES.finditer(token.string)]
    for pattern in TEXTS:
        for path in sorted(ROOT.glob(pattern)):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                wrong += [f"{path.relative_to(ROOT)}:{number}: {match[0]}" for match in PHRASES.finditer(line)]
    assert not wrong, f"{len(wrong)} phrases:\n" + "\n".join(wrong)
