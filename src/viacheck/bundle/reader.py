"""Read a bundle from an untrusted source: all of it is checked before any of it is used, and nothing is written."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, BinaryIO

import pydantic_core
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from viacheck.analysis.predict import predict
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.bundle.archive import ArchiveRefused, Member, members
from viacheck.bundle.manifest import (
    INTENT,
    LARGEST_FILE,
    LARGEST_FILES,
    MANIFEST,
    MOST_RESOLVERS,
    RESULT,
    SCHEMA,
    SITE,
    Manifest,
    beyond_limits,
    snapshot_member,
)
from viacheck.bundle.recorded_commands import Recorded, commands_in
from viacheck.bundle.script_output import agents_commands, snapshot_of
from viacheck.collector_pause import collector_paused
from viacheck.diagnosis import causes
from viacheck.model.exit_status import UsageError
from viacheck.model.filter_chains import FilterMatch
from viacheck.model.intent import PROTOCOLS, Intent
from viacheck.model.intent_file import IntentError
from viacheck.model.measurements import Measurements
from viacheck.model.namespace_state import NetworkState
from viacheck.model.plain import first_mistake
from viacheck.model.result import Run, RunResult, TargetRecord
from viacheck.model.saved_result import ResultRefused, read_result
from viacheck.model.site_agents import SOLE_AGENT, named, parse_agents
from viacheck.model.snapshot import SCHEMA as SNAPSHOT_SCHEMA
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.model.snapshot_json import snapshot_adapter
from viacheck.user_file import open_file

SHOWN = 200
"""Characters of one reason."""
_PORTS_FIELDS = ("sport", "dport")


class BundleUnreadable(UsageError):
    """The file is not a usable bundle; the message gives the file and the reason in one line."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle, checked and read: one agent and its host."""

    path: str
    manifest: Manifest
    intent: Intent
    snapshot: Snapshot
    commands: tuple[Recorded, ...]
    result: RunResult | None
    """The result of the run that wrote the bundle; None for a bundle without a run."""
    agent: str = SOLE_AGENT
    """The agent's name, in a bundle of several."""

    @property
    def name(self) -> str:
        """Return the file's name, for people."""
        return Path(self.path).name

    def target(self) -> TargetRecord:
        """Return the target that the bundle's state stands for."""
        state = snapshot_adapter().dump_python(self.snapshot, mode="json")
        return TargetRecord(
            id=named(f"local:{self.intent.site.name}", self.agent), kind="bundle", verdict="inconclusive",
            title=self.intent.site.name, agent=self.agent or None, intent=self.intent.as_json(), snapshot=state,
        )  # fmt: skip


def bundle_outcome(bundles: Sequence[Bundle]) -> RunResult:
    """Return the result in a bundle, or a result with the host's state alone; ``bundles`` are those of its agents."""
    first = bundles[0]
    if first.result is not None:
        return first.result
    created = first.manifest.created
    run = Run(id=first.name, started=created, finished=created, command=first.manifest.made_by)
    return RunResult(run=run, targets=[bundle.target() for bundle in bundles], results=[])


def is_archive(path: Path) -> bool:
    """Return whether a file is a bundle, and not a saved result, which is JSON.

    Raises:
        BundleUnreadable: the file cannot be read.
    """
    try:
        with open_file(path) as stream:
            return stream.read(1) != b"{"
    except OSError as error:
        raise BundleUnreadable(f"{path}: cannot be read: {error.strerror}") from None


def read_bundle(path: Path, intent: Intent | None = None) -> Bundle:
    """Read a bundle of one agent from a file.

    Args:
        path: the file.
        intent: the intent for a bundle that carries none, as the shell script without a site file writes it.

    Raises:
        BundleUnreadable: the file cannot be read, or is not a valid bundle, or holds several agents.
    """
    return _only(read_bundles(path, {SOLE_AGENT: intent} if intent is not None else None), str(path))


def read_bundles(path: Path, intents: Mapping[str, Intent] | None = None) -> tuple[Bundle, ...]:
    """Read a bundle from a file; return each agent with its host.

    Args:
        path: the file.
        intents: the intents by agent for a bundle that carries none.

    Raises:
        BundleUnreadable: the file cannot be read, or is not a valid bundle.
    """
    try:
        with open_file(path) as stream:
            return _read_stream(stream, str(path), intents)
    except OSError as error:
        raise BundleUnreadable(f"{path}: cannot be read: {error.strerror}") from None


def read_stream(stream: BinaryIO, name: str) -> Bundle:
    """Read a bundle of one agent from an open file; messages call it ``name``.

    Raises:
        BundleUnreadable, OSError: as :func:`read_bundle`.
    """
    return _only(_read_stream(stream, name, None), name)


