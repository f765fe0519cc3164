"""Runs a command at a terminal of its own, as a person would, and types a key."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import termios
import time
from fcntl import ioctl


def at_a_terminal(
    argv: list[str], prompt: str = "", key: str = "", *, after: float = 0.0, columns: int = 100
) -> tuple[int, str]:
    """Run a command, and type a key once a prompt is written; return its exit status and all that it wrote.

    With ``after`` the key is typed so many seconds after the prompt, and without a prompt after the start.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    # The process of a new session makes its standard input its controlling terminal.
    argv = ["setsid", "--ctty", "--wait", *argv]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written, typed = b"", not key
    try:
        while True:
            if not typed and prompt.encode() in written:
                time.sleep(after)
                os.write(ours, key.encode())
                typed = True
            text = os.read(ours, 1 << 16)
            if not text:
                break
            written += text
    except OSError:
        # EIO: the last process at the terminal has ended.
        pass
    finally:
        os.close(ours)
    return process.wait(60), written.decode()
