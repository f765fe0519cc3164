"""Readers of text and answers that have no test of their own kind: each takes anything, and ends in no other error."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viacheck.bundle.recorded_commands import Recorded, commands_in
from viacheck.bundle.redaction.patterns import without_secrets
from viacheck.bundle.script_output import IPSET, NETLINK, NFT, PERMISSIONS, SYSCTLS, snapshot_of
from viacheck.model.snapshot import HostFile
from viacheck.parsers import comments, docker_api, podman_api, resolv_conf, shell, shell_allowlist, unit_names
from viacheck.parsers.json_answer import NotAnEngineAnswer
from viacheck.persistence import boot_files, hook_scripts, manager_answers, manager_units

PIECES = st.sampled_from([
    "nameserver ", "127.0.0.53", "fe80::1%eth0", "#", ";", "'", '"', "\\", "\n", "\t", "$(", ")", "`", "${x", "|", "&&",
    "<<E", "ip rule add from 10.0.0.0/8 lookup 200", "/bin/sh -c ", "--password ", "token=", "Authorization: Bearer ",
    "comment ", "[Unit]", "[Service]", "ExecStart=", "WantedBy=multi-user.target", "eth0=eth0", "address: ",
    '{"Interfaces":[', "]}", "{}",
])  # fmt: skip
TEXT = st.lists(PIECES | st.text(max_size=6), max_size=12).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda values: st.lists(values, max_size=3)
    | st.dictionaries(
        st.sampled_from(["name", "Names", "driver", "subnets", "subnet", "NetworkSettings", "Networks", "options"]),
        values, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip

READERS: dict[str, tuple[Callable[[str], Any], tuple[type[Exception], ...]]] = {
    "resolv.conf": (resolv_conf.nameservers, ()),
    "events": (docker_api.last_exit_code, ()),
    "called scripts": (lambda text: list(hook_scripts.called_scripts(text)), ()),
    "hook": (shell_allowlist.objection_to_hook, ()),
    "script": (shell_allowlist.objection_to_script, ()),
    "comments": (comments.without_comments, ()),
    "rule comment": (comments.without_rule_comment, ()),
    "unit": (unit_names.device_unit, ()),
    "secrets": (without_secrets, ()),
    "command": (shell.first_command, (shell.ShellError,)),
    **{
        command: (partial(manager_answers.redact_answer, command), (ValueError,))
        for commands in manager_answers.commands("eth0").values()
        for command in commands
    },
}


@pytest.mark.parametrize("name", READERS)
@given(text=TEXT)
@settings(max_examples=15)
def test_any_text_ends_in_no_other_error(name: str, text: str) -> None:
    read, declared = READERS[name]
    with contextlib.suppress(*declared):
        read(text)


@given(TEXT, st.sampled_from(["/etc/rc.local", "/etc/crontab", "/etc/systemd/system/a.service", "/etc/cron.d/a"]))
@settings(max_examples=25)
def test_any_boot_file_is_read(text: str, path: str) -> None:
    files = (HostFile(path=path, exists=True, text=text, mode=0o755),)
    boot_files.read(files, lambda _name: None)
    for manager in manager_answers.commands("eth0"):
        manager_units.not_started(files, manager)


@pytest.mark.parametrize("read", [podman_api.podman_networks, docker_api.networks_of_containers])
@given(answer=JSON)
@settings(max_examples=40)
def test_any_answer_of_an_engine_ends_in_the_declared_error(read: Callable[[Any], Any], answer: Any) -> None:
    with contextlib.suppress(NotAnEngineAnswer):
        read([answer])


@given(
    st.lists(TEXT, min_size=3, max_size=3),
    st.sampled_from(["", "place: host\ncommand: ip -N -j link\ntime: x\nexit: 0\n"]),
)
@settings(max_examples=25)
def test_any_recorded_command_is_read_or_refused(texts: list[str], head: str) -> None:
    names = ("raw/001.command", "raw/001.stdout", "raw/001.stderr")
    with contextlib.suppress(ValueError):
        commands_in({name: text.encode() for name, text in zip(names, [head + texts[0], *texts[1:]], strict=True)})


COMMANDS = (
    "docker version", "docker info", "docker inspect", "docker network inspect", "podman version", "podman inspect",
    "podman network inspect", "ip -N -j -d link show", "ip -N -j -4 rule show", NFT, IPSET, NETLINK, SYSCTLS,
    PERMISSIONS, "iptables-save -c", manager_answers.NETWORKCTL, manager_answers.NETPLAN,
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(COMMANDS), JSON | TEXT), max_size=6))
@settings(max_examples=25)
def test_any_output_of_the_shell_scripts_commands_makes_a_snapshot(outputs: list[tuple[str, Any]]) -> None:
    recorded = [
        Recorded(
            place="host", command=command, time="", exit_code=0, stderr="",
            stdout=output if isinstance(output, str) else json.dumps(output),
        )
        for command, output in outputs
    ]  # fmt: skip
    snapshot_of(recorded, {}, taken="2026-01-01T00:00:00+00:00", container="te-agent")
