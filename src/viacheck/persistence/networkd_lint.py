"""What systemd-networkd takes away of what is written down: rules at its start, and what stands under a link with it.

Measured with networkd 252: what it finds at its start and has not set itself goes, but for ``proto kernel``; its own of
before it sets again a moment later. In a container, where /sys is read-only, it removes no rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.config_entry import Place, WrittenRule
from viacheck.model.snapshot import HostFile
from viacheck.persistence import networkd
from viacheck.persistence.assess import Persistence
from viacheck.persistence.config_writer import APPLY, RELOAD, Recipe, beside_the_uplink
from viacheck.persistence.finding import Finding


def purged(resolved: ResolvedIntent, persistence: Persistence) -> Iterator[Finding]:
    """Rules that systemd-networkd takes away when it starts, because this instance of it has not set them."""
    files = resolved.snapshot.files
    purges, place = networkd.purges_foreign(files)
    if not purges or not persistence.rules or not _at_work(persistence):
        return
    foreign = [rule for rule in persistence.rules if not _owned_by_networkd(persistence, rule)]
    if foreign:
        sentence = (
            "systemd-networkd manages a link of this host and removes rules that are not its own whenever it starts; "
            f"the rule of {foreign[0].place} is not"
        )
    else:
        sentence = (
            "systemd-networkd removes every rule that it finds when it starts, also those that it has set itself "
            "before: until it has set them again the agent's packets leave by the main table"
        )
    yield Finding(
        "FOREIGN_RULES_PURGED", place or Place(networkd.CONF, 1, _first_line(files)), sentence, networkd.KEEP_FOREIGN,
        breaks=bool(foreign), by_line=False, file=networkd.KEEP_FOREIGN_PATH,
    )  # fmt: skip


def goes_with_its_link(resolved: ResolvedIntent, persistence: Persistence, recipe: Recipe) -> Iterator[Finding]:
    """Rules of systemd-networkd that stand under the uplink alone, with which it takes them away."""
    if {rule.interface for rule in persistence.rules} != {recipe.uplink}:
        return
    if not all(_owned_by_networkd(persistence, rule) for rule in persistence.rules):
        return
    manager = persistence.reading_of(persistence.rules[0]).manager
    path, text = beside_the_uplink(manager, resolved, recipe)
    yield Finding(
        "LEAK_WHILE_DOWN", persistence.rules[0].place,
        f"systemd-networkd takes the rules of a link away with it: while {recipe.uplink} is down or has no carrier the "
        "agent's packets leave by the main table",
        text, breaks=False, by_line=False, file=path, then=(RELOAD if manager == "networkd" else APPLY,),
    )  # fmt: skip


def _at_work(persistence: Persistence) -> bool:
    """Whether systemd-networkd manages any link, by its own word, else by files where nobody has a word."""
    own = persistence.written["networkd"]
    return own.active or (
        bool(own.holdings) and not any(written.active for written in persistence.written.values())
    )  # fmt: skip


def _owned_by_networkd(persistence: Persistence, rule: WrittenRule) -> bool:
    if rule.typed:
        return False
    manager = persistence.reading_of(rule).manager
    if manager == "netplan":
        return any(holding.now for holding in persistence.written["networkd"].holdings)
    return manager == "networkd"


def _first_line(files: Sequence[HostFile]) -> str:
    return "" if any(file.path == networkd.CONF and file.exists for file in files) else "(no such file)"
