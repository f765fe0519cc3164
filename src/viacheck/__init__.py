"""Verify which way the packets of a containerised network agent take, now and after a flap or a reboot.

A person's own checks start with ``from viacheck import check``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fixtures.check import check

__all__ = ["__version__", "check"]
__version__ = "0.3.0"


def __getattr__(name: str) -> Any:
    """Import the decorator `check` when it is used; most commands never use it."""
    if name != "check":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from viacheck.installation import add_to_import_path

    add_to_import_path()
    from fixtures.check import check

    return check
