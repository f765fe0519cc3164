"""``python -m viacheck`` is the ``viacheck`` command, and the installed command starts here."""

from __future__ import annotations

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # As in viacheck.cli.main: the imports below take longer than a person who mistyped a command.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from viacheck.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
