"""A Debian slim with Python for a lab's engine: part of the base root that mmdebstrap made for whole hosts.

It has Python, a shell and their libraries, and no program of a network manager or of iproute2: what a container made of
it reports about a host cannot come from its own files.
"""

from __future__ import annotations

import io
import os
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.paths import ROOT

if TYPE_CHECKING:
    from docker import DockerClient

BASE = "debian-python:lab"
IMAGE = "viacheck:latest"
_KEPT = (
    "bin", "lib", "lib64", "usr/bin/sh", "usr/bin/dash", "usr/bin/python3*", "usr/lib/python3*", "usr/lib64",
    f"usr/lib/{platform.machine()}-linux-gnu", "etc/ld.so.conf*", "etc/ld.so.cache", "tmp", "var/cache",
)  # fmt: skip


def import_base(client: DockerClient, root: Path) -> None:
    """Import part of a base root as an image (docker import)."""
    paths = [str(path.relative_to(root)) for pattern in _KEPT for path in sorted(root.glob(pattern))]
    archive = subprocess.run(["tar", "--create", "--directory", root, *paths], check=True, capture_output=True).stdout
    repository, _, tag = BASE.partition(":")
    client.api.import_image_from_data(archive, repository=repository, tag=tag)


def build_image(client: DockerClient, packed: Path) -> None:
    """Build the image from the Dockerfile and the one file, without a network (docker build)."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        tar.add(ROOT / "Dockerfile", "Dockerfile")
        tar.add(packed, "viacheck.pyz")
    context.seek(0, os.SEEK_SET)
    client.images.build(
        fileobj=context, custom_context=True, buildargs={"BASE": BASE}, network_mode="none", tag=IMAGE, rm=True
    )
