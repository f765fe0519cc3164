"""The requirements of a whole host on this machine: root, a cgroup hierarchy of version 2, and mmdebstrap once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from netns_lab import cgroups
from netns_lab.docker_engine.requirements import ALL_USER_IDS
from netns_lab.whole_host.base_root import TOOL, BaseRoot, BaseRootFailed


def base_root(release: str, progress: Callable[[str], object]) -> BaseRoot:
    """Return the base root of a release, built if it is missing.

    Args:
        release: Debian's name of it.
        progress: called with a line before a wait of about a minute.

    Raises:
        BaseRootFailed: something is missing on this machine, or the root cannot be built.
    """
    base = BaseRoot(release)
    if (reason := missing_for(base)) is not None:
        raise BaseRootFailed(reason)
    base.build(progress)
    return base


def missing_for(base: BaseRoot) -> str | None:
    """Return why no whole host of a release can run here, in one line with the remedy, or None when it can."""
    if os.geteuid() != 0:
        return "a whole host needs root: it mounts file systems and makes cgroups"
    if Path("/proc/self/uid_map").read_text().split() != ALL_USER_IDS:
        return "a whole host needs the machine's root; this is root of a user namespace only"
    place = cgroups.unified_hierarchy()
    if place is None:
        return f"a whole host needs cgroups of version 2: none are mounted below {cgroups.MOUNT_POINT}"
    if not os.access(place, os.W_OK):
        return f"a whole host needs cgroups that can be written: {place} is read-only"
    if not base.built and shutil.which(TOOL) is None:
        return (
            f"a whole host needs the base root of {base.release}, and the package that builds it is not installed: "
            f"apt-get install {TOOL}"
        )
    return None
