"""Locate viacheck's own files: in a checkout, or inside an installed package with the same folders.

``checks/``, ``fixtures/``, ``netns_lab/`` and ``reports/`` are at the top of a checkout. A wheel carries them below
``viacheck/tree``, because other packages on PyPI have those names. Both run the same files, found through :data:`ROOT`.
"""

from __future__ import annotations

import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_BUNDLED = _PACKAGE / "tree"

IS_CHECKOUT = not _BUNDLED.is_dir()
ROOT = _PACKAGE.parent.parent if IS_CHECKOUT else _BUNDLED
"""The folder of ``checks``, ``fixtures``, ``netns_lab``, ``reports``, ``conftest.py`` and ``pyproject.toml``."""
CHECKS = ROOT / "checks"


def reports_folder() -> Path:
    """Return the folder in which each run without ``--report-dir`` makes its own folder."""
    return ROOT / "reports" / "out" if IS_CHECKOUT else Path.cwd() / "viacheck-reports"


def add_to_import_path() -> None:
    """Make the folders below :data:`ROOT` importable, before others of the same name."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
