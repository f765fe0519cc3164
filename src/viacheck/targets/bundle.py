"""A bundle as a target: what its snapshot decides is judged, what needs packets is said to need them.

The routing model answers where a live host's kernel would be asked, and predicts where packets would be watched. A
prediction may show that something is wrong; it never proves that all is well.
"""

from __future__ import annotations

from functools import cached_property

from viacheck.analysis.predict import Prediction, predict
from viacheck.bundle.reader import Bundle
from viacheck.host.namespace import Namespace
from viacheck.model.intent import Protocol
from viacheck.model.measurements import KernelAnswer, KernelDecision, Measurements, TrafficMeasurements
from viacheck.model.snapshot import DockerEngine, Snapshot
from viacheck.targets.base import Target

NEEDS_PACKETS = "packets, which a bundle does not hold: run ./viacheck --local on the host itself"


class BundleTarget(Target):
    """A host that is known by its bundle alone. It has no namespace: there is nothing to act in."""

    def __init__(self, target_id: str, bundle: Bundle) -> None:
        """``target_id`` is the id of result.json."""
        self.bundle = bundle
        self.id, self.kind, self.flavour = target_id, "bundle", None
        self.intent = bundle.intent
        self.title = bundle.intent.site.name
        self.measurements = Measurements()
        self.measure_traffic = TrafficMeasurements
        self.gateways: dict[str, Namespace] = {}
        self.recorded = []
        self.engine: DockerEngine | None = bundle.snapshot.engine
        self.agent = None
        self.notes = list(_notes(bundle))

    @cached_property
    def missing_capability(self) -> str | None:
        """What a bundle lacks for everything that sends."""
        return NEEDS_PACKETS

    @cached_property
    def snapshot(self) -> Snapshot:
        """The state that the bundle holds."""
        return self.bundle.snapshot

    def read_agent_file(self, path: str) -> str | None:  # noqa: ARG002 - as on a live target
        """No file of the agent is in a bundle."""
        return None

    def predicted(self, protocol: Protocol) -> Prediction:
        """Where the routing model says that the agent's packets of one protocol leave."""
        return predict(self.resolved, protocol)

    def decided(self, protocol: Protocol) -> KernelDecision:
        """The routing model's decision, in the place of the kernel's own."""
        model = self.resolved.agent_decision(protocol)
        text = f"routing model, as a bundle has no kernel to ask: {model}"
        answer = KernelAnswer(model.outcome, model.interface, model.table, text, None)
        return KernelDecision(answer, model.evidence())

    def close(self) -> None:
        """Nothing is held."""


def _notes(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    notes = [
        f"judged from {bundle.name}, made {manifest.created} by {manifest.made_by}, redaction: {manifest.redaction}; "
        "where it speaks of a way that packets take, it is the routing model's prediction"
    ]
    if any(one.sha256 is None for one in manifest.files):
        notes.append("the host had no sha256sum: nothing shows whether the bundle is still what was collected")
    if manifest.could_not:
        notes.append(f"could not be collected: {'; '.join(manifest.could_not)}")
    return notes
