"""Builds viacheck.pyz: this version of viacheck with its libraries in one file.

Wheels for several Pythons and processors are merged into one folder: the ABI is in the names of their libraries. The
same inputs give the same bytes: entries are sorted, and their times and permissions are fixed.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from itertools import repeat
from pathlib import Path

from viacheck import __version__
from viacheck.fleet import unpack
from viacheck.installation import IS_CHECKOUT, ROOT

STUB = Path(__file__).with_name("stub.sh")
CONTROLLER_ONLY = {"nornir", "rich"}
"""Requirements that only the machine needs on which a fleet's run is started."""
SHIPPED = ("checks", "fixtures", "netns_lab", "reports")
"""Folders of a checkout that an installed package carries below ``viacheck/tree``, as pyproject.toml says."""
SHIPPED_FILES = ("conftest.py", "pyproject.toml")
DOWNLOADS_AT_ONCE = 4
_LEFT_OUT = re.compile(r"[^/]+\.dist-info/(RECORD|WHEEL|INSTALLER|REQUESTED|direct_url\.json|sboms/.*)")
"""Files of a wheel that differ between its builds, and that no program reads here."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_DIGEST_LENGTH = 32


class PackFailed(Exception):
    """The file cannot be built; the message is one line."""


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """A Python and a processor."""

    python: str
    machine: str

    def __str__(self) -> str:
        return f"{self.python}-{self.machine}"

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Return the platform of a text such as ``3.11-x86_64``.

        Raises:
            ValueError: it is not in the list of :data:`PLATFORMS`.
        """
        for platform in PLATFORMS:
            if str(platform) == text:
                return platform
        raise ValueError(f"unknown platform {text!r}; allowed: {', '.join(map(str, PLATFORMS))}")


PLATFORMS = tuple(
    Platform(f"3.{minor}", machine) for minor in unpack.MINOR_VERSIONS for machine in ("x86_64", "aarch64")
)
_GLIBC_TAGS = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")


def build(platforms: Iterable[Platform], wheelhouse: Path | None = None) -> bytes:
    """Return the content of viacheck.pyz.

    Args:
        platforms: what the file is for.
        wheelhouse: a folder of wheels; left out, pip downloads them.

    Raises:
        PackFailed: a wheel is missing, or two wheels hold different files of one name.
    """
    wanted = sorted(set(platforms))
    entries = {unpack.PLATFORMS: "".join(f"{platform}\n" for platform in wanted).encode()}
    entries["__main__.py"] = Path(unpack.__file__).read_bytes()
    _add(entries, own_files(), "viacheck")
    with tempfile.TemporaryDirectory(prefix="viacheck-pack-") as folder:
        folders = [Path(folder, str(platform)) for platform in wanted]
        # pip waits for the index most of the time.
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            try:
                list(pool.map(_download, wanted, folders, repeat(wheelhouse)))
            except BaseException:
                # An interrupt has ended those that are running; the others need not begin.
                pool.shutdown(cancel_futures=True)
                raise
        for wheel in (wheel for wheels in folders for wheel in sorted(wheels.glob("*.whl"))):
            _add(entries, _wheel_files(wheel), wheel.name)
    digest = hashlib.sha256()
    for name in sorted(entries):
        digest.update(f"{name}\0{len(entries[name])}\0".encode() + entries[name])
    stub = STUB.read_text(encoding="utf-8").replace("@VERSION@", __version__)
    stub = stub.replace("@DIGEST@", digest.hexdigest()[:_DIGEST_LENGTH])
    return stub.encode() + _zip(entries)


def digest_of(packed: bytes) -> str:
    """Return the digest in the head of a packed file.

    Raises:
        PackFailed: it is no packed file.
    """
    digest = re.search(rb"^digest=([0-9a-f]{32})$", packed[:4096], re.MULTILINE)
    if digest is None or not packed.startswith(b"#!/bin/sh\n# viacheck "):
        raise PackFailed("is not a file that 'viacheck pack' wrote")
    return digest[1].decode()


def own_files() -> Iterator[tuple[str, bytes]]:
    """Yield the files of this package, by their place in an installed package."""
    package = Path(__file__).parents[1]
    yield from _tree(package, "viacheck")
    if IS_CHECKOUT:
        for name in SHIPPED:
            yield from _tree(ROOT / name, f"viacheck/tree/{name}")
        for name in SHIPPED_FILES:
            yield f"viacheck/tree/{name}", (ROOT / name).read_bytes()


def _tree(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - {"__pycache__", "out"})
        place = Path(parent).relative_to(folder)
        for file in sorted(files):
            if not file.endswith(".pyc"):
                yield str(Path(name, place, file)), Path(parent, file).read_bytes()


def _wheel_files(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", entry.filename)
            if not entry.is_dir() and ".data/" not in name and not _LEFT_OUT.fullmatch(name):
                yield name, archive.read(entry)


def _add(entries: dict[str, bytes], files: Iterable[tuple[str, bytes]], origin: str) -> None:
    for name, content in files:
        place = unpack.PACKAGES + name
        if entries.setdefault(place, content) != content:
            raise PackFailed(f"{origin}: holds another {name} than the wheel for another Python or processor")


def _zip(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, entries[name])
    return buffer.getvalue()


def _download(platform: Platform, folder: Path, wheelhouse: Path | None) -> None:
    """Let pip fetch the wheels of the versions that run here.

    Raises:
        PackFailed: pip fails.
    """
    folder.mkdir()
    constraints = folder / "constraints.txt"
    installed = sorted(f"{library.name}=={library.version}" for library in metadata.distributions() if library.name)
    constraints.write_text("".join(f"{line}\n" for line in installed if not line.startswith("viacheck==")))
    abi = "cp" + platform.python.replace(".", "")
    argv = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check",
            "--only-binary=:all:", "--implementation", "cp", "--python-version", platform.python, "--abi", abi,
            "--constraint", str(constraints), "--dest", str(folder)]  # fmt: skip
    argv += [word for tag in _GLIBC_TAGS for word in ("--platform", f"{tag}_{platform.machine}")]
    argv += ["--no-index", "--find-links", str(wheelhouse)] if wheelhouse is not None else []
    done = subprocess.run([*argv, *_requirements()], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        hint = "; the folder must hold the versions that run here" if wheelhouse is not None else ""
        # The first line names the package, the last one a page about pip.
        raise PackFailed(f"pip found no wheels for {platform}: {errors[0] if errors else 'it says nothing'}{hint}")


def _requirements() -> list[str]:
    """Return what a judged host needs, as pip takes it: the requirements of this package without its extras."""
    names = [line for line in metadata.requires("viacheck") or [] if "extra ==" not in line]
    return [line for line in names if re.split(r"[^\w.-]", line, maxsplit=1)[0] not in CONTROLLER_ONLY]
