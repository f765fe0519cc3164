"""A check as data: its id, its title, what it needs, and where it applies. ``fixtures.check`` declares a check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from viacheck.model.chapters import CHAPTERS, INTERRUPTIONS
from viacheck.model.intent import Intent, Survivable
from viacheck.model.intent_rules import BY_DRIVER

Need = Literal["snapshot", "docker", "probe", "capture", "disruptive"]
"""The strongest capability that a check needs. ``snapshot`` and ``docker`` checks send no packet."""


@dataclass(frozen=True, slots=True)
class Applies:
    """Where a check applies, and the reason to give where it does not."""

    to: Callable[[Intent], bool]
    otherwise: str


EVERYWHERE = Applies(lambda _intent: True, "")
NAT = Applies(lambda intent: intent.mode == "nat", "the agent is bridged, not NATed")
BRIDGED = Applies(lambda intent: intent.mode != "nat", "the agent is NATed, not bridged")
MACVLAN = Applies(
    lambda intent: intent.mode in BY_DRIVER, "the agent is not attached by Docker's macvlan or ipvlan driver"
)
OWN_MAC = Applies(
    lambda intent: intent.mode not in ("nat", "ipvlan"),
    "the agent is NATed, or shares its parent's MAC address (ipvlan)",
)
PIPEWORK = Applies(lambda intent: intent.mode.startswith("pipework"), "the agent is not attached by pipework")
PIPEWORK_PERSISTENT = Applies(
    lambda intent: intent.mode.startswith("pipework") and intent.egress.persist != "none",
    "the agent is not attached by pipework, or egress.persist says that nothing needs to be persistent",
)
POLICY_ROUTING = Applies(lambda intent: intent.policy_routed, "the intent has no policy routing (egress.table)")
CONTAINER = Applies(lambda intent: intent.agent.container is not None, "the agent is a namespace, not a container")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be true. The id never changes its meaning."""

    id: str
    title: str
    guide: str
    """The chapter of the vendor's guide that the check belongs to."""
    needs: Need
    applies: Applies
    event: Survivable | None = None
    """The event that it watches the agent's packets through; None in a check without, or with another one."""
    judges: tuple[Survivable, ...] = ()
    """The events that it says the egress survives."""
    waits: bool = False
    """Its measurement takes seconds and runs beside other checks: it is judged last before the interruptions."""
    of_host: bool = False
    """It concerns the host alone: of several agents' targets, one judges it."""
    module: str = ""
    """The module that declares the check."""

    @property
    def sends(self) -> bool:
        """Whether the check sends packets, so that a failure may be explained with more of them."""
        return self.needs in ("probe", "capture", "disruptive")

    @property
    def order(self) -> tuple[int, bool, str]:
        """The sort key: checks run by chapter and number. A user's own chapters come last.

        A check that waits runs right before the chapter of the interruptions.
        """
        chapters, chapter = list(CHAPTERS), self.id.partition("-")[0]
        place = chapters.index(chapter) if chapter in CHAPTERS else len(chapters)
        return (chapters.index(INTERRUPTIONS) - 1 if self.waits else place), self.waits, self.id
