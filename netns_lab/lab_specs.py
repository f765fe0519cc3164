"""Specifications of labs and replicas: what to build, and what is wrong with a selection on the command line.

This module imports no builder, so that ``--lab list`` and a usage error are quick.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from netns_lab.docker_engine import podman
from netns_lab.faults import FAULTS, Fault
from netns_lab.plan import LabPlan
from netns_lab.scenarios import BLANK, PODMAN_ONLY, SCENARIOS, VIRTUAL_MACHINES, WHOLE_HOSTS, Flavour
from netns_lab.script import Script
from netns_lab.site_lab import SITE_LAB, SITE_LAB_TITLE, plan_of_site
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, RELEASES, BaseRoot
from viacheck.model.intent import Intent, Survivable
from viacheck.model.intent_file import IntentError, parse_intent
from viacheck.model.plain import first_mistake
from viacheck.model.site_agents import SOLE_AGENT, agents_chosen, in_table, load_agents, named
from viacheck.model.snapshot import Snapshot
from viacheck.model.snapshot_json import read_snapshot
from viacheck.targets.specs import SelectionError

if TYPE_CHECKING:
    from netns_lab.lab import Lab
    from netns_lab.lab_targets import LabTarget, ReplicaTarget
    from netns_lab.scenarios.register import Scenario
    from viacheck.model.result import TargetRecord

REPLICA = "twin:"
"""The beginning of a replica's id, after the option --twin."""


@functools.cache
def _intent_of(scenario: str, flavour: Flavour, release: str | None, survives: tuple[Survivable, ...] | None) -> Intent:
    """Return a scenario's intent, validated once: a run over all labs asks for it 8,000 times while it collects."""
    return _scenarios(flavour, release)[scenario]().intent.demanding(survives)


def _scenarios(flavour: Flavour, release: str | None) -> dict[str, Scenario]:
    """Return the scenarios that a flavour of a release can build."""
    if flavour in ("host", "vm"):
        return WHOLE_HOSTS if flavour == "host" else VIRTUAL_MACHINES
    return SCENARIOS | PODMAN_ONLY if release == podman.NAME else SCENARIOS