def _only(bundles: Sequence[Bundle], name: str) -> Bundle:
    if len(bundles) != 1:
        raise BundleUnreadable(f"{name}: has several agents: {', '.join(bundle.agent for bundle in bundles)}")
    return bundles[0]


def _read_stream(stream: BinaryIO, name: str, intents: Mapping[str, Intent] | None) -> tuple[Bundle, ...]:
    try:
        with collector_paused():
            return _read(stream, name, intents)
    except (ArchiveRefused, _Refused) as error:
        raise BundleUnreadable(f"{name}: not a usable bundle: {_one_line(str(error))}") from None


class _Refused(Exception):
    """The archive's content is not valid."""


def _read(stream: BinaryIO, name: str, given: Mapping[str, Intent] | None) -> tuple[Bundle, ...]:
    archive = members(stream)
    manifest = _manifest(archive)
    _compare(manifest, archive)
    contents = {member.name: member.content for member in archive.values()}
    intents = _intents(contents, given)
    try:
        recorded = commands_in(contents)
    except ValueError as error:
        raise _Refused(str(error)) from None
    result = _result(contents)
    return tuple(
        Bundle(name, manifest, intent, *_state(contents, manifest, recorded, agent, intent), result, agent)
        for agent, intent in intents.items()
    )


def _state(
    contents: Mapping[str, bytes], manifest: Manifest, recorded: Sequence[Recorded], agent: str, intent: Intent
) -> tuple[Snapshot, tuple[Recorded, ...]]:
    """Return the state of an agent and its host, checked, and the commands that it was read with."""
    commands = tuple(agents_commands(recorded, intent.agent, agent))
    member = snapshot_member(agent)
    if member in contents:
        snapshot = _snapshot(contents[member], member)
    elif commands:
        snapshot = _typed(snapshot_of(commands, contents, taken=manifest.created, container=intent.agent.container))
    else:
        raise _Refused(f"it has neither {member} nor recorded commands")
    for place, state in (("host", snapshot.host), ("agent", snapshot.agent)):
        if state is not None and (excess := beyond_limits(state)) is not None:
            raise _Refused(f"the {place} has {excess}")
    if (resolvers := len(snapshot.resolvers or ()) + len(snapshot.host_resolvers or ())) > MOST_RESOLVERS:
        raise _Refused(f"the snapshot has {resolvers} resolvers; the limit is {MOST_RESOLVERS}")
    snapshot = replace(snapshot, files=tuple(_limited(snapshot.files)))
    for mistake in _mistakes(snapshot):
        raise _Refused(f"{member}: {mistake}")
    _try(ResolvedIntent(intent, snapshot))
    return snapshot, commands


def _limited(files: Iterable[HostFile]) -> Iterator[HostFile]:
    """Leave out the text of a file that is too large; the file then counts as one that could not be read."""
    total = 0
    for file in files:
        total += len(file.text)
        if len(file.text) > LARGEST_FILE or total > LARGEST_FILES:
            reason = f"it has {len(file.text)} characters, which is more than is read from a bundle"
            yield replace(file, text="", error=reason)
        else:
            yield file


def _manifest(archive: Mapping[str, Member]) -> Manifest:
    if MANIFEST not in archive:
        raise _Refused(f"it has no {MANIFEST}")
    document = _json(archive[MANIFEST].content, MANIFEST)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise _Refused(f"{MANIFEST}: schema {_one_line(repr(schema))}; known: {SCHEMA}")
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise _Refused(f"{MANIFEST}: {first_mistake(error)}") from None


def _compare(manifest: Manifest, archive: Mapping[str, Member]) -> None:
    """Check that the manifest lists exactly the members, with their sizes and digests."""
    listed = {digest.name: digest for digest in manifest.files}
    if len(listed) != len(manifest.files):
        raise _Refused(f"{MANIFEST} names a member twice")
    for name in listed:
        if name not in archive or name == MANIFEST:
            raise _Refused(f"{MANIFEST} names {name!r}, which is missing")
    for name, member in archive.items():
        if name == MANIFEST:
            continue
        if name not in listed:
            raise _Refused(f"member {name!r} is not in {MANIFEST}")
        if listed[name].sha256 not in (None, member.sha256):
            raise _Refused(f"member {name!r} is not what {MANIFEST} says: another digest")
        if listed[name].size not in (None, member.size):
            raise _Refused(f"member {name!r} is not what {MANIFEST} says: another size")


def _intents(contents: Mapping[str, bytes], given: Mapping[str, Intent] | None) -> Mapping[str, Intent]:
    name = INTENT if INTENT in contents else SITE
    if name not in contents:
        if given is None:
            raise _Refused(f"it has neither {INTENT} nor {SITE}; give the site file by --site FILE")
        return given
    if given is not None:
        raise _Refused("it carries its own intent; leave out --site")
    try:
        document = _json(contents[name], name) if name == INTENT else tomllib.loads(contents[name].decode())
        if not isinstance(document, dict):
            raise _Refused(f"{name}: not a table")
        return parse_agents(document, source=name)
    except IntentError as error:
        raise _Refused("; ".join(error.mistakes)) from None
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise _Refused(f"{name}: {error}") from None


