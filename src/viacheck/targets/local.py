"""The host that the run was started on, as a target."""

from __future__ import annotations

from viacheck.disruption.live import LiveDisruption
from viacheck.host.namespace import Namespace
from viacheck.model.diff import changes
from viacheck.model.intent import Intent
from viacheck.targets.namespace_target import NamespaceTarget
from viacheck.targets.specs import LocalSpec

CHANGES_SHOWN = 10


class LocalTarget(NamespaceTarget):
    """The host, or the network namespace, that this process runs in."""

    def __init__(self, target_id: str, intent: Intent) -> None:
        """Open the namespaces of the host and the agent; ``target_id`` is the id in result.json."""
        super().__init__(target_id, "local", intent, Namespace.current(), title=intent.site.name)

    @property
    def replay_obstacle(self) -> str | None:  # type: ignore[override]
        """A replay runs in a lab, which needs capabilities."""
        return f"a lab needs {self.missing_capability}" if self.missing_capability is not None else None

    def note_changes(self) -> bool:
        """Read the state once more; every difference from the snapshot is an alert."""
        differences = changes(self.snapshot, self.read_state())
        if not differences:
            self.notes.append("nothing on this host was changed")
            return True
        shown = [str(difference) for difference in differences[:CHANGES_SHOWN]]
        if len(differences) > len(shown):
            shown.append(f"and {len(differences) - len(shown)} more")
        self.alerts.append(f"the state changed during the run: {'; '.join(shown)}")
        return True

    def close(self) -> None:
        """Close the namespaces of the agent and the host."""
        super().close()
        self.host.close()


def open_local(spec: LocalSpec) -> LocalTarget:
    """Open the host that this process runs on, with the consent to interruptions that the user gave."""
    target = LocalTarget(spec.id, spec.intent)
    target.disruption = LiveDisruption(
        target, spec.site, asked=spec.allow_disruptive, flap_management=spec.flap_management
    )
    return target
