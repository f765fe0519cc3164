"""Reading a bundle is safe: whatever a stranger has put together is read, or refused in one line; nothing else."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.bundles import case_of, members_of, packed, plain, quick_tar, read, signed, tar_of
from viacheck.analysis.explain import explain
from viacheck.bundle.manifest import INTENT, MANIFEST, SNAPSHOT
from viacheck.bundle.reader import BundleUnreadable, bundle_outcome, read_bundle, read_stream
from viacheck.diagnosis import diagnose
from viacheck.model.measurements import Measurements
from viacheck.model.site_agents import SOLE_AGENT
from viacheck.targets.bundle import BundleTarget

LAB = "policy-routing"


def refusal(archive: bytes) -> str:
    """The one line that an archive is refused with."""
    with pytest.raises(BundleUnreadable) as refused:
        read(archive)
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith("case.tar.gz: ")
    return line


def with_member(kind: bytes, name: str = "raw/link", target: str = "/etc/shadow") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return gzip.compress(tar_of([*plain(signed(members_of(LAB))), (member, b"")]))


def test_what_was_written_is_what_is_read() -> None:
    bundle = read(packed(members_of(LAB)))
    assert bundle.intent.as_json() == case_of(LAB).intents[SOLE_AGENT]
    assert bundle_outcome([bundle]).targets[0].snapshot is not None
    assert any(rule.table == 200 for rule in bundle.snapshot.host.rules)
    assert {one.place for one in bundle.commands} == {"host", "agent"}
    rules = next(one for one in bundle.commands if one.command == "ip -N -j -4 rule show")
    assert rules.exit_code == 0
    assert json.loads(rules.stdout)
    assert rules.time.startswith("20")


def test_a_plain_tar_is_read_too() -> None:
    assert read(tar_of(plain(members_of(LAB)))).intent.egress.table == 200


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "member 'raw/link' is a symbolic link"),
        (tarfile.LNKTYPE, "member 'raw/link' is a link"),
        (tarfile.CHRTYPE, "is a character device"),
        (tarfile.BLKTYPE, "is a block device"),
        (tarfile.FIFOTYPE, "is a FIFO"),
        (b"Z", "is of unknown type"),
    ],
)
def test_only_regular_files_are_accepted(kind: bytes, said: str) -> None:
    assert said in refusal(with_member(kind))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../evil", "raw/../../evil", "raw//x", "raw/.hidden", "-rf", "raw/a b", "raw/\x1b[31m"]
)
def test_a_name_that_leads_outside_is_refused(name: str) -> None:
    assert "its name is absolute, leads outside or has unusual characters" in refusal(
        packed(signed({**members_of(LAB), name: b""}))
    )


def test_a_duplicate_is_refused() -> None:
    members = signed(members_of(LAB))
    assert "member 'snapshot.json' occurs twice" in refusal(
        gzip.compress(tar_of([*plain(members), (tarfile.TarInfo(SNAPSHOT), b"{}")]))
    )


def _changed(content: bytes) -> dict[str, bytes]:
    return {**signed(members_of(LAB)), SNAPSHOT: content}


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (lambda: packed(_changed(b"{}")), "member 'snapshot.json' is not what manifest.json says: another digest"),
        (lambda: packed({**signed(members_of(LAB)), "raw/extra": b""}), "member 'raw/extra' is not in manifest.json"),
        (
            lambda: packed({name: content for name, content in signed(members_of(LAB)).items() if name != SNAPSHOT}),
            "manifest.json names 'snapshot.json', which is missing",
        ),
        (lambda: packed({SNAPSHOT: b"{}"}), "it has no manifest.json"),
        (lambda: packed({MANIFEST: b"[" * 100_000}), "manifest.json: not JSON"),
        (lambda: packed(signed({}, schema="viacheck.bundle/2")), "'viacheck.bundle/2'; known: viacheck.bundle/1"),
        (lambda: packed(signed({})), "it has neither intent.json nor site.toml"),
        (lambda: packed(signed({INTENT: members_of(LAB)[INTENT]})), "neither snapshot.json nor recorded commands"),
        (lambda: packed(signed({**members_of(LAB), INTENT: b'{"schema": 9}'})), "intent.json: schema: found 9"),
        (lambda: b"", "cut short, or not a tar archive"),
        (lambda: b"PK\x03\x04" * 200, "not a tar archive: the checksum of a header is wrong"),
        (lambda: packed(members_of(LAB))[:-9], "cut short"),
        (lambda: packed(members_of(LAB)) + b"more", "something follows the end of its gzip stream"),
        (lambda: b"\x1f\x8b" + b"\xff" * 600, "its gzip stream is damaged"),
    ],
)  # fmt: skip
def test_an_incomplete_or_changed_archive_is_refused(archive: Callable[[], bytes], said: str) -> None:
    assert said in refusal(archive())


def test_a_snapshot_with_an_invalid_prefix_is_refused() -> None:
    document = json.loads(members_of(LAB)[SNAPSHOT])
    document["host"]["routes"][0]["destination"] = "10.0.0.0/99"
    line = refusal(packed(signed({**members_of(LAB), SNAPSHOT: json.dumps(document).encode()})))
    assert "snapshot.json: host.routes: '10.0.0.0/99' is not a valid prefix" in line


class _Counted(io.BytesIO):
    """Counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        self.taken += len(chunk)
        return chunk


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    header = tarfile.TarInfo("raw/001.stdout")
    header.size = 100 << 20
    bomb = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    parts = [bomb.compress(header.tobuf(tarfile.USTAR_FORMAT)), *(bomb.compress(zeros) for _ in range(100))]
    whole = b"".join([*parts, bomb.flush()])
    stream = _Counted(whole)
    with pytest.raises(BundleUnreadable, match="it unpacks to more than 200 times its size"):
        read_stream(stream, "bomb")
    assert stream.taken < len(whole)


