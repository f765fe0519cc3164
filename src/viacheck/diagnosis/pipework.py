"""Causes that lie in pipework: the program, the interface that it made, the lease, and what runs it again."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.macvlan_facts import unbridged_links
from viacheck.analysis.pipework_facts import (
    address_fault,
    default_route_fault,
    docker_networks_beside,
    leftover_links,
    pipework_attach,
    unattended_lease_end,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import EGRESS, Cause, command, enter_agent
from viacheck.diagnosis.macvlan import REACHES_GATEWAY, again, inside, pipework_command, remade, up_again
from viacheck.model.intent import PipeworkStaticAttach
from viacheck.model.iproute_text import route_command
from viacheck.model.measurements import Measurements
from viacheck.model.result import FileEvidence, StateEvidence
from viacheck.persistence import ifupdown
from viacheck.persistence.allowlist import RC_LOCAL
from viacheck.persistence.config_writer import appended, replaced, written_file
from viacheck.persistence.pipework import OCCASIONS, Occasion, Rerun, Reruns, reruns_of

INTERFACE = "eth1"
"""What pipework calls the agent's interface unless it is told otherwise."""
INSTALLED_AS = "/usr/local/sbin/pipework"
SOURCE = "https://raw.githubusercontent.com/jpetazzo/pipework/master/pipework"
WATCH = "/usr/local/sbin/pipework-watch"
WATCH_UNIT = "pipework-watch.service"
_ASTRAY = EGRESS | REACHES_GATEWAY


