"""A bundle as a target: checks judge its snapshot, and name the packets that the rest needs.

The routing model answers in place of a kernel, and predicts in place of a capture. A prediction can show a fault; it
cannot prove that there are no faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from viacheck.analysis.predict import predict
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.bundle.reader import Bundle
from viacheck.host.command import RecordedCommand
from viacheck.model.intent import Intent, TransportProtocol
from viacheck.model.measurements import KernelAnswer, KernelDecision
from viacheck.model.result import TargetRecord
from viacheck.model.site_agents import named
from viacheck.model.snapshot import Snapshot
from viacheck.model.snapshot_json import snapshot_json
from viacheck.targets.base import Forecast, UpstreamFindings
from viacheck.targets.specs import title_of

if TYPE_CHECKING:
    from viacheck.disruption.disruption_tests import DisruptionTests
    from viacheck.packets.traffic_tests import TrafficTests

NEEDS_PACKETS = "packets, which a bundle does not hold: run viacheck --local on the host itself"


class PacketsNeeded(Exception):
    """A bundle was asked for something that needs packets."""


@dataclass(frozen=True, slots=True, eq=False)
class BundleSpec:
    """A host of which only a bundle is there."""

    bundle: Bundle
    host_judged_by: str | None = None
    """The target that judges what concerns the host alone; None: this one."""
    slow: bool = False
    announcement: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name beside a check."""
        return named(self.bundle.name, self.bundle.agent)

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return f"bundle:{self.name}"

    @property
    def intent(self) -> Intent:
        """The intent in the bundle."""
        return self.bundle.intent

    def open(self) -> BundleTarget:
        """Return the target; there is nothing to open."""
        return BundleTarget(self.id, self.bundle, self.host_judged_by)

    def unopened(self, reason: str) -> TargetRecord:
        """Return the record of a bundle that could not be judged."""
        return TargetRecord(
            id=self.id, kind="bundle", verdict="inconclusive", agent=self.bundle.agent or None,
            intent=self.intent.as_json(), notes=[reason],
        )  # fmt: skip


class BundleTarget:
    """A host of which only a bundle is there. It has no namespaces."""

    kind: Literal["lab", "local", "bundle"] = "bundle"
    host = None
    agent = None
    disruption = None
    missing_capability = NEEDS_PACKETS
    replay_obstacle = "the lines of a bundle are not run on its reader's machine"
    recorded: tuple[RecordedCommand, ...] = ()

    def __init__(self, target_id: str, bundle: Bundle, host_judged_by: str | None = None) -> None:
        """Take the bundle over.

        Args:
            target_id: the id in result.json.
            bundle: the bundle, of one agent.
            host_judged_by: the id of the target that judges what concerns the host alone; None: this one.
        """
        self.id, self.bundle, self.intent, self.host_judged_by = target_id, bundle, bundle.intent, host_judged_by

    @property
    def snapshot(self) -> Snapshot:
        """The state in the bundle."""
        return self.bundle.snapshot

    @property
    def agent_name(self) -> str | None:
        """The name of the agent, where the site file has several."""
        return self.bundle.agent or None

    @cached_property
    def resolved(self) -> ResolvedIntent:
        """The intent, resolved against the snapshot."""
        return ResolvedIntent(self.intent, self.snapshot)

    def forecast(self, protocol: TransportProtocol) -> Forecast:
        """Return where the routing model sends the agent's packets of one protocol."""
        prediction = predict(self.resolved, protocol)
        return Forecast(prediction.as_intended, prediction.text, NEEDS_PACKETS)

    def kernel_decision(self, protocol: TransportProtocol) -> KernelDecision:
        """Return the routing model's decision, as a bundle has no kernel."""
        model = self.resolved.agent_decision(protocol)
        text = f"{model} (by the routing model: a bundle has no kernel to ask)"
        answer = KernelAnswer(model.outcome, model.interface, model.table, text, None)
        return KernelDecision(answer, model.evidence())

    def traffic_tests(self, captures: Path) -> TrafficTests:  # noqa: ARG002 - of the protocol Target
        """Raise PacketsNeeded."""
        raise PacketsNeeded(NEEDS_PACKETS)

    def disruption_tests(self) -> DisruptionTests:
        """Raise PacketsNeeded."""
        raise PacketsNeeded(NEEDS_PACKETS)

    def note_changes(self) -> bool:
        """Return False: a bundle does not change."""
        return False

    def note_upstream(self, findings: UpstreamFindings) -> None:
        """Note nothing: no packet is sent for a bundle."""

    def record(self) -> TargetRecord:
        """Return the target's part of result.json. Its verdict is set when all results are known."""
        return TargetRecord(
            id=self.id, kind=self.kind, verdict="inconclusive", title=title_of(self.intent, self.bundle.agent),
            agent=self.bundle.agent or None, intent=self.intent.as_json(), snapshot=snapshot_json(self.snapshot),
            notes=_notes(self.bundle),
        )  # fmt: skip

    def close(self) -> None:
        """Do nothing: a bundle holds nothing open."""


def _notes(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    notes = [
        f"judged from {bundle.name}, made {manifest.created} by {manifest.made_by}, redaction: {manifest.redaction}; "
        "every statement about packets is a prediction of the routing model"
    ]
    if any(file.sha256 is None for file in manifest.files):
        notes.append("the host had no sha256sum: whether the bundle was changed since cannot be verified")
    if manifest.could_not:
        notes.append(f"could not be collected: {'; '.join(manifest.could_not)}")
    return notes