def test_a_member_may_not_claim_to_be_huge() -> None:
    header = tarfile.TarInfo("raw/001.stdout")
    header.size = 7 << 30
    assert "is larger than 128 MiB" in refusal(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT)))


def test_too_many_members_are_refused() -> None:
    empty = [(tarfile.TarInfo(f"raw/{number}"), b"") for number in range(5000)]
    assert "more than 4000 members" in refusal(gzip.compress(tar_of(empty), compresslevel=0))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleUnreadable, match=r"absent\.tar\.gz: cannot be read: No such file or directory"):
        read_bundle(tmp_path / "absent.tar.gz")


# ---- mutated archives ------------------------------------------------------------------------------------------------

ROUNDS = {"compressed": 4_500, "tar": 3_000, "json": 1_500, "raw": 1_000}
"""How often with --soak, by what is damaged."""
SHARE, QUICK_SHARE = 4, 10
"""The same archives each time: a quarter of them by default, a tenth with --quick."""
WORDS: tuple[Any, ...] = (
    None, "", "x" * 300, "\x00", "300.1.2.3", "10.0.0.0/33", "::1", "fe80::%eth0", "999999999999999999999", -1, 0,
    2**63, 1e308, True, [], {}, [None], {"a": 1}, "lookup", "0x/0x", "../..", "\ud83d",
)  # fmt: skip


def _small() -> dict[str, bytes]:
    """A bundle with little in it, so that damage hits what matters."""
    members = members_of(LAB)
    return {name: content for name, content in members.items() if not name.startswith("raw/") or name < "raw/003"}


def _routing_commands() -> dict[str, bytes]:
    """What the shell script's bundle would hold of a host's routing."""
    members = members_of(LAB)
    stems = [name.removesuffix(".command") for name, content in members.items() if b"command: ip -N -j" in content]
    return {name: content for name, content in members.items() if name.rpartition(".")[0] in stems}


def _flipped(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(damaged))
        match chance.randrange(4):
            case 0:
                damaged[place] ^= 1 << chance.randrange(8)
            case 1:
                damaged[place] = chance.randrange(256)
            case 2:
                del damaged[place : place + chance.randrange(1, 600)]
            case _:
                damaged[place:place] = chance.randbytes(chance.randrange(1, 40))
        damaged = damaged or bytearray(b"\0")
    return bytes(damaged)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value that holds something: container and key."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _json_damaged(content: bytes, chance: random.Random) -> bytes:
    document = json.loads(content)
    for _ in range(chance.choice((1, 1, 3))):
        container, key = chance.choice(list(_places(document)))
        if chance.random() < 0.2:
            del container[key]
        else:
            container[key] = chance.choice(WORDS)
    return json.dumps(document).encode()


def _mutants(kind: str, rounds: int, chance: random.Random) -> Iterator[bytes]:
    small = _small()
    whole, tar = packed(small), quick_tar(small)
    from_raw = {INTENT: small[INTENT], **_routing_commands()}
    for _ in range(rounds):
        if kind == "compressed":
            yield _flipped(whole, chance)
        elif kind == "tar":
            yield gzip.compress(_flipped(tar, chance), compresslevel=1)
        elif kind == "json":
            name = chance.choice((INTENT, SNAPSHOT, SNAPSHOT, SNAPSHOT, MANIFEST))
            damaged = {name: _json_damaged(small[name], chance)}
            yield quick_tar({**small, **damaged} if name == MANIFEST else signed({**small, **damaged}))
        else:
            name = chance.choice([one for one in from_raw if one.endswith((".stdout", ".command"))])
            as_json = from_raw[name][:1] in (b"[", b"{") and len(from_raw[name]) > 5 and chance.random() < 0.7
            damaged = {name: (_json_damaged if as_json else _flipped)(from_raw[name] or b"\n", chance)}
            yield quick_tar(signed({**from_raw, **damaged}))


@pytest.mark.parametrize("kind", ROUNDS)
def test_mutated_archives_are_read_or_refused_in_one_line(kind: str, request: pytest.FixtureRequest) -> None:
    option = request.config.option
    rounds = ROUNDS[kind] // (QUICK_SHARE if option.quick else 1 if option.soak else SHARE)
    chance = random.Random(f"bundle {kind}")
    lines: list[str] = []
    for mutant in _mutants(kind, rounds, chance):
        try:
            bundle = read(mutant)
        except BundleUnreadable as error:
            lines.append(str(error))
            continue
        # What is let in can be judged.
        target = BundleTarget("bundle:case", bundle)
        target.forecast("icmp")
        diagnose("EGRESS-01", target.resolved, Measurements())
        explain(target.resolved, "203.0.113.9", 6, 443)
        bundle_outcome([bundle])
    assert len(lines) > rounds // 100
    assert not [line for line in lines if len(line.splitlines()) != 1]


# ---- any manifest ----------------------------------------------------------------------------------------------------

"""On a busy machine generation and writing take their time."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["schema", "made_by", "created", "redaction", "files", "could_not", "more"]), JSON)
def test_any_value_in_the_manifest_is_accepted_or_refused(key: str, value: Any) -> None:
    members = signed({name: members_of(LAB)[name] for name in (INTENT, SNAPSHOT)})
    document = json.loads(members[MANIFEST]) | {key: value}
    with contextlib.suppress(BundleUnreadable):
        read_stream(io.BytesIO(packed({**members, MANIFEST: json.dumps(document).encode()})), "case")