def program_missing(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Pipework is not on PATH, or may not be executed."""
    if pipework_attach(resolved) is None or "pipework" in resolved.snapshot.programs:
        return
    there = [file for file in resolved.snapshot.files if file.path.rpartition("/")[2] == "pipework" and file.exists]
    if there:
        file = there[0]
        yield Cause(
            "PIPEWORK_MISSING", "PIPEWORK-01", f"{file.path} is there, but may not be executed",
            remedy=(command("chmod", "a+x", file.path),), undo=(command("chmod", f"{file.mode:04o}", file.path),),
        )  # fmt: skip
    else:
        yield Cause(
            "PIPEWORK_MISSING", "PIPEWORK-01",
            "pipework is nowhere on PATH: what is attached stays so, but nothing can attach the agent again. Put it "
            f"where the guide does: {SOURCE} as {INSTALLED_AS}, with mode 755",
        )  # fmt: skip


def default_network(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Docker gave the agent a way out of its own."""
    if pipework_attach(resolved) is None:
        return
    networks, links = docker_networks_beside(resolved), unbridged_links(resolved)
    container = resolved.intent.agent.container
    if networks and container is not None:
        yield Cause(
            "DEFAULT_NETWORK_PRESENT", "PIPEWORK-02",
            f"{container} is on Docker's network {', '.join(networks)} as well, so it has a second way out, NATed: it "
            "was not started with --net=none",
            remedy=tuple(command("docker", "network", "disconnect", name, container) for name in networks),
            undo=tuple(command("docker", "network", "connect", name, container) for name in networks),
        )  # fmt: skip
    elif links:
        names = ", ".join(link.name for link in links)
        yield Cause(
            "DEFAULT_NETWORK_PRESENT", "PIPEWORK-02",
            f"the agent has {names} as well, which is not pipework's: a second way out",
            remedy=tuple(inside(resolved, "ip", "link", "set", "dev", link.name, "down") for link in links),
            undo=tuple(up_again(resolved, links)),
        )  # fmt: skip


def not_applied(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Pipework was never run for this container, or what it made went with the container's last restart."""
    attach = pipework_attach(resolved)
    if attach is None or resolved.snapshot.agent is None:
        return
    link = resolved.bridged_link
    if link is None or not link.up:
        state = "has no interface by pipework" if link is None else f"has {link.name}, which is down"
        yield Cause(
            "PIPEWORK_NOT_APPLIED", "PIPEWORK-03",
            f"{resolved.intent.agent.name} {state}: pipework was not run since the container was last started; each "
            "stop and start of it, and each restart of the engine, takes the interface away",
            remedy=(pipework_command(resolved),)
            if link is None
            else (inside(resolved, "ip", "link", "set", "dev", link.name, "up"),),
            undo=(inside(resolved, "ip", "link", "del", "dev", INTERFACE),)
            if link is None
            else (inside(resolved, "ip", "link", "set", "dev", link.name, "down"),),
            explains=_ASTRAY,
        )  # fmt: skip
        return
    parent = resolved.parent_of(link)
    if parent is None or parent != resolved.parent_link:
        on = parent.name if parent is not None else "no interface of this host"
        away = inside(resolved, "ip", "link", "del", "dev", link.name)
        yield Cause(
            "PARENT_WRONG", "PIPEWORK-03", f"the agent's {link.name} sits on {on}, not on {attach.parent}",
            remedy=(away, pipework_command(resolved)),
            undo=(away, *(remade(resolved, link, parent.name) if parent is not None else ())), explains=_ASTRAY,
        )  # fmt: skip


def wrong_address(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Pipework's interface has another address than intended, or none."""
    attach, link, address = pipework_attach(resolved), resolved.bridged_link, resolved.bridged_address
    objection = address_fault(resolved)
    if attach is None or link is None or objection is None:
        return
    remedy: list[str] = []
    undo: list[str] = []
    if isinstance(attach, PipeworkStaticAttach):
        default = inside(resolved, "ip", "route", "replace", "default", "via", attach.gateway, "dev", link.name)
        remedy = [inside(resolved, "ip", "address", "add", attach.address, "dev", link.name), default]
        undo = [inside(resolved, "ip", "address", "del", attach.address, "dev", link.name)]
        if address is not None:
            old = f"{address.address}/{address.prefixlen}"
            remedy.insert(0, inside(resolved, "ip", "address", "del", old, "dev", link.name))
            undo.append(inside(resolved, "ip", "address", "add", old, "dev", link.name))
            if resolved.agent_default is not None:
                undo.append(f"{enter_agent(resolved.intent)} {route_command('replace', resolved.agent_default)}")
    else:
        remedy = [inside(resolved, "ip", "link", "del", "dev", link.name), pipework_command(resolved)]
    yield Cause(
        "PIPEWORK_WRONG_ADDRESS", "PIPEWORK-03", f"{link.name} of the agent: {objection}",
        remedy=tuple(remedy), undo=tuple(undo), explains=_ASTRAY,
    )  # fmt: skip


def wrong_gateway(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The agent's default route is not by the intended gateway."""
    link, objection = resolved.bridged_link, default_route_fault(resolved)
    if pipework_attach(resolved) is None or resolved.snapshot.agent is None or link is None or objection is None:
        return
    default, gateway = resolved.agent_default, resolved.lan_gateway
    mend = inside(resolved, "ip", "route", "replace", "default", "via", gateway, "dev", link.name)
    undo = inside(resolved, "ip", "route", "del", "default", "via", gateway, "dev", link.name)
    if default is not None and not default.metric:
        undo = f"{enter_agent(resolved.intent)} {route_command('replace', default)}"
    yield Cause(
        "GATEWAY_MISMATCH", "PIPEWORK-04", objection, remedy=(mend,), undo=(undo,), explains=_ASTRAY,
    )  # fmt: skip


def lease_without_client(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The address is leased, and what got the lease has ended."""
    end, address, link = unattended_lease_end(resolved), resolved.bridged_address, resolved.bridged_link
    if end is None or address is None or link is None:
        return
    container = resolved.intent.agent.container
    remedy: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    if container is not None:
        sidecar = f"{container}-dhcp"
        client = command(
            "docker", "run", "-d", "--name", sidecar, "--restart", "unless-stopped", "--net", f"container:{container}",
            "--cap-add", "NET_ADMIN", "alpine", "udhcpc", "-f", "-i", link.name,
        )  # fmt: skip
        remedy, undo = (client,), (command("docker", "rm", "-f", sidecar),)
    yield Cause(
        "LEASE_WITHOUT_CLIENT", "PIPEWORK-03",
        f"{address.address} on {link.name} is leased and no DHCP client lives in the agent's namespace (pipework's "
        f"dhclient mode ends it after the first lease): address and default route vanish {end}. Keep a client beside "
        "the agent, or give pipework a fixed address",
        remedy=remedy, undo=undo,
    )  # fmt: skip


def second_run(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Pipework was run again while its interface was there: it failed and left an interface behind."""
    leftovers = leftover_links(resolved)
    if pipework_attach(resolved) is None or not leftovers:
        return
    remedy, undo = [], []
    for leftover in leftovers:
        link = leftover.link
        parent = resolved.snapshot.host.link_by_index(link.peer_index) if link.peer_index is not None else None
        words = ["ip", "link", "del", "dev", link.name]
        remedy.append(inside(resolved, *words) if leftover.in_agent else command(*words))
        undo += again(resolved, link, parent.name if parent is not None else resolved.parent, within=leftover.in_agent)
    where = "in the agent" if any(leftover.in_agent for leftover in leftovers) else "on the host"
    yield Cause(
        "PIPEWORK_LEFTOVER", "PIPEWORK-03",
        f"{', '.join(leftover.link.name for leftover in leftovers)} {where} is left of a run of pipework that failed, because "
        "the agent had its interface already ('File exists'): whatever runs it again must ask for that first",
        remedy=tuple(remedy), undo=tuple(undo),
    )  # fmt: skip


def guard(resolved: ResolvedIntent) -> str:
    """What stands before a pipework line so that it runs only while the agent has no interface of pipework's."""
    interface = resolved.bridged_link.name if resolved.bridged_link is not None else INTERFACE
    enter = enter_agent(resolved.intent).replace("'{{.State.Pid}}'", "{{.State.Pid}}")
    return f"{enter} ip link show dev {interface} >/dev/null 2>&1 || "


def not_persistent(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """On some occasion nothing runs pipework again."""
    if pipework_attach(resolved) is None:
        return
    written = reruns_of(resolved)
    if not written.missing:
        return
    mends = [mend for occasion in written.missing for mend in _write_down(resolved, occasion, written)]
    yield Cause(
        "PIPEWORK_NOT_PERSISTENT", "PIPEWORK-05",
        f"nothing runs pipework again after {' or '.join(OCCASIONS[occasion] for occasion in written.missing)}"
        + "".join(f"; {place}: {reason}" for place, reason in written.astray),
        remedy=tuple(remedy for remedy, _undo in mends), undo=tuple(undo for _remedy, undo in reversed(mends)),
        explains=frozenset({"FLAP-04", "FLAP-05"} if "restart" in written.missing else ()),
        evidence=tuple(
            FileEvidence(path=place.path, line=place.line, text=f"{place.text}\n({reason})")
            for place, reason in written.astray
        ),
    )  # fmt: skip


def _write_down(resolved: ResolvedIntent, occasion: Occasion, written: Reruns) -> Iterator[tuple[str, str]]:
    """Commands that have pipework run on one occasion, each with what undoes it."""
    line = pipework_command(resolved)
    if occasion == "reboot":
        yield from _in_rc_local(resolved, line, written)
    elif occasion == "interface":
        yield _in_interfaces(resolved, line)
    else:
        yield from _at_restart(resolved, line)


def _in_rc_local(resolved: ResolvedIntent, line: str, written: Reruns) -> Iterator[tuple[str, str]]:
    file = resolved.snapshot.file(RC_LOCAL)
    if file is None or not file.exists:
        yield written_file(RC_LOCAL, f"#!/bin/sh -e\n{line}\nexit 0\n", "755"), command("rm", RC_LOCAL)
        return
    here = [(place, reason) for place, reason in written.astray if place.path == RC_LOCAL]
    if not file.mode & 0o111:
        yield command("chmod", "a+x", RC_LOCAL), command("chmod", f"{file.mode:04o}", RC_LOCAL)
        if here:
            return
    lines = file.text.rstrip("\n").split("\n")
    end = next((number for number, text in enumerate(lines, 1) if text.startswith("exit")), len(lines) + 1)
    yield appended(RC_LOCAL, end - 1, f"{line}\n")


def _in_interfaces(resolved: ResolvedIntent, line: str) -> tuple[str, str]:
    parent = resolved.parent
    assert parent is not None
    end = ifupdown.last_line(resolved.snapshot.files, parent)
    if end is not None:
        return appended(end.path, end.line, f"    post-up {guard(resolved)}{line}\n")
    device = f"sys-subsystem-net-devices-{parent}.device"
    unit = (
        f"[Unit]\nAfter={device} docker.service\nBindsTo={device}\n\n[Service]\nType=oneshot\n"
        f"ExecStart=/bin/sh -c '{guard(resolved)}{line}'\n\n[Install]\nWantedBy={device}\n"
    )
    return _enabled_unit(f"pipework-{parent}.service", unit)


def _enabled_unit(name: str, text: str) -> tuple[str, str]:
    path = f"/etc/systemd/system/{name}"
    return (
        f"{written_file(path, text)}\n{command('systemctl', 'enable', name)}",
        f"{command('systemctl', 'disable', name)}\n{command('rm', '-f', path)}",
    )


def _at_restart(resolved: ResolvedIntent, line: str) -> Iterator[tuple[str, str]]:
    container = resolved.intent.agent.container or line.split()[2]
    script = (
        "#!/bin/sh\n"
        f"docker events --filter type=container --filter event=start --filter container={container} |\n"
        f"while read -r _; do {line}; done\n"
    )
    unit = (
        f"[Unit]\nDescription=Runs pipework whenever {container} starts\nAfter=docker.service\n\n"
        f"[Service]\nExecStart={WATCH}\nRestart=always\n\n[Install]\nWantedBy=multi-user.target\n"
    )
    yield written_file(WATCH, script, "755"), command("rm", WATCH)
    yield _enabled_unit(WATCH_UNIT, unit)


def not_idempotent(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """A line runs pipework again while its interface is there, which fails."""
    if pipework_attach(resolved) is None:
        return
    found = reruns_of(resolved).not_idempotent
    if not found:
        return
    places = list(dict.fromkeys(rerun.place for rerun in found))
    mends = [_guarded(resolved, rerun) for rerun in found]
    yield Cause(
        "NOT_IDEMPOTENT", "PIPEWORK-05",
        f"{places[0]} runs pipework whether the agent has its interface or not: the second time it fails ('File "
        "exists'), leaves an interface behind, and ifup fails with it",
        remedy=tuple(remedy for remedy, _undo in mends), undo=tuple(undo for _remedy, undo in mends),
        explains=frozenset({"FLAP-03"}),
        evidence=tuple(
            StateEvidence(title=f"instead of {rerun.place}", lines=[_guarded_text(resolved, rerun)]) for rerun in found
        ),
    )  # fmt: skip


def _guarded_text(resolved: ResolvedIntent, rerun: Rerun) -> str:
    before, _, behind = rerun.place.text.partition("pipework")
    lead = before[: before.rindex(" ") + 1] if " " in before else ""
    return f"{lead}{guard(resolved)}{before[len(lead) :]}pipework{behind}"


def _guarded(resolved: ResolvedIntent, rerun: Rerun) -> tuple[str, str]:
    return replaced(rerun.place.path, rerun.place.line, rerun.place.text, _guarded_text(resolved, rerun))
