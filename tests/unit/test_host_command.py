"""Commands of a host get no setting that is meant for viacheck's own Python."""

from __future__ import annotations

import os

import pytest

from viacheck.host.command import finish, start


def test_a_hosts_python_program_finds_the_modules_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    argv = ["env"]
    lines = finish(argv, start(argv), 10).stdout.splitlines()
    assert "LANG=C.UTF-8" in lines
    assert not [line for line in lines if line.startswith("PYTHONSAFEPATH=")]
    assert os.environ["PYTHONSAFEPATH"] == "1"
