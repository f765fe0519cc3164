"""The waivers of a site file (``[[waive]]``): which results they accept, and which of them have ended."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from viacheck.model.chapters import CHAPTERS, chapter
from viacheck.model.diagnosis_codes import CODES
from viacheck.model.intent import Intent, Waive
from viacheck.model.intent_rules import SiteDocument
from viacheck.model.intent_values import CheckId, DiagnosisCode
from viacheck.model.known_checks import CHECK_IDS
from viacheck.model.result import CheckResult, Waiver
from viacheck.model.toml_text import shown
from viacheck.model.verdict import Verdict

WAIVABLE = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ADVISORY)


@cache
def _waivers_adapter() -> TypeAdapter[list[Waive]]:
    return TypeAdapter(list[Waive])


def waiver_of(result: CheckResult, intent: Intent, today: datetime.date) -> Waiver | None:
    """Return the waiver that accepts a result today; None when the result is good, or no waiver names it."""
    if result.verdict not in WAIVABLE:
        return None
    code = result.diagnosis.code if result.diagnosis is not None else None
    for waive in intent.waive:
        if today <= waive.until and (waive.check == result.check or (code is not None and waive.diagnosis == code)):
            return Waiver(reason=waive.reason, until=waive.until)
    return None


def ended_waivers(intent: Mapping[str, Any], today: datetime.date) -> Iterable[str]:
    """Yield a line for each waiver of a saved intent that has ended: what it accepted counts again."""
    for waive in _waivers_adapter().validate_python(intent.get("waive", [])):
        if waive.until < today:
            yield f"the waiver of {waive.check or waive.diagnosis} ended on {waive.until.isoformat()}; it counts again"


def unknown_waivers(document: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each waiver of a site file that names no check, or no diagnosis.

    A check of the user's own is marked by ``own``, and has another chapter than viacheck's. Only files that a person
    writes are asked: the intent of a saved result may come from a newer release, with checks of its own.
    """
    for number, waiver in enumerate(SiteDocument(document).valid(list[dict[str, Any]], "waive") or [], 1):
        entry = SiteDocument(waiver)
        check, code = entry.valid(CheckId, "check"), entry.valid(DiagnosisCode, "diagnosis")
        own = entry.valid(bool, "own") is True and check is not None and chapter(check) not in CHAPTERS
        if check is not None and not own and check not in CHECK_IDS:
            near = _near(check, CHECK_IDS)
            of_yours = "" if near or chapter(check) in CHAPTERS else "; a check of your own also takes 'own = true'"
            yield f"waive[{number}].check: found {shown(check)}; no check has this id{near}{of_yours}"
        if code is not None and code not in CODES:
            yield f"waive[{number}].diagnosis: found {shown(code)}; no diagnosis has this code{_near(code, CODES)}"


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""
