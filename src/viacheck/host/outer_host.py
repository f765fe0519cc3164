"""The host around viacheck's own container: its namespaces are those of process 1, which ``--pid host`` shows.

Every file of the host and every program that reports about it is read in process 1's mount namespace, by the worker
thread of :class:`viacheck.host.namespace.Namespace`. The container's own files serve Python alone. Outside of a
container, and in a container that has not the variable of the image, this module changes nothing.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from pathlib import Path

from viacheck.host.capabilities import lacking_capabilities
from viacheck.model.exit_status import UsageError

VARIABLE = "VIACHECK_CONTAINER"
"""The Dockerfile sets it. A container without it may be a host itself: Docker in Docker, LXC, a CI job."""
CAPABILITIES = {
    12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 18: "CAP_SYS_CHROOT", 19: "CAP_SYS_PTRACE", 21: "CAP_SYS_ADMIN",
}  # fmt: skip
"""setns(2) into a mount namespace needs the three of SYS, and the links of /proc/1/ns the ptrace access."""
OPTIONS = (
    "--rm", "--net", "host", "--pid", "host",
    *(word for name in CAPABILITIES.values() for word in ("--cap-add", name.removeprefix("CAP_"))),
    "--security-opt", "apparmor=unconfined", "--security-opt", "seccomp=unconfined",
)  # fmt: skip
"""Of ``docker run``. Older profiles of seccomp lack the calls that the lab of PERSIST-02 needs."""
ROOT = "/proc/1/root"
_PROFILE = "/proc/self/attr/current"
_OF_THE_HOST = (("net", "network", "--net host"), ("user", "users", "--userns host"))


def in_container() -> bool:
    """Return whether this process runs in viacheck's container, and judges the host around it."""
    return os.environ.get(VARIABLE) == "1"


@functools.cache
def mounts() -> int | None:
    """Return a descriptor of the host's mount namespace; None outside of the container.

    Raises:
        OSError: when this process may not open it.
    """
    return os.open("/proc/1/ns/mnt", os.O_RDONLY | os.O_CLOEXEC) if in_container() else None


def require_access(*files: Path) -> None:
    """Refuse a run in the container that could not see the host, before it judges anything.

    Args:
        files: the files of the command line that must be there.

    Raises:
        UsageError: what is missing, in a line, and the line that starts the container with it.
    """
    if not in_container():
        return
    missing = _missing()
    missing += [f"{file}, which is not in the container (-v, -w)" for file in files if not file.exists()]
    if missing:
        line = f'docker run {shlex.join(OPTIONS)} -v "$PWD:$PWD" -w "$PWD" viacheck {shlex.join(sys.argv[1:])}'
        raise UsageError(f"this container cannot judge its host: it lacks {'; '.join(missing)}", f"run: {line}")


def engine_address(address: str) -> str:
    """Return the address at which a process in the container reaches an engine whose socket is the host's."""
    path = address.removeprefix("unix://")
    if path == address or not in_container():
        return address
    # The link /var/run is followed from the container's own root.
    return f"unix://{ROOT}{path.removeprefix('/var') if path.startswith('/var/run/') else path}"


def _missing() -> list[str]:
    missing = [f"{name} (--cap-add {name.removeprefix('CAP_')})" for name in lacking_capabilities(CAPABILITIES)]
    try:
        if _shared("mnt"):
            missing.append("the host's processes (--pid host)")
        else:
            missing += [f"the host's {what} ({option})" for kind, what, option in _OF_THE_HOST if not _shared(kind)]
    except PermissionError:
        # Without CAP_SYS_PTRACE the reason is named already.
        if not missing:
            profile = Path(_PROFILE).read_text().strip("\n\0") if os.path.exists(_PROFILE) else ""
            missing.append(
                f"access to the host's processes, which the profile {profile!r} forbids "
                "(--security-opt apparmor=unconfined)"
            )
    return missing


def _shared(kind: str) -> bool:
    """Return whether this process is in a namespace of process 1 (namespaces(7))."""
    return os.path.samestat(os.stat(f"/proc/1/ns/{kind}"), os.stat(f"/proc/self/ns/{kind}"))
