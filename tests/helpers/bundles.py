"""Bundles for tests: one of a real lab, and archives that are put together by hand, right or wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from netns_lab.lab_specs import LabSpec
from netns_lab.scenarios import SCENARIOS
from tests.helpers.forked_runs import run_python
from tests.helpers.front_door import VIACHECK
from tests.helpers.paths import ROOT
from viacheck.bundle.manifest import MANIFEST, SCHEMA
from viacheck.bundle.reader import Bundle, read_stream
from viacheck.bundle.recorded_commands import Recorded
from viacheck.bundle.writer import Case, write_bundle
from viacheck.model.site_agents import SOLE_AGENT

CANARY = "CANARY7hush"
COMMANDS = [sys.executable, "-P", "-m", "viacheck.cli.main"]


def in_lab(lab: str, script: str, env: Mapping[str, str]) -> str:
    """Run a shell script on a lab's host; returns what it said."""
    argv = [*VIACHECK, "shell", lab, "env", f"PYTHONPATH={ROOT}", "sh", "-c", script]
    done = run_python(argv, cwd=ROOT, env=env, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def site(folder: Path, lab: str = "policy-routing", agent: str = "") -> Path:
    """The lab's intent as a site file, with a comment that nobody should read."""
    document = SCENARIOS[lab]().intent.as_json()
    lines = [f"# {CANARY}", "schema = 1"]

    def table(path: str, values: Mapping[str, object]) -> None:
        lines.append(f"[{path}]  # {CANARY}")
        lines.extend(f"{key} = {json.dumps(one)}" for key, one in values.items() if not isinstance(one, dict))
        for key, one in values.items():
            if isinstance(one, dict):
                table(f"{path}.{key}", one)

    if agent:
        document["agent"] = {"container": agent, "attach": {"mode": "nat", "network": "bridge"}}
    for key, one in document.items():
        if isinstance(one, dict):
            table(key, one)
    file = folder / "site.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


@cache
def case_of(lab: str, *faults: str) -> Case:
    """What a lab's host was, ready for a bundle."""
    target = LabSpec(lab, faults=faults).open()
    try:
        record = target.record()
        assert record.snapshot is not None
        return Case(
            "0.1.0", {SOLE_AGENT: record.intent}, {SOLE_AGENT: record.snapshot}, list(map(Recorded.of, target.recorded))
        )
    finally:
        target.close()


@cache
def members_of(lab: str, *faults: str) -> dict[str, bytes]:
    """The members of a lab's bundle, by name."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "case.tar.gz")
        write_bundle(path, case_of(lab, *faults), "default")
        with tarfile.open(path) as archive:
            return {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]


def tar_of(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """An archive with exactly these members, without compression."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@lru_cache(maxsize=4096)
def _block(name: str, content: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def quick_tar(members: dict[str, bytes]) -> bytes:
    """The same as ``tar_of(plain(members))``, a thousand times a second."""
    return b"".join(_block(name, content) for name, content in members.items()) + bytes(1024)


@lru_cache(maxsize=4096)
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def plain(members: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Regular files."""
    return [(tarfile.TarInfo(name), content) for name, content in members.items()]


def signed(members: dict[str, bytes], **manifest: Any) -> dict[str, bytes]:
    """The members with a manifest that fits them, but for what is given."""
    contents = {name: content for name, content in members.items() if name != MANIFEST}
    document = {
        "schema": SCHEMA,
        "made_by": "viacheck 0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "redaction": "default",
        "files": [{"name": name, "sha256": _digest(one)} for name, one in contents.items()],
        **manifest,
    }
    return {MANIFEST: json.dumps(document).encode(), **contents}


def read(packed: bytes, name: str = "case.tar.gz") -> Bundle:
    """Read a bundle from memory."""
    return read_stream(io.BytesIO(packed), name)


def packed(members: dict[str, bytes]) -> bytes:
    """These members as a gzipped archive."""
    return gzip.compress(tar_of(plain(members)), compresslevel=1, mtime=0)
