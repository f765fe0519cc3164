"""Commands of a host: what they inherit, and that each ends in time."""

from __future__ import annotations

import os
import time

import pytest

from viacheck.host.command import TIMED_OUT, finish, present_environment, start


def test_a_hosts_python_program_finds_the_modules_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    argv = ["env"]
    lines = finish(argv, start(argv), 10).stdout.splitlines()
    assert "LANG=C.UTF-8" in lines
    assert not [line for line in lines if line.startswith("PYTHONSAFEPATH=")]
    assert os.environ["PYTHONSAFEPATH"] == "1"


def test_a_command_ends_in_time_although_its_child_lives_on() -> None:
    """The child of nsenter(1) or ifup(8) is not killed with it, and holds the pipes."""
    argv, began = ["sh", "-c", "echo begun; sleep 60 & echo $!; wait"], time.monotonic()
    result = finish(argv, start(argv), 0.5)
    begun, child = result.stdout.split()
    os.kill(int(child), 9)
    assert (begun, result.exit_code) == ("begun", TIMED_OUT)
    assert result.stderr == "killed: not finished after 0.5 s"
    assert time.monotonic() - began < 30


def test_the_environment_may_change_while_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOES", "1")
    names = [*os.environ, "GONE"]
    monkeypatch.setattr(type(os.environ), "__iter__", lambda _environment: iter(names))
    copied = present_environment()
    assert copied["GOES"] == "1"
    assert "GONE" not in copied


def test_a_command_gets_the_environment_that_is_given_and_no_other() -> None:
    argv = ["/usr/bin/env"]
    assert finish(argv, start(argv, environment={"ONLY": "this"}), 10).stdout == "ONLY=this\n"
