"""The image of a CI job: Debian with what the job of docs/ci.md installs, made of the base root of whole hosts.

The registry's ``debian:13`` cannot be pulled without a network. This has the same programs that the job uses: a shell,
coreutils, Python and iproute2.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from netns_lab.whole_host.base_root import DEFAULT_RELEASE

if TYPE_CHECKING:
    from docker import DockerClient

RELEASE_OF_PYTHON = {11: "bookworm", 13: "trixie", 14: "forky"}
"""The release by the minor version of its Python."""
SYSTEM = Path("/usr")
_PROGRAMS = (
    "sh", "dash", "env", "basename", "cat", "chmod", "cksum", "cp", "dirname", "find", "grep", "id", "ls", "mkdir",
    "mount", "readlink", "rm", "sed", "uname", "unshare",
)  # fmt: skip
_KEPT = (
    "bin", "sbin", "lib", "lib64", *(f"usr/bin/{program}" for program in _PROGRAMS), "usr/bin/ip", "usr/sbin/ip",
    "usr/sbin/sysctl", "usr/bin/python3*", "usr/lib/python3*", "usr/lib64", f"usr/lib/{platform.machine()}-linux-gnu",
    "etc/iproute2", "etc/ld.so*", "etc/passwd", "etc/group", "etc/debian_version", "run", "tmp", "var/cache",
)  # fmt: skip

_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""In the order of their numbers (capabilities(7))."""


def release_for_this_python() -> str:
    """Return the release whose image can run this machine's virtual environment."""
    if Path(sys.base_prefix) != SYSTEM:
        return DEFAULT_RELEASE
    return RELEASE_OF_PYTHON.get(sys.version_info.minor, DEFAULT_RELEASE)


def interpreter_mounts() -> list[str]:
    """Return the options of ``docker run`` that bring a Python that is not Debian's own into the container."""
    return [] if Path(sys.base_prefix) == SYSTEM else ["-v", f"{sys.base_prefix}:{sys.base_prefix}:ro"]


def privileged() -> str:
    """Return the options of ``docker run`` that stand for ``--privileged``.

    Docker refuses ``--privileged`` where root itself lacks a capability, as in a container or a small virtual machine:
    then they are all that there are.
    """
    with open("/proc/self/status") as file:
        bounding = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    missing = [name for number, name in enumerate(_CAPABILITIES) if not bounding >> number & 1]
    if not missing:
        return "--privileged"
    unconfined = " ".join(f"--security-opt {name}=unconfined" for name in ("apparmor", "seccomp", "systempaths"))
    return " ".join(["--cap-add ALL", *(f"--cap-drop {name}" for name in missing), unconfined])


def import_ci_image(client: DockerClient, root: Path, name: str) -> None:
    """Import the image under a name (docker import)."""
    paths = [str(path.relative_to(root)) for pattern in _KEPT for path in sorted(root.glob(pattern))]
    archive = subprocess.run(["tar", "--create", "--directory", root, *paths], check=True, capture_output=True).stdout
    repository, _, tag = name.partition(":")
    client.api.import_image_from_data(archive, repository=repository, tag=tag)
