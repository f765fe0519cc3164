"""The waivers of a site file (``[[waive]]``): which results they accept, and which of them have ended."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

from viacheck.model.intent import Intent, Waive
from viacheck.model.result import CheckResult, Verdict, Waiver

WAIVABLE = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ADVISORY)


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
    for waive in TypeAdapter(list[Waive]).validate_python(intent.get("waive", [])):
        if waive.until < today:
            yield f"the waiver of {waive.check or waive.diagnosis} ended on {waive.until.isoformat()}; it counts again"
