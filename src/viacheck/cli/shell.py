"""``viacheck shell``: opens a root shell on a lab's host and prints a map of the lab, which ends with the shell."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from netns_lab.docker_engine.engine_builder import engine_intent
from netns_lab.host_files import cover_folder
from netns_lab.lab import Lab, LabMachine
from netns_lab.lab_specs import LabSpec, parse_labs
from netns_lab.open_lab import open_lab
from netns_lab.whole_host.host_lab import agent_path
from netns_lab.whole_host.power_control import WholeHostPower
from reports.text import escape_unprintable
from viacheck.cli.command import lab_events, lab_failures, print_error
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import PATH as HOST_PATH
from viacheck.host.user_namespace import enter_user_namespace_if_needed
from viacheck.model.exit_status import UsageError

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit statuses of a shell that cannot run a command."""
SCRIPTS = Path("/run/viacheck")
OWN_STATE = "/var/lib/viacheck"
"""What 'viacheck watch' writes in the shell is the lab's, and not the machine's."""
_AGENT_SCRIPT = """#!/bin/sh
# Runs a command in the agent's network namespace.
exec nsenter --net={path} -- "$@"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.usage = "viacheck shell [--site FILE [--agent NAME]] [engine:|host:]LAB[@RELEASE][+FAULT...] [COMMAND ...]"
    parser.epilog = (
        "A COMMAND in quotes is a line for the shell: viacheck shell nat 'ip rule; ip route'. "
        "'viacheck --lab list' prints all labs and faults. The lab is removed when the shell ends."
    )
    parser.add_argument("--site", metavar="FILE", help="the site file that the lab 'blank' is built from")
    parser.add_argument("--agent", metavar="NAME", help="the agent, if the site file has several")
    parser.add_argument("lab", metavar="LAB", help="the lab, and faults to add to it")
    command = parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="run this instead of a shell"
    )
    # argparse would name it among what is missing when LAB is.
    command.required = False


def run(options: argparse.Namespace) -> int:
    """Open the shell; return its exit status.

    Raises:
        UsageError: when there is no such lab.
        CommandFailed: when the lab cannot be built.
    """
    labs = parse_labs(options.lab, Path(options.site) if options.site else None, options.agent)
    if agents := [lab.agent for lab in labs if lab.agent and len(labs) > 1]:
        raise UsageError(f"{options.site} has several agents: choose one by --agent: {', '.join(agents)}")
    if len(labs) != 1:
        raise UsageError(f"takes one lab, not {len(labs)}")
    enter_user_namespace_if_needed()
    with lab_failures():
        lab = open_lab(labs[0])
    try:
        return _shell(lab, labs[0], options.command)
    finally:
        lab.close()


def _shell(lab: Lab, spec: LabSpec, command: list[str]) -> int:
    path = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    prompt = f"[viacheck {spec.name} host] \\w \\$ "
    environment = {**os.environ, "PATH": f"{SCRIPTS}:{path}", "PS1": prompt}
    for name in [name for name in environment if name.startswith("PYTHON")]:
        del environment[name]
    if lab.engine is not None:
        environment["DOCKER_HOST"] = lab.engine.base_url
    line = command[0] if len(command) == 1 and shlex.quote(command[0]) != command[0] else None
    argv = ["/bin/sh", "-c", line] if line else command or ["/bin/bash", "--norc", "--noprofile", "-i"]
    if not command and not Path("/bin/bash").exists():
        argv = ["/bin/sh", "-i"]
    if not command:
        sys.stdout.write(map_of(lab, spec))
        sys.stdout.flush()
    if lab.whole_host is not None:
        # Its commands do not get this process's environment.
        environment = {
            **(lab.host.namespace.environment or {}), "PATH": f"{SCRIPTS}:{HOST_PATH}", "PS1": prompt,
            "TERM": os.environ.get("TERM", "dumb"),
        }  # fmt: skip
    else:
        lab.host.namespace.call(lambda: cover_folder(OWN_STATE))
    # Ctrl-C is for the program in the shell.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            # In a whole host this process has no number; its agent has a path instead.
            agent = (lab.whole_host and agent_path(lab.host.namespace)) or lab.agent.namespace.path
            lab.host.namespace.call(functools.partial(_write_agent_script, agent))
            status = _run_inside(lab.host.namespace, argv, environment)
            if command or not _boots_again(lab):
                return status
            sys.stdout.write(f"{spec.name} has rebooted\n")
            sys.stdout.flush()
    finally:
        signal.signal(signal.SIGINT, previous)


def _boots_again(lab: Lab) -> bool:
    """Return whether the host has rebooted, as its user asked; the boot is complete then."""
    if lab.whole_host is None or not lab.whole_host.goes_down():
        return False
    power = WholeHostPower(lab, lab.whole_host)
    with lab_events():
        if not power.wait_until_off():
            return False
        power.plug_in()
        power.power_on()
        agent = power.wait_for_agent()
        lab.machines[lab.plan.agent.name] = LabMachine(lab.plan.agent, power.wait_until_booted() or agent)
    return True


def _write_agent_script(agent: str) -> None:
    """Write the command `agent` into the lab's own /run."""
    SCRIPTS.mkdir()
    script = SCRIPTS / "agent"
    script.write_text(_AGENT_SCRIPT.format(path=agent))
    script.chmod(0o755)


def _run_inside(namespace: Namespace, argv: list[str], environment: dict[str, str]) -> int:
    start: Callable[[], subprocess.Popen[bytes]] = lambda: subprocess.Popen(  # noqa: E731 - run in the worker thread
        [*namespace.prefix, *argv], env=environment, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    try:
        return namespace.call(start).wait()
    except OSError as error:
        print_error("viacheck shell", f"{argv[0]}: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def map_of(lab: Lab, spec: LabSpec) -> str:
    """Return the lab in a few lines: interfaces, addresses, gateways, agent."""
    intent = engine_intent(lab.plan) if spec.flavour == "engine" else lab.plan.intent
    lines = [f"lab {spec.name}: {lab.plan.title}", "", "  host"]
    listing = lab.host.ip("-br", "address").stdout.splitlines()
    lines += [f"    {escape_unprintable(line)}" for line in listing]
    for name, uplink in intent.uplinks.items():
        mark = "  <- the agent's packets must leave here" if name == intent.egress.uplink else ""
        lines.append(f"    gateway by {name}: {uplink.gateway or 'none, point to point'}{mark}")
    lines.append("  agent")
    lines += [
        f"    {escape_unprintable(line)}"
        for line in lab.agent.namespace.run(["ip", "-br", "address"]).stdout.splitlines()
    ]
    lines += ["", f"  'agent CMD' runs CMD as the agent, such as: agent ping -c 1 {intent.probe.target}"]
    if lab.whole_host is not None:
        lines.append("  'reboot' really reboots the host, and a new shell follows")
    lines += ["  the lab is removed when this shell ends", ""]
    return "\n".join(lines) + "\n"
