"""Commands of a host: what they inherit, and that each ends in time."""

from __future__ import annotations

import os
import time

import pytest

from viacheck.host.command import NOT_FOUND, TIMED_OUT, finish, memory_file, present_environment, start
from viacheck.host.namespace import Namespace


def test_a_hosts_python_program_finds_the_modules_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    argv = ["env"]
    lines = finish(argv, start(argv), 10).stdout.splitlines()
    assert "LANG=C.UTF-8" in lines
    assert not [line for line in lines if line.startswith("PYTHONSAFEPATH=")]
    assert os.environ["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize("large", [False, True])
def test_a_command_ends_in_time_although_its_child_lives_on(large: bool) -> None:
    """The child of nsenter(1) or ifup(8) is not killed with it, and holds the pipes."""
    argv, began = ["sh", "-c", "echo begun; sleep 60 & echo $!; wait"], time.monotonic()
    output = memory_file() if large else None
    result = finish(argv, start(argv, output=output), 0.5, output=output)
    if output is not None:
        os.close(output)
    begun, child = result.stdout.split()
    os.kill(int(child), 9)
    assert (begun, result.exit_code) == ("begun", TIMED_OUT)
    assert result.stderr == "killed: not finished after 0.5 s"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("forbidden", [False, True])
def test_a_large_output_is_the_one_of_a_pipe(monkeypatch: pytest.MonkeyPatch, forbidden: bool) -> None:
    if forbidden:

        def refuse(*_arguments: object) -> int:
            raise PermissionError

        monkeypatch.setattr("os.memfd_create", refuse)
    host = Namespace.current()
    try:
        argv = ["sh", "-c", "cat; echo error >&2; exit 3"]
        small, large = (host.run(argv, stdin="line\n" * 200_000, large=large) for large in (False, True))
        assert small == large
        assert (large.stdout, large.stderr, large.exit_code) == ("line\n" * 200_000, "error\n", 3)
        assert host.run(["/missing"], large=True).exit_code == NOT_FOUND
    finally:
        host.close()


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
