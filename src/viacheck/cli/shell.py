"""``./viacheck shell LAB``: a root shell on a lab's host, with a map of where you are. The lab goes when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from netns_lab.docker_engine.engine_builder import engine_intent
from netns_lab.lab import Lab, LabCommandError
from netns_lab.rtnetlink_batch import LabBuildError
from reports.text import escape_unprintable
from viacheck.host.namespace import Namespace
from viacheck.host.user_namespace import UserNamespacesForbidden, enter_user_namespace_if_needed
from viacheck.targets.open_target import LabUnavailable, open_lab
from viacheck.targets.specs import LabSpec, SelectionError, parse_labs

USAGE_ERROR, FAILED = 4, 1
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""As shells say it."""
SCRIPTS = Path("/run/viacheck")
_AGENT_SCRIPT = """#!/bin/sh
# Runs a command in the agent's network namespace.
exec nsenter --net=/proc/{pid}/fd/{fd} -- "$@"
"""


def main(argv: list[str]) -> int:
    """Open the shell; returns its exit status, or 4 when the lab is not known."""
    if len(argv) < 1 or argv[0].startswith("-"):
        sys.stderr.write("usage: ./viacheck shell [engine:]LAB[+FAULT…] [COMMAND…]   (see './viacheck --lab list')\n")
        return USAGE_ERROR
    try:
        labs = parse_labs(argv[0])
        if len(labs) != 1:
            raise SelectionError(f"shell: takes one lab, not {len(labs)}")
        enter_user_namespace_if_needed()
        lab = open_lab(labs[0])
    except (SelectionError, UserNamespacesForbidden) as error:
        sys.stderr.write(f"viacheck: {error}\n")
        return USAGE_ERROR
    except (LabUnavailable, LabBuildError, LabCommandError) as error:
        sys.stderr.write(f"viacheck: {error}\n")
        return FAILED
    try:
        return _shell(lab, labs[0], argv[1:])
    finally:
        lab.close()


def _shell(lab: Lab, spec: LabSpec, command: list[str]) -> int:
    lab.host.namespace.call(lambda: _write_agent_script(lab.agent.namespace.net_fd))
    path = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    prompt = f"[viacheck {spec.name} host] \\w \\$ "
    environment = {**os.environ, "PATH": f"{SCRIPTS}:{path}", "PS1": prompt}
    environment.pop("PYTHONPATH", None)
    if lab.engine is not None:
        environment["DOCKER_HOST"] = lab.engine.base_url
    argv = command or ["/bin/bash", "--norc", "--noprofile", "-i"]
    if not command and not Path("/bin/bash").exists():
        argv = ["/bin/sh", "-i"]
    if not command:
        sys.stdout.write(map_of(lab, spec))
        sys.stdout.flush()
    # Ctrl-C belongs to what runs in the shell.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return _run_inside(lab.host.namespace, argv, environment)
    finally:
        signal.signal(signal.SIGINT, previous)


def _write_agent_script(agent_fd: int) -> None:
    """Make the word 'agent' a command in the lab, in its own /run, which goes with it."""
    SCRIPTS.mkdir()
    script = SCRIPTS / "agent"
    script.write_text(_AGENT_SCRIPT.format(pid=os.getpid(), fd=agent_fd))
    script.chmod(0o755)


def _run_inside(namespace: Namespace, argv: list[str], environment: dict[str, str]) -> int:
    start: Callable[[], subprocess.Popen[bytes]] = lambda: subprocess.Popen(  # noqa: E731 - run in the worker thread
        argv, env=environment, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    try:
        return namespace.call(start).wait()
    except OSError as error:
        sys.stderr.write(f"viacheck: {escape_unprintable(argv[0])}: {error.strerror}\n")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def map_of(lab: Lab, spec: LabSpec) -> str:
    """The lab in a few lines: interfaces, addresses, gateways, agent."""
    intent = engine_intent(lab.plan) if spec.flavour == "engine" else lab.plan.intent
    lines = [f"lab {spec.name}: {lab.plan.title}", "", "  host"]
    listing = lab.host.ip("-br", "address").stdout.splitlines()
    lines += [f"    {escape_unprintable(line)}" for line in listing]
    for name, uplink in intent.uplinks.items():
        mark = "  <- the agent's packets must leave here" if name == intent.egress.uplink else ""
        lines.append(f"    gateway by {name}: {uplink.gateway}{mark}")
    lines.append("  agent")
    lines += [
        f"    {escape_unprintable(line)}"
        for line in lab.agent.namespace.run(["ip", "-br", "address"]).stdout.splitlines()
    ]
    lines += ["", f"  'agent CMD' runs CMD as the agent, such as: agent ping -c 1 {intent.probe.target}"]
    lines += ["  the lab goes when this shell ends", ""]
    return "\n".join(lines) + "\n"
