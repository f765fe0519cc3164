"""Which targets a run is about: labs, this host, bundles and twins; says what is wrong with a selection."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from netns_lab.faults import FAULTS, Fault
from netns_lab.plan import LabPlan
from netns_lab.scenarios import BLANK, SCENARIOS
from viacheck.bundle.reader import Bundle
from viacheck.host.capabilities import missing_capabilities
from viacheck.model.exit_status import UsageError
from viacheck.model.intent import Intent, NatAttach
from viacheck.model.snapshot import Snapshot
from viacheck.targets.apply_script import Change

Flavour = Literal["netns", "engine"]


class SelectionError(UsageError):
    """The selection names something that does not exist; the message is one line, ready to be shown."""


@functools.cache
def _intent_of(scenario: str) -> Intent:
    """Return a scenario's intent, validated once: a run over all labs asks for it 8,000 times while it collects."""
    return SCENARIOS[scenario]().intent


@dataclass(frozen=True, slots=True)
class LabSpec:
    """A lab to be built: a scenario in a flavour, with faults in it."""

    scenario: str
    flavour: Flavour = "netns"
    faults: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    """What is run on its host before the checks."""
    mend: str = ""
    """The diagnosis whose remedy is tried in it."""

    @property
    def name(self) -> str:
        """As it is written on the command line."""
        flavour = "engine:" if self.flavour == "engine" else ""
        return flavour + "+".join((self.scenario, *self.faults)) + (f"~{self.mend}" if self.mend else "")

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return f"lab:{self.name}"

    def plan(self) -> LabPlan:
        """The lab's description."""
        return SCENARIOS[self.scenario]()

    @property
    def intent(self) -> Intent:
        """What must be true in it."""
        return _intent_of(self.scenario)


@dataclass(frozen=True, slots=True)
class LocalSpec:
    """The host, or the namespace, that the run was started in."""

    intent: Intent
    site: str
    allow_disruptive: bool = False
    flap_management: bool = False

    @property
    def name(self) -> str:
        """As it is shown beside a check."""
        return "local"

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return f"local:{self.intent.site.name}"


@dataclass(frozen=True, slots=True, eq=False)
class BundleSpec:
    """A host that is known by its bundle."""

    bundle: Bundle

    @property
    def name(self) -> str:
        """As it is shown beside a check."""
        return self.bundle.name

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return f"bundle:{self.bundle.name}"

    @property
    def intent(self) -> Intent:
        """The intent that lies in it."""
        return self.bundle.intent


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaSpec:
    """A host to be rebuilt from its snapshot."""

    host: str
    """What the host is called: its site, or the target of an earlier run."""
    intent: Intent
    snapshot: Snapshot | None
    """None for the host that the run was started on: its snapshot is taken when the twin is built."""
    changes: tuple[Change, ...] = ()
    """What is run on the twin's host before the checks."""
    mend: str = ""
    """The diagnosis whose remedy is tried in it."""

    @property
    def name(self) -> str:
        """As it is shown beside a check."""
        return f"twin:{self.host}" + (f"~{self.mend}" if self.mend else "")

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return self.name


TargetSpec = LabSpec | LocalSpec | BundleSpec | ReplicaSpec


def default_labs() -> list[LabSpec]:
    """Every netns lab: what a run without options is about."""
    return [LabSpec(name) for name in SCENARIOS if name not in BLANK]


def parse_labs(text: str) -> list[LabSpec]:
    """Read the value of ``--lab``: a comma list of ``[engine:]SCENARIO[+FAULT…]``, or ``all``.

    Raises:
        SelectionError: naming what is unknown, with the nearest known names.
    """
    labs: dict[LabSpec, None] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word == "all":
            labs |= dict.fromkeys([*default_labs(), *(LabSpec(lab.scenario, "engine") for lab in default_labs())])
        else:
            labs[_lab(word)] = None
    if not labs:
        raise SelectionError("--lab: names no lab; '--lab list' prints them all")
    return list(labs)


def _lab(word: str) -> LabSpec:
    flavour: Flavour = "netns"
    name = word
    if ":" in word:
        prefix, name = word.split(":", 1)
        if prefix not in ("engine", "netns"):
            raise SelectionError(f"--lab: unknown flavour {prefix!r} in {word!r}; allowed: netns, engine")
        flavour = "engine" if prefix == "engine" else "netns"
    scenario, *faults = name.split("+")
    if scenario not in SCENARIOS:
        raise SelectionError(_unknown("lab", scenario, SCENARIOS))
    for fault in faults:
        if fault not in FAULTS:
            raise SelectionError(_unknown("fault", fault, FAULTS))
        if scenario not in FAULTS[fault].on:
            raise SelectionError(
                f"--lab: fault {fault!r} does not belong to lab {scenario!r}; it goes with "
                + ", ".join(FAULTS[fault].on)
            )
    return LabSpec(scenario, flavour, tuple(faults))


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(known)}"
    return f"--lab: unknown {what} {name!r}; {hint} ('--lab list' prints them all)"


def catalogue() -> Iterator[str]:
    """The lines of ``--lab list``: name, flavour, chapter of the guide; then the faults of each lab."""
    width = max(len(name) for name in SCENARIOS) + len("engine:")
    for name, describe in SCENARIOS.items():
        plan = describe()
        for flavour in ("netns", "engine"):
            shown = name if flavour == "netns" else f"engine:{name}"
            yield f"{shown:<{width}}  {flavour:<6}  {plan.guide}"
    yield ""
    yield "Faults (LAB+FAULT):"
    for fault in FAULTS.values():
        yield f"  {fault.name:<28}  {fault.title}  [{', '.join(fault.on)}]"


def announcement(spec: LocalSpec) -> list[str]:
    """What a run on a live host is about to send, where to, and from where."""
    intent = spec.intent
    changes = "it interrupts the network as said below" if spec.allow_disruptive else "it changes nothing"
    about = f"viacheck judges this host for site {intent.site.name!r} ({spec.site}); {changes}, and sends"
    missing = missing_capabilities()
    if missing is not None:
        return [f"{about} nothing: probes and captures need {missing}"]
    probe = intent.probe
    protocols = ", ".join(
        one.upper() if one == "icmp" else f"{one.upper()} port {probe.port}" for one in probe.protocols
    )
    uplinks = ", ".join(f"{uplink.gateway} on {name}" for name, uplink in intent.uplinks.items())
    attach = intent.agent.attach
    segment = []
    if not isinstance(attach, NatAttach):
        segment = [
            f"  on {attach.parent}'s segment: 4 pings of the agent and 1 of the host to the gateway, 1 ping of the "
            "agent to the host; 4 ARP requests for the gateway, 2 of them from the agent's MAC address; up to 3 ARP "
            "probes from either side for the agent's own address"
            + ("; up to 4 DHCPDISCOVER, never a DHCPREQUEST" if attach.mode == "macvlan" else "")
        ]
    pings = "" if segment else "1 ping to each gateway, "
    return [
        f"{about}:",
        f"  from the agent {intent.agent.name} and from the host, to {probe.target}: {probe.count} each of {protocols}",
        f"  from the agent: {probe.count} DNS queries to its resolver, 1 or 2 full-size packets to {probe.target}, "
        f"{pings}{probe.count} IPv6 probes if it has an address",
        *segment,
        f"  from the host: 1 ARP request each for {uplinks}; a frame to itself on every interface that it watches",
    ]


def faults_of(spec: LabSpec) -> list[Fault]:
    """The faults that a lab is built with."""
    return [FAULTS[name] for name in spec.faults]
