"""The part of lint about systemd-networkd: it removes foreign rules at its start, and a link's rules with the link.

Measured with networkd 252: when it starts, it removes what it finds and has not set itself, except ``proto kernel``; it
removes its own rules of an earlier start too and sets them again a moment later. In a container, where /sys is
read-only, it removes no rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.config_entry import Place, WrittenRule
from viacheck.model.snapshot import HostFile
from viacheck.persistence import networkd
from viacheck.persistence.assess import Persistence
from viacheck.persistence.config_writer import APPLY, RELOAD, Recipe, loopback_config
from viacheck.persistence.finding import Finding


def purged_rules(resolved: ResolvedIntent, persistence: Persistence) -> Iterator[Finding]:
    """Find the rules that systemd-networkd removes when it starts, because this instance of it has not set them."""
    files = resolved.snapshot.files
    purges, place = networkd.purges_foreign(files)
    if not purges or not persistence.rules or not _is_running(persistence):
        return
    foreign = [rule for rule in persistence.rules if not _owned_by_networkd(persistence, rule)]
    if foreign:
        sentence = (
            "systemd-networkd manages a link of this host and removes foreign rules whenever it starts; the rule of "
            f"{foreign[0].place} is foreign to it"
        )
    else:
        sentence = (
            "when systemd-networkd starts, it removes every rule that it finds, those of its own earlier start too: "
            "until it has set them again, the agent's packets leave by the main table"
        )
    yield Finding(
        "FOREIGN_RULES_PURGED", place or Place(networkd.CONF, 1, _first_line(files)), sentence, networkd.KEEP_FOREIGN,
        breaks=bool(foreign), by_line=False, file=networkd.KEEP_FOREIGN_PATH,
    )  # fmt: skip


def rules_lost_with_link(resolved: ResolvedIntent, persistence: Persistence, recipe: Recipe) -> Iterator[Finding]:
    """Find the rules that stand under the uplink alone: systemd-networkd removes them together with it."""
    if {rule.interface for rule in persistence.rules} != {recipe.uplink}:
        return
    if not all(_owned_by_networkd(persistence, rule) for rule in persistence.rules):
        return
    manager = persistence.config_of(persistence.rules[0]).manager
    path, text = loopback_config(manager, resolved, recipe)
    yield Finding(
        "LEAK_WHILE_DOWN", persistence.rules[0].place,
        f"systemd-networkd removes the rules of a link together with it: while {recipe.uplink} is down or has no "
        "carrier, the agent's packets leave by the main table",
        text, breaks=False, by_line=False, file=path, reload=(RELOAD if manager == "networkd" else APPLY,),
    )  # fmt: skip


def _is_running(persistence: Persistence) -> bool:
    """Whether systemd-networkd manages a link: by its own state, or by its files where no manager has a state."""
    own = persistence.configs["networkd"]
    return own.active or (bool(own.links) and not any(config.active for config in persistence.configs.values()))


def _owned_by_networkd(persistence: Persistence, rule: WrittenRule) -> bool:
    if rule.typed:
        return False
    manager = persistence.config_of(rule).manager
    if manager == "netplan":
        return persistence.configs["networkd"].active
    return manager == "networkd"


def _first_line(files: Sequence[HostFile]) -> str:
    return "" if any(file.path == networkd.CONF and file.exists for file in files) else "(no such file)"