def _snapshot(content: bytes, member: str) -> Snapshot:
    try:
        snapshot = snapshot_adapter().validate_json(content)
    except ValidationError as error:
        raise _Refused(f"{member}: {first_mistake(error)}") from None
    if snapshot.schema != SNAPSHOT_SCHEMA:
        raise _Refused(f"{member}: schema {snapshot.schema!r}; known: {SNAPSHOT_SCHEMA}")
    return snapshot


def _typed(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot with every value's type checked: the readers of tools' output trust the tools."""
    reader = snapshot_adapter()
    try:
        checked = reader.validate_python(reader.dump_python(snapshot, warnings=False))
    except (ValidationError, PydanticSerializationError) as error:
        reason = first_mistake(error) if isinstance(error, ValidationError) else str(error)
        raise _Refused(f"the recorded commands: {reason}") from None
    return checked


def _try(resolved: ResolvedIntent) -> None:
    """Evaluate a state as every run does: values of the right types may still contradict one another."""
    try:
        for protocol in PROTOCOLS:
            predict(resolved, protocol)
        for _ in causes(resolved, Measurements()):
            continue
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise _Refused(f"no host can have its state: {type(error).__name__}: {error}") from None


def _result(contents: Mapping[str, bytes]) -> RunResult | None:
    if RESULT not in contents:
        return None
    try:
        return read_result(contents[RESULT])
    except ResultRefused as error:
        raise _Refused(f"{RESULT}: {error}") from None


def _json(content: bytes, name: str) -> Any:
    try:
        return pydantic_core.from_json(content)
    except ValueError as error:
        raise _Refused(f"{name}: not JSON: {error}") from None


def _mistakes(snapshot: Snapshot) -> Iterator[str]:
    """Yield the values of the right type that are invalid all the same: an invalid address, a prefix too long."""
    for place, state in (("host", snapshot.host), ("agent", snapshot.agent)):
        if state is not None:
            yield from (f"{place}.{mistake}" for mistake in _invalid(state))
    engine = snapshot.engine
    if engine is not None:
        pools = [pool for network in engine.networks for pool in network.pools]
        yield from _bad("engine.pools", "subnet", [pool.subnet for pool in pools], strict=True)
        container = engine.container
        for attachment in container.attachments if container is not None else ():
            yield from _bad("engine.attachments", "address", [attachment.address, attachment.ipv6_address])


def _invalid(state: NetworkState) -> Iterator[str]:
    for address in state.addresses:
        network = f"{address.peer or address.address}/{address.prefixlen}"
        yield from _bad("addresses", "address", [address.address, address.peer], address.family)
        yield from _bad("addresses", "prefix", [network], address.family)
    for rule in state.rules:
        yield from _bad("rules", "prefix", [rule.source, rule.destination], rule.family)
    # A host may have 100,000 routes, most of which share their gateways.
    gateways = {(hop.gateway, None) for route in state.routes for hop in route.nexthops}
    yield from (mistake for gateway, family in gateways for mistake in _bad("routes", "gateway", [gateway], family))
    for route in state.routes:
        yield from _bad("routes", "prefix", [route.destination, route.source_prefix], route.family, strict=True)
        yield from _bad("routes", "source", [route.source], route.family)
    for chain in state.packet_filter.chains:
        for match in (match for rule in chain.rules for match in rule.matches):
            yield from _bad_match(match)


def _bad(
    where: str, what: str, values: Iterable[str | None], family: int | None = None, *, strict: bool = False
) -> Iterator[str]:
    """Yield the mistakes in addresses (``address``, ``gateway``, ``source``) or networks (``prefix``, ``subnet``)."""
    for value in values:
        if value is None:
            continue
        try:
            read = ip_network(value, strict=strict) if what in ("prefix", "subnet") else ip_address(value)
        except ValueError:
            yield f"{where}: {value!r} is not a valid {what}"
            continue
        if "%" in value or (family is not None and read.version != family):
            yield f"{where}: {value!r} is not a valid {what} of IPv{family}"


def _bad_match(match: FilterMatch) -> Iterator[str]:
    for value in match.values:
        try:
            if match.field in ("source", "destination"):
                ip_network(value, strict=False)
            elif match.field in ("mark", "ctmark"):
                _ = [int(part, 16) for part in value.split("/")]
            elif match.field in _PORTS_FIELDS:
                _ = [int(part) for part in value.split("-")]
            elif match.field == "protocol":
                int(value)
        except ValueError:
            yield f"packet_filter: {value!r} is not a valid {match.field}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:SHOWN]
