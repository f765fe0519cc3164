"""``python -m viacheck`` is the ``viacheck`` command."""

from __future__ import annotations

import sys

from viacheck.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
