"""The agent's container: whether its program really runs, in the engine's own terms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.docker_state import ContainerState

CRASH_LOOP_RESTARTS = 2
CRASH_LOOP_UPTIME = timedelta(seconds=60)
"""A container that its restart policy has started several times, the last time so recently, is in a crash loop."""


class AgentFault(StrEnum):
    """What keeps the agent from measuring although its container exists."""

    PAUSED = "paused"
    CRASH_LOOP = "crash-loop"
    EXITED = "exited"
    NO_INTERFACE = "no-interface"


@dataclass(frozen=True, slots=True)
class AgentState:
    """A fault of the agent's container, with the engine's own words."""

    fault: AgentFault
    text: str


def engine_program(resolved: ResolvedIntent) -> str:
    """Return the program that a person types commands for the engine with: ``docker``, or ``podman``."""
    engine = resolved.snapshot.engine
    return engine.program if engine is not None else "docker"


def engine_name(resolved: ResolvedIntent) -> str:
    """Return the name of the engine in a sentence."""
    return engine_program(resolved).capitalize()


def own_address_varies(resolved: ResolvedIntent) -> bool:
    """Return whether a bridged agent may get another address at a restart: by DHCP, or as podman assigns the next."""
    leased = resolved.intent.mode == "pipework-dhcp"
    return leased or (resolved.bridged and engine_program(resolved) == "podman")


def nat_follows_start(resolved: ResolvedIntent) -> bool:
    """Return whether the host has no NAT for the agent because its container does not run: podman makes it then."""
    container = resolved.snapshot.container
    return engine_program(resolved) == "podman" and container is not None and not container.running


def agent_fault(resolved: ResolvedIntent) -> AgentState | None:
    """Return what keeps the agent from measuring; None when nothing of its container does."""
    engine, agent = resolved.snapshot.engine, resolved.snapshot.agent
    container = engine.container if engine is not None else None
    if engine is not None and container is not None:
        state = container.state
        if state.paused:
            return AgentState(AgentFault.PAUSED, f"the container {container.name} is paused: its processes are frozen")
        if _crash_loop(state, resolved.snapshot.taken):
            return AgentState(
                AgentFault.CRASH_LOOP,
                f"the container {container.name} restarts again and again: {state.restarts} restarts, "
                f"last start {state.started or 'unknown'}, {_end(state)}; "
                f"'{engine.program} logs {container.name}' shows why",
            )
        if not container.running:
            text = f"the container {container.name} is {state.status or 'not running'}: {_end(state)}"
            return AgentState(AgentFault.EXITED, text)
    if agent is not None and not resolved.intent.mode.startswith("pipework"):
        links = [link.name for link in agent.links if link.name != "lo"]
        if not links:
            return AgentState(
                AgentFault.NO_INTERFACE,
                "the agent's network namespace has no interface but lo, as that of a container that was restarted",
            )
    return None


def is_unhealthy(resolved: ResolvedIntent) -> bool:
    """Whether the container runs, and its own health check fails."""
    engine = resolved.snapshot.engine
    container = engine.container if engine is not None else None
    return container is not None and container.running and container.state.health == "unhealthy"


def _crash_loop(state: ContainerState, taken: str) -> bool:
    if state.restarting:
        return True
    if state.restarts < CRASH_LOOP_RESTARTS or state.status != "running":
        return False
    started, now = _moment(state.started), _moment(taken)
    return started is not None and now is not None and now - started < CRASH_LOOP_UPTIME


def _end(state: ContainerState) -> str:
    parts = [f"exit code {state.exit_code}"]
    parts += ["killed for lack of memory"] if state.out_of_memory else []
    parts += [state.error] if state.error else []
    return ", ".join(parts)


def _moment(text: str) -> datetime | None:
    """Read a moment of RFC 3339, as the engine and snapshots write it; nanoseconds are cut to microseconds."""
    head, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        moment = datetime.fromisoformat(head + (f".{digits[:6]:0<6}" if dot else "") + rest[len(digits) :])
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
