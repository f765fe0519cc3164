"""The program that a guest runs: viacheck in one file, unpacked and compiled here, as an emulated processor is slow."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from netns_lab.virtual_machine.guest_root import GuestRoot
from viacheck.host.pid_sandbox import PATH

START = Path(__file__).with_name("start.sh")
SHARE_IN_GUEST = "/mnt"
_UNPACK = (
    'mount --bind "$1" "$2$3" && exec chroot "$2" env -i PATH="$4" HOME="$3" XDG_CACHE_HOME="$3" sh "$3/$5" --help'
)


def unpack_program(root: GuestRoot, share: Path, program: str) -> str:
    """Unpack the program into a guest's shared folder; return the path of its Python in the guest.

    The root's own Python unpacks and compiles it, in a mount namespace in which the folder is a part of the root:
    nothing is written to the root itself.

    Args:
        root: the root of the guest.
        share: the folder, which holds the program.
        program: the file's name in it.

    Raises:
        OSError: a file cannot be written.
        subprocess.CalledProcessError: the program cannot be unpacked.
    """
    subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _UNPACK, "sh",
         str(share), str(root.path), SHARE_IN_GUEST, PATH, program],
        check=True, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    (unpacked,) = (share / "viacheck").iterdir()
    return f"{SHARE_IN_GUEST}/viacheck/{unpacked.name}/bin/python"


def write_command(share: Path, argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Write what a guest runs into its shared folder.

    Args:
        share: the folder.
        argv: the command, by paths of the guest.
        environment: variables of the guest's shell and of the command; ``REPORT`` is where the report's folder is.

    Raises:
        OSError: a file cannot be written.
    """
    shutil.copy(START, share / "start")
    (share / "command").write_text(shlex.join(argv) + "\n")
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
    (share / "environment").write_text("".join(lines))
