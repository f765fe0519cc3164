"""Why checks fail: the causes that this tool knows, each with its remedy and the rollback of the remedy.

Each module holds the causes of one chapter of checks. One check reports a cause; the other checks that it affects point
to that check. The codes are a contract (docs/diagnoses.md lists them).
"""

from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.priority import causes, diagnose

__all__ = ["Cause", "causes", "diagnose"]
