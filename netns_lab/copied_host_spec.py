"""The specification of the host that the run was started on, rebooted: its own network files boot in a whole host.

This module imports no builder, so that a usage error is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from netns_lab.scenarios import Flavour
from netns_lab.script import Script
from viacheck.model.intent import Intent, Survivable
from viacheck.model.site_agents import named

if TYPE_CHECKING:
    from netns_lab.lab import Lab
    from netns_lab.lab_targets import LabTarget
    from viacheck.model.result import TargetRecord


@dataclass(frozen=True, slots=True, eq=False)
class CopiedHostSpec:
    """A copy of this host to boot, with one agent of its site file."""

    intent: Intent
    agent: str
    """The agent's name, where the site file has several."""
    scripts: tuple[Script, ...] = ()
    """The scripts to run on the copy before the checks."""
    flavour: Flavour = "host"
    slow: bool = True
    announcement: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """The name of the host in messages: its site, and the agent of several."""
        return named(self.intent.site.name, self.agent)

    @property
    def name(self) -> str:
        """The name, as the report shows it."""
        return f"reboot:{self.host}"

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return self.name

    @property
    def title(self) -> str:
        """The title on the page."""
        return f"{self.host}, rebooted: a copy of this host, booted from the host's own network files"

    def with_scripts(self, *scripts: Script) -> CopiedHostSpec:
        """Return the same copy, with more scripts to run."""
        return replace(self, scripts=(*self.scripts, *scripts))

    def demanding(self, survives: tuple[Survivable, ...] | None) -> CopiedHostSpec:
        """Return the same copy, whose egress must survive these events; None: those of the intent. A reboot always."""
        wanted = self.intent.egress.survives if survives is None else survives
        if wanted is not None and "reboot" not in wanted:
            wanted = (*wanted, "reboot")
        return replace(self, intent=self.intent.demanding(wanted))

    def build(self) -> Lab:
        """Boot the copy; see :func:`netns_lab.open_lab.build_copy_of_this_host`."""
        from netns_lab.open_lab import build_copy_of_this_host

        return build_copy_of_this_host(self.host, self.intent)

    def target_of(self, lab: Lab, *, ends_lab: bool = True) -> LabTarget:
        """Return a booted copy as a target; ``ends_lab``: closing the target ends the copy."""
        from netns_lab.lab_targets import LabTarget

        return LabTarget(self, lab, ends_lab=ends_lab)

    def open(self) -> LabTarget:
        """Boot the copy and open it as a target; see :class:`viacheck.targets.specs.TargetSpec`."""
        from netns_lab.open_lab import open_lab

        return self.target_of(open_lab(self))

    def unopened(self, reason: str) -> TargetRecord:
        """Return the record of a copy that could not be booted."""
        from viacheck.model.result import TargetRecord

        return TargetRecord(
            id=self.id, kind="lab", flavour=self.flavour, verdict="inconclusive", title=self.title,
            agent=self.agent or None, intent=self.intent.as_json(), notes=[reason],
        )  # fmt: skip
