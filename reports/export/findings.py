"""The results that code scanners list: what fails, is not proven or is at risk, with its place in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from reports.text import escape_unprintable, one_line, reason, sentence
from viacheck.model.check_evidence import FileEvidence
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

LISTED = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ADVISORY)
SITE_FILE = "site.toml"
"""The place of a finding without a file: the site file says what must be true."""


@dataclass(frozen=True, slots=True)
class ScanFinding:
    """A result as an entry in a list of problems."""

    result: CheckResult
    path: str
    """A path from the host's root without a leading slash: code scanners take relative paths alone."""
    line: int
    on_host: bool
    """Whether the path is a file of the judged host."""

    @property
    def title(self) -> str:
        """The check and its diagnosis: ``ROUTE-02: RULE_MISSING``."""
        name = f"{self.result.check} ({self.result.case})" if self.result.case else self.result.check
        return one_line(f"{name}: {self.result.diagnosis.code}" if self.result.diagnosis else name)

    @property
    def text(self) -> str:
        """The target, the observation, the cause and the commands, a line for each; a patch has its own lines."""
        lines = [f"{self.result.target}: {self.result.title}", reason(self.result)]
        diagnosis = self.result.diagnosis
        if diagnosis is not None and diagnosis.cause.strip() not in lines:
            lines.append(sentence(diagnosis.cause))
        if diagnosis is not None:
            lines += [f"first: {need}" for need in diagnosis.needs]
        texts = [one_line(line) for line in lines]
        if diagnosis is not None:
            # A command of several lines, such as a patch, works only as it is.
            texts += [escape_unprintable(f"fix: {command}", keep="\n\t") for command in diagnosis.remedy]
        if self.result.waiver is not None:
            texts.append(one_line(self.result.waiver.text))
        return "\n".join(texts)

    @property
    def fingerprint(self) -> str:
        """A digest that stays the same from run to run while the finding does."""
        result = self.result
        code = result.diagnosis.code if result.diagnosis is not None else ""
        parts = "\0".join((result.target, result.check, result.case or "", code, self.path))
        return hashlib.sha256(parts.encode(errors="backslashreplace")).hexdigest()


def scan_findings(outcome: RunResult) -> Iterator[ScanFinding]:
    """Yield the findings of a run, waived ones among them."""
    for result in outcome.results:
        if result.verdict not in LISTED:
            continue
        files = [evidence for evidence in result.evidence if isinstance(evidence, FileEvidence)]
        if not files:
            yield ScanFinding(result, SITE_FILE, 1, on_host=False)
        else:
            # The evidence of the cause follows that of the check, which may be lines that are right.
            file = files[-1]
            yield ScanFinding(result, file.path.lstrip("/") or SITE_FILE, max(file.line or 1, 1), on_host=True)