@dataclass(frozen=True, slots=True)
class LabSpec:
    """A lab to build: a scenario in a flavour, with faults in it."""

    scenario: str
    flavour: Flavour = "netns"
    faults: tuple[str, ...] = ()
    scripts: tuple[Script, ...] = ()
    """The scripts to run on its host before the checks."""
    announcement: tuple[str, ...] = field(default=(), compare=False)
    release: str | None = None
    """The Debian release of a whole host, a virtual machine or an engine, or ``podman``; None: of this machine."""
    site_plan: LabPlan | None = field(default=None, compare=False)
    """The description that follows from a site file; None for a scenario, which has its own."""
    survives: tuple[Survivable, ...] | None = None
    """The events that the egress must survive; None: those of the scenario's intent."""
    agent: str = SOLE_AGENT
    """The name of the agent that the lab is for, where its site file has several."""

    @property
    def name(self) -> str:
        """The name, as the command line writes it."""
        prefix = "" if self.flavour == "netns" else f"{self.flavour}:"
        default = DEFAULT_RELEASE if self.flavour in ("host", "vm") else None
        release = "" if self.release == default else f"@{self.release}"
        return prefix + "+".join((named(self.scenario, self.agent) + release, *self.faults))

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return f"lab:{self.name}"

    @property
    def title(self) -> str:
        """The scenario's title, and the titles of its faults."""
        return "; ".join((self.plan().title, *(f"fault: {fault.title}" for fault in faults_of(self))))

    def plan(self) -> LabPlan:
        """Return the lab's description."""
        plan = self.site_plan or _scenarios(self.flavour, self.release)[self.scenario]()
        return plan if self.survives is None else replace(plan, intent=self.intent)

    @property
    def intent(self) -> Intent:
        """The intent of the scenario, or of the site file."""
        if self.site_plan is not None:
            return self.site_plan.intent.demanding(self.survives)
        return _intent_of(self.scenario, self.flavour, self.release, self.survives)

    @property
    def slow(self) -> bool:
        """A real network manager runs in the lab, or checks listen for other machines on the LAN; both take time."""
        return self.flavour == "host" or bool(self.plan().boot) or self.intent.mode != "nat"

    def with_scripts(self, *scripts: Script) -> LabSpec:
        """Return the same lab, with more scripts to run."""
        return replace(self, scripts=(*self.scripts, *scripts))

    def demanding(self, survives: tuple[Survivable, ...] | None) -> LabSpec:
        """Return the same lab, whose egress must survive these events; None leaves it as it is."""
        return replace(self, survives=survives)

    def build(self) -> Lab:
        """Build the lab; see :func:`netns_lab.open_lab.build_lab`."""
        from netns_lab.open_lab import build_lab

        return build_lab(self.name, self.plan(), self.flavour, self.release, faults_of(self))

    def target_of(self, lab: Lab, *, ends_lab: bool = True) -> LabTarget:
        """Return a built lab as a target; ``ends_lab``: closing the target ends the lab."""
        from netns_lab.lab_targets import LabTarget

        return LabTarget(self, lab, ends_lab=ends_lab)

    def open(self) -> LabTarget:
        """Build the lab and open it as a target; see :class:`viacheck.targets.specs.TargetSpec`."""
        from netns_lab.open_lab import open_lab

        return self.target_of(open_lab(self))

    def unopened(self, reason: str) -> TargetRecord:
        """Return the record of a lab that could not be built."""
        from viacheck.model.result import TargetRecord

        return TargetRecord(
            id=self.id, kind="lab", flavour=self.flavour, verdict="inconclusive", title=self.plan().title,
            agent=self.agent or None, intent=self.intent.as_json(), notes=[reason],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaSpec:
    """A host to rebuild from its snapshot."""

    host: str
    """The host's name: its site, or the target of an earlier run."""
    intent: Intent
    snapshot: Snapshot | None
    """None for the host that the run was started on: its snapshot is taken when the replica is built."""
    scripts: tuple[Script, ...] = ()
    """The scripts to run on the replica's host before the checks."""
    slow: bool = False
    announcement: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name, as the report shows it."""
        return f"{REPLICA}{self.host}"

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return self.name

    def with_scripts(self, *scripts: Script) -> ReplicaSpec:
        """Return the same replica, with more scripts to run."""
        return replace(self, scripts=(*self.scripts, *scripts))

    def demanding(self, survives: tuple[Survivable, ...] | None) -> ReplicaSpec:
        """Return the same replica, whose egress must survive these events; None leaves it as it is."""
        return replace(self, intent=self.intent.demanding(survives))

    def build(self) -> Lab:
        """Build the replica, and note how its state differs from the host's.

        See :func:`netns_lab.open_lab.build_replica_of`.
        """
        from netns_lab.lab import closed_on_failure
        from netns_lab.open_lab import build_replica_of

        lab = build_replica_of(self.host, self.intent, self.snapshot)
        with closed_on_failure(lab):
            target = self.target_of(lab, ends_lab=False)
            lab.notes.append(target.replica_difference)
            target.close()
        return lab

    def target_of(self, lab: Lab, *, ends_lab: bool = True) -> ReplicaTarget:
        """Return a built replica as a target; ``ends_lab``: closing the target ends the replica."""
        from netns_lab.lab_targets import ReplicaTarget

        return ReplicaTarget(self, lab, ends_lab=ends_lab)

    def open(self) -> ReplicaTarget:
        """Build the replica and open it as a target; see :class:`viacheck.targets.specs.TargetSpec`."""
        from netns_lab.open_lab import open_lab

        return self.target_of(open_lab(self))

    def unopened(self, reason: str) -> TargetRecord:
        """Return the record of a replica that could not be built."""
        from viacheck.model.result import TargetRecord

        return TargetRecord(
            id=self.id, kind="lab", flavour="netns", verdict="inconclusive", title=f"replica of {self.host}",
            intent=self.intent.as_json(), notes=[reason],
        )  # fmt: skip


def replica_of(target: TargetRecord, source: str) -> ReplicaSpec | None:
    """Return the replica of a target of a saved result; None if the result does not hold the target's state.

    Args:
        target: the target's record.
        source: the result's name in messages.

    Raises:
        SelectionError: the target's intent or state is invalid.
    """
    if target.snapshot is None:
        return None
    try:
        intent = parse_intent(target.intent, source=f"--twin: {source}, {target.id}")
        snapshot = read_snapshot(target.snapshot)
    except IntentError as error:
        raise SelectionError(error.mistakes[0]) from None
    except ValidationError as error:
        raise SelectionError(f"--twin: {source}, {target.id}: snapshot.{first_mistake(error, '')}") from None
    return ReplicaSpec(target.id.partition(":")[2], intent, snapshot)


def default_labs() -> list[LabSpec]:
    """Return every netns lab: the targets of a run without options."""
    return [LabSpec(name) for name in SCENARIOS if name not in BLANK]


def parse_labs(text: str, site: Path | None = None, agent: str | None = None) -> list[LabSpec]:
    """Parse ``--lab``: a comma list of ``[engine:|host:|vm:]SCENARIO[@RELEASE|@podman][+FAULT…]``, or ``all``.

    Args:
        text: the value.
        site: the site file that the lab ``blank`` is built from.
        agent: the agents of the file to build a lab for, if it has several; None: all.

    Raises:
        SelectionError: a name is unknown; the message holds the nearest known names. Or a site file or an agent is
            given to a lab that has its own intent, or ``blank`` has no file.
        IntentError: the site file is invalid, or no lab can have what it says.
    """
    if text.strip() == SITE_LAB:
        if site is None:
            raise SelectionError(f"--lab {SITE_LAB} needs --site FILE: the lab is built from the site file")
        return _site_labs(load_agents(site), agent, str(site))
    if site is not None and SITE_LAB not in re.split("[,:+@]", text):
        raise SelectionError(
            f"--site goes with --local, --bundle or --lab {SITE_LAB}; every other lab carries its own intent"
        )
    if agent is not None and SITE_LAB not in re.split("[,:+@]", text):
        raise SelectionError(f"--agent goes with --lab {SITE_LAB}: every other lab has one agent")
    labs: dict[LabSpec, None] = {}
    for name in filter(None, (name.strip() for name in text.split(","))):
        if name == "all":
            labs |= dict.fromkeys([*default_labs(), *(LabSpec(lab.scenario, "engine") for lab in default_labs())])
        else:
            labs[_parse_lab(name)] = None
    if not labs:
        raise SelectionError("--lab: names no lab; '--lab list' prints them all")
    return list(labs)


def lab_of(target: TargetRecord) -> LabSpec:
    """Return the lab of a target that was judged."""
    name, intent = target.id.removeprefix("lab:"), parse_intent(target.intent, source=target.id)
    if name.partition(":")[0] != SITE_LAB:
        return parse_labs(name)[0].demanding(intent.egress.survives)
    return LabSpec(SITE_LAB, site_plan=plan_of_site(intent, target.id), agent=target.agent or SOLE_AGENT)


def _site_labs(intents: Mapping[str, Intent], agent: str | None, source: str) -> list[LabSpec]:
    """Return the lab of each agent that is chosen: each lab has the whole host, and one agent on it."""
    labs, mistakes = [], list[str]()
    for name in agents_chosen(intents, agent, source):
        try:
            labs.append(LabSpec(SITE_LAB, site_plan=plan_of_site(intents[name], source), agent=name))
        except IntentError as error:
            prefix = f"{source}: "
            lines = (line.removeprefix(prefix) for line in error.mistakes)
            mistakes += [f"{prefix}{in_table(name, line) if name else line}" for line in lines]
    if mistakes:
        raise IntentError(list(dict.fromkeys(mistakes)))
    return labs


def _parse_lab(text: str) -> LabSpec:
    flavour: Flavour = "netns"
    name = text
    if ":" in text:
        prefix, name = text.split(":", 1)
        flavours: dict[str, Flavour] = {"netns": "netns", "engine": "engine", "host": "host", "vm": "vm"}
        if prefix not in flavours:
            raise SelectionError(f"--lab: unknown flavour {prefix!r} in {text!r}; allowed: {', '.join(flavours)}")
        flavour = flavours[prefix]
    name, *faults = name.split("+")
    scenario, at, release = name.partition("@")
    if scenario == SITE_LAB:
        raise SelectionError(
            f"--lab: {SITE_LAB} stands alone, without a flavour, a fault or other labs; found {text!r}"
        )
    buildable = _scenarios(flavour, release)
    if scenario not in buildable:
        if scenario in PODMAN_ONLY:
            raise SelectionError(f"--lab: lab {scenario!r} needs podman: engine:{scenario}@{podman.NAME}")
        if scenario in SCENARIOS | WHOLE_HOSTS | VIRTUAL_MACHINES:
            raise SelectionError(f"--lab: lab {scenario!r} has no flavour {flavour!r}; with it: {', '.join(buildable)}")
        raise SelectionError(_unknown("lab", scenario, (*buildable, SITE_LAB)))
    if at and flavour == "netns":
        raise SelectionError(
            f"--lab: {text!r} names a release, which only a whole host, a virtual machine or an engine has "
            f"(host:LAB@{release}, vm:LAB@{release}, engine:LAB@{release})"
        )
    if at and flavour == "engine" and buildable[scenario]().intent.mode.startswith("pipework"):
        raise SelectionError(f"--lab: lab {scenario!r} runs pipework, which the engine of another release lacks")
    allowed = (*RELEASES, podman.NAME) if flavour == "engine" else RELEASES
    if at and release not in allowed:
        raise SelectionError(f"--lab: unknown release {release!r} in {text!r}; allowed: {', '.join(allowed)}")
    for fault in faults:
        if fault not in FAULTS:
            raise SelectionError(_unknown("fault", fault, FAULTS))
        if scenario not in FAULTS[fault].on:
            raise SelectionError(
                f"--lab: fault {fault!r} does not belong to lab {scenario!r}; it goes with "
                + ", ".join(FAULTS[fault].on)
            )
        if FAULTS[fault].flavour == "podman" and release != podman.NAME:
            raise SelectionError(f"--lab: fault {fault!r} needs podman: engine:{scenario}@{podman.NAME}+{fault}")
        if FAULTS[fault].flavour == "host" and flavour != "host":
            raise SelectionError(f"--lab: fault {fault!r} needs a whole host: host:{text.rpartition(':')[2]}")
        if FAULTS[fault].release not in (None, release or DEFAULT_RELEASE):
            needed = FAULTS[fault].release
            raise SelectionError(f"--lab: fault {fault!r} needs {needed}: host:{scenario}@{needed}+{fault}")
    if flavour == "vm":
        return LabSpec(scenario, flavour, tuple(faults), release=release or DEFAULT_RELEASE)
    if flavour != "host" and not at:
        return LabSpec(scenario, flavour, tuple(faults))
    base = BaseRoot(podman.RELEASE if release == podman.NAME else release or DEFAULT_RELEASE)
    return LabSpec(
        scenario, flavour, tuple(faults), announcement=_announced(text, base), release=release or base.release
    )


def _announced(lab: str, base: BaseRoot) -> tuple[str, ...]:
    """Return the line about the base root that a lab builds first."""
    from netns_lab.whole_host.host_requirements import missing_for

    if base.built or missing_for(base) is not None:
        return ()
    return (f"lab {lab} first builds the {base.release} base root: once, about a minute",)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(known)}"
    return f"--lab: unknown {kind} {name!r}; {hint} ('--lab list' prints them all)"


def catalogue() -> Iterator[str]:
    """Yield the lines of ``--lab list``: name, flavour, chapter of the guide; then the faults of each lab."""
    width = max(len(name) for name in SCENARIOS | WHOLE_HOSTS | VIRTUAL_MACHINES) + len("engine:")
    for name, scenario in SCENARIOS.items():
        for flavour in ("netns", "engine"):
            shown = name if flavour == "netns" else f"engine:{name}"
            yield f"{shown:<{width}}  {flavour:<6}  {scenario.guide}"
    for name, scenario in PODMAN_ONLY.items():
        yield f"{f'engine:{name}@{podman.NAME}':<{width}}  engine  {scenario.guide}"
    for name, scenario in WHOLE_HOSTS.items():
        shown = f"host:{name}"
        yield f"{shown:<{width}}  host    {scenario.guide}"
    for name, scenario in VIRTUAL_MACHINES.items():
        shown = f"vm:{name}"
        yield f"{shown:<{width}}  vm      {scenario.title}"
    yield f"{SITE_LAB:<{width}}  netns   {SITE_LAB_TITLE}: --lab {SITE_LAB} --site FILE"
    yield ""
    yield "Faults (LAB+FAULT):"
    for fault in FAULTS.values():
        yield f"  {fault.name:<28}  {fault.title}  [{', '.join(fault.on)}]"


def faults_of(spec: LabSpec) -> list[Fault]:
    """Return the faults that a lab is built with."""
    return [FAULTS[name] for name in spec.faults]
