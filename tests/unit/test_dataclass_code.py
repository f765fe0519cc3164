"""Kept methods of dataclasses: the same methods, compiled once, and never those of a file that does not fit."""

from __future__ import annotations

import dataclasses
import marshal
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import pytest

from viacheck.cli.dataclass_code import MethodCode


def sample(code: MethodCode, monkeypatch: pytest.MonkeyPatch) -> type[Any]:
    """Return a dataclass that is made with these methods."""
    with monkeypatch.context() as patch:
        patch.setitem(vars(dataclasses), "exec", code.run)
        return dataclasses.make_dataclass(
            "Sample", [("text", str), ("number", int, 7), ("list", list, dataclasses.field(default_factory=list))],
            frozen=True, slots=True,
        )  # fmt: skip


def test_a_class_of_kept_methods_is_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "code"
    first = MethodCode(path)
    sample(first, monkeypatch)
    first.save()
    written = path.stat()
    second = MethodCode(path)
    with monkeypatch.context() as patch:
        patch.setattr("viacheck.cli.dataclass_code.compile", pytest.fail, raising=False)
        kept = sample(second, monkeypatch)
    second.save()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns), "nothing was new"
    value = kept("a")
    assert (repr(value), value == kept("a", 7, []), value == kept("b")) == (
        "Sample(text='a', number=7, list=[])", True, False,
    )  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.text = "b"
    with pytest.raises(TypeError, match="text"):
        kept()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 64, MAGIC_NUMBER, MAGIC_NUMBER + b"\xff" * 64,
        b"\1\2\r\n" + marshal.dumps({"text": "of another Python"}),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    path = tmp_path / "code"
    path.write_bytes(content)
    code = MethodCode(path)
    assert sample(code, monkeypatch)("a").number == 7
    code.save()
    assert marshal.loads(path.read_bytes()[len(MAGIC_NUMBER) :]).keys() == code._used.keys()


def test_a_start_does_not_need_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = MethodCode(tmp_path / "missing" / "code")
    assert sample(code, monkeypatch)("a").number == 7
    code.save()
    assert not list(tmp_path.iterdir())


def test_a_large_file_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "code"
    path.write_bytes(MAGIC_NUMBER + marshal.dumps({"old": compile("0", "", "exec")}))
    monkeypatch.setattr("viacheck.cli.dataclass_code.LARGEST", 10)
    code = MethodCode(path)
    sample(code, monkeypatch)
    code.save()
    assert "old" not in marshal.loads(path.read_bytes()[len(MAGIC_NUMBER) :])
