"""Write a bundle, whole or not at all: redact everything in one manner, and list it in a manifest."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from viacheck.atomic_file import write_file
from viacheck.bundle.manifest import (
    CAPTURES,
    FILES,
    INTENT,
    MANIFEST,
    REPORT,
    RESULT,
    Manifest,
    MemberDigest,
    Redaction,
    plain_name,
    snapshot_member,
)
from viacheck.bundle.recorded_commands import Recorded, members_of
from viacheck.bundle.redaction.mapping import Redactor
from viacheck.bundle.redaction.names import names_to_map
from viacheck.model.intent import DEFAULT_TARGET
from viacheck.model.result import RunResult
from viacheck.model.result_json import result_json
from viacheck.model.site_agents import joined
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.model.snapshot_json import read_without_routes
from viacheck.user_file import read_file

MODE = 0o600
"""A bundle shows how a network is built: its owner decides who reads it."""
COMPRESSION = 1
"""gzip's default, 6, takes three times as long (190 ms of CPU time for a large host) to make it a tenth smaller."""
STRICT_CAPTURES = "--with-captures does not go with --redact strict: packets hold the addresses that strict maps"


@dataclass(frozen=True)
class Case:
    """The content of a bundle, before the redaction."""

    version: str
    """The version of viacheck."""
    intents: Mapping[str, dict[str, Any]]
    """The intents by agent, as in result.json."""
    snapshots: Mapping[str, dict[str, Any]]
    """The snapshots by agent, as in result.json."""
    commands: Sequence[Recorded]
    outcome: RunResult | None = None
    render: Callable[[RunResult], str] | None = None
    """Returns the report page of the redacted result; None for a bundle without a page."""
    captures: Sequence[Path] = ()
    saved_outcome: bytes | None = None
    """result.json of the outcome, where it was written already."""


@dataclass(frozen=True)
class WrittenBundle:
    """A bundle that was written."""

    path: Path
    could_not: list[str]
    """One line for each thing that could not be collected."""
    map_path: Path | None
    """The file with the map of ``strict``."""


def write_bundle(path: Path, case: Case, mode: Redaction, *, private: bool = False) -> WrittenBundle:
    """Write a bundle, and beside it for ``strict`` the map of the renamed values.

    Args:
        path: the bundle.
        case: the content.
        mode: what is redacted.
        private: the folder is a report's: it must be this user's own, and decides who reads the bundle.

    Raises:
        OSError: when it cannot be written; an older file of that name is unchanged.
    """
    snapshots = {agent: read_without_routes(snapshot) for agent, snapshot in case.snapshots.items()}
    command = case.outcome.run.command if case.outcome is not None else ""
    names = names_to_map(case.intents, snapshots, command)
    redactor = Redactor(mode, names, hosts=_hostnames(snapshots), networks=_networks(snapshots))
    could_not = [
        f"{problem.what}{f' of {agent}' if agent else ''}: {problem.reason}"
        for agent, snapshot in snapshots.items()
        for problem in snapshot.problems
    ]
    could_not += [f"file {path}: {file.error}" for path, file in _files(snapshots).items() if file.error]
    contents = dict(_contents(case, snapshots, redactor))
    digests = [
        MemberDigest(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in contents.items()
    ]
    manifest = Manifest(
        made_by=f"viacheck {case.version}",
        created=datetime.datetime.now().astimezone().isoformat(timespec="milliseconds"),
        redaction=mode,
        files=digests,
        could_not=[redactor.plain(line) for line in could_not],
    )
    first = {MANIFEST: manifest.model_dump_json(by_alias=True, indent=1).encode() + b"\n"}
    write_file(path, _archive({**first, **contents}), mode=MODE, private=private)
    map_path = None
    if mode == "strict":
        map_path = path.with_name(path.name.removesuffix(".gz").removesuffix(".tar") + ".map.json")
        write_file(map_path, json.dumps(redactor.map, indent=1, sort_keys=True) + "\n", mode=MODE)
    return WrittenBundle(path, could_not, map_path)


def _with_probe_target(intent: dict[str, Any], redactor: Redactor) -> dict[str, Any]:
    """Return the intent with a probe target in ``strict``, which maps a default too where it is named."""
    if redactor.mode != "strict":
        return intent
    return {**intent, "probe": {"target": str(DEFAULT_TARGET), **intent.get("probe", {})}}


def _files(snapshots: Mapping[str, Snapshot]) -> dict[str, HostFile]:
    """Return the files of the host by their paths: every agent's snapshot holds them."""
    return {file.path: file for snapshot in snapshots.values() for file in snapshot.files}


def _contents(case: Case, snapshots: Mapping[str, Snapshot], redactor: Redactor) -> Iterator[tuple[str, bytes]]:
    intents = {redactor.plain(agent): intent for agent, intent in case.intents.items()}
    yield INTENT, _json(redactor.document(_with_probe_target(joined(intents), redactor)))
    for agent, document in case.snapshots.items():
        yield snapshot_member(redactor.plain(agent)), _json(redactor.document(document))
    for name, text in members_of([_redacted(command, redactor) for command in case.commands]):
        yield name, text.encode()
    for file in _files(snapshots).values():
        name = redactor.plain(FILES + file.path.lstrip("/"))
        if file.exists and file.error is None and len(name) <= tarfile.LENGTH_NAME and plain_name(name):
            yield name, redactor.file(_text(file, redactor)).encode()
    if case.outcome is not None:
        outcome = _redacted_outcome(case.outcome, redactor)
        saved = case.saved_outcome if outcome is case.outcome else None
        yield RESULT, saved if saved is not None else result_json(outcome)
        if case.render is not None:
            yield REPORT, case.render(outcome).encode(errors="backslashreplace")
    for capture in case.captures:
        yield CAPTURES + capture.name, read_file(capture, follow_links=False)


def _redacted_outcome(outcome: RunResult, redactor: Redactor) -> RunResult:
    """Return a result whose texts are mapped in ``strict``; a result holds no secrets."""
    if redactor.mode != "strict":
        return outcome
    document = outcome.model_dump(mode="json", by_alias=True)
    for target in document["targets"]:
        target["intent"] = _with_probe_target(target["intent"], redactor)
    return RunResult.model_validate(redactor.document(document))


def _redacted(command: Recorded, redactor: Redactor) -> Recorded:
    redact = redactor.file if "cat -- " in command.command else redactor.output
    return command.model_copy(
        update={
            "place": redactor.plain(command.place),
            "command": redactor.output(command.command),
            "stdout": redact(command.stdout),
            "stderr": redactor.output(command.stderr),
        }
    )


def _text(file: HostFile, redactor: Redactor) -> str:
    """Return a file's text: the part that the snapshot keeps, or all of it when nothing is redacted."""
    if redactor.mode != "none":
        return file.text
    try:
        return Path(file.path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return file.text


def _hostnames(snapshots: Mapping[str, Snapshot]) -> dict[str, str]:
    """Return the stand-in of each host's name, which is mapped however short or common it is."""
    return {name: f"host-{place}" for place, name in enumerate({s.hostname for s in snapshots.values()}, start=1)}


def _networks(snapshots: Mapping[str, Snapshot]) -> Iterator[IPv4Network]:
    """Yield the networks of the host's and the agents' addresses."""
    for snapshot in snapshots.values():
        for state in (snapshot.host, snapshot.agent):
            for address in state.addresses if state is not None else ():
                if address.family == 4:
                    yield IPv4Network((address.address, address.prefixlen), strict=False)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"


def _archive(contents: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=COMPRESSION, format=tarfile.USTAR_FORMAT) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), MODE
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
