"""Why checks fail: every cause that this tool knows, found in a situation, with what mends it and what undoes the mend.

Each module holds the causes of one chapter of checks. A cause is told by one check; other checks that fail only because
of it point there. The codes are a contract (docs/diagnoses.md lists them).
"""

from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.priority import causes, diagnose

__all__ = ["Cause", "causes", "diagnose"]
