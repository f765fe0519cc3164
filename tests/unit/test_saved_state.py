"""A damaged saved state is refused with the declared error; an intact one is read as it was written."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from viacheck.guard.network_state import LinkState
from viacheck.guard.saved_state import NoSavedState, SavedState, load, save
from viacheck.netlink import rtnetlink
from viacheck.netlink.codec import attribute
from viacheck.netlink.rtnetlink import AF_INET, RtnetlinkMessage


def _rule() -> RtnetlinkMessage:
    body = struct.pack("=BBBBBBBBI", AF_INET, 0, 16, 0, 200, 0, 0, 1, 0)
    source, priority = attribute(2, bytes((172, 17, 0, 0))), attribute(6, struct.pack("=I", 1000))
    return RtnetlinkMessage.decode(rtnetlink.RTM_NEWRULE, body + source + priority)


STATE = SavedState(
    interfaces=("wl0",), tables=(200,), saved="2026-01-02T03:04:05+0000", boottime=12.5, boot_id="boot", namespace=7,
    command="viacheck --local", addresses=(), neighbours=(), nexthops=(), routes=(), rules=(_rule(),),
    links=(LinkState(2, "wl0", None, 1, 1500, 1000, "020000000001", None, None),),
    sysctls={"net/ipv4/ip_forward": "1"},
)  # fmt: skip
"""On a busy machine generation and writing take their time."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=6,
)


def written() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.json")
        save(STATE, str(path))
        document: dict[str, Any] = json.loads(path.read_text())
        return document


DOCUMENT = written()


def read(content: bytes) -> SavedState:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.json")
        path.write_bytes(content)
        return load(str(path))


def test_a_state_is_read_as_it_was_written() -> None:
    assert read(json.dumps(DOCUMENT).encode()) == STATE


@given(st.sampled_from([*DOCUMENT, "more"]), JSON)
def test_any_value_of_a_key_is_accepted_or_refused(key: str, value: Any) -> None:
    with contextlib.suppress(NoSavedState):
        read(json.dumps(DOCUMENT | {key: value}).encode())


@given(st.sampled_from(["links", "rules"]), st.text(max_size=8) | st.sampled_from(["message", "flags", "mac"]), JSON)
def test_any_value_in_an_object_is_accepted_or_refused(key: str, name: str, value: Any) -> None:
    entry = {**DOCUMENT[key][0], name: value}
    with contextlib.suppress(NoSavedState):
        read(json.dumps(DOCUMENT | {key: [entry]}).encode())


@given(st.binary(max_size=200) | st.integers(0, 100_000).map(lambda depth: b"[" * depth))
def test_any_bytes_are_refused(content: bytes) -> None:
    with contextlib.suppress(NoSavedState):
        read(content)
        raise AssertionError("no random bytes are a saved state")
