"""A situation that users of such hosts report: a host of the guide with a few commands more, and the right answer.

The host is built by hand and judged. A printed remedy is typed literally: what failed passes then, what passed still
passes, and the rollback restores rules, routes and packet filter exactly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers.front_door import Finished
from tests.helpers.hand_made import SITE, HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.judgements import PASS, Judgement, assert_bundle_and_replica_agree, judgements

CLOSED_RECIPE = (
    "ip rule del from 172.17.0.0/16 lookup 200",
    "ip rule add pref 990 from 172.17.0.0/16 lookup main suppress_prefixlength 0",
    "ip rule add pref 1000 from 172.17.0.0/16 lookup 200",
    "ip route add unreachable default metric 4278198272 table 200",
)
"""The guide's recipe with rules for the local networks, and a table that fails closed."""

STATE = "ip rule; ip route show table all; nft list ruleset 2>/dev/null | sed 's/packets [0-9]* bytes [0-9]*//'"

EVERY = 4
"""One situation in so many is judged from its bundle and in its replica too; with ``--soak`` each is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One host: the commands that make it of the guide's host, and the right answer."""

    commands: tuple[str, ...]
    expected: Mapping[str, Judgement]
    """Verdict and code of the checks that are judged."""
    site: str = SITE
    tunnel: bool = False
    """The host has a third interface, tun0, behind which the probe target answers as well."""
    named: tuple[str, ...] = ()
    """Texts of the causes."""
    remedy: bool = False
    """The report prints commands for a failing check."""
    still: Mapping[str, Judgement] = field(default_factory=dict)
    """What the remedies leave: by default every check passes."""
    site_file: tuple[str, ...] = ()
    """The lines of the site file that the report asks to correct."""
    in_bundle: Mapping[str, Judgement] = field(default_factory=dict)
    """Verdict and code of checks that a bundle judges otherwise."""
    in_replica: Mapping[str, Judgement] = field(default_factory=dict)
    """The same of its replica, which names what it cannot copy."""
    replica_notes: tuple[str, ...] = ()


@contextlib.contextmanager
def built(situation: Situation) -> Iterator[HandMadeHost]:
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        if situation.tunnel:
            host.uplink("tun0", "10.8.0")
        for command in situation.commands:
            host.run("sh", "-ec", command)
        yield host


def assert_judged_and_corrected(
    situations: Mapping[str, Situation], name: str, folder: Path, config: pytest.Config
) -> None:
    """Judge a situation and type its fixes; judge its bundle and replica too where :data:`EVERY` says so."""
    situation = situations[name]
    with built(situation) as host:
        before = host.run("sh", "-c", STATE)
        done = _judged(host, situation, folder)
        found = judgements(done)
        assert {check: found[check] for check in situation.expected} == dict(situation.expected), done.said
        causes = [r.diagnosis for r in done.outcome.results if r.diagnosis and r.diagnosis.reported_by is None]
        for text in situation.named:
            assert any(text in diagnosis.cause for diagnosis in causes), causes
        assert situation.site_file in ((), *(tuple(diagnosis.site_file) for diagnosis in causes))
        remedies = {tuple(diagnosis.remedy): diagnosis for diagnosis in causes if diagnosis.remedy}
        assert bool(remedies) == situation.remedy, list(remedies)
        if remedies:
            _assert_corrects(host, situation, folder, [list(d.remedy) for d in remedies.values()])
            for diagnosis in reversed(remedies.values()):
                host.run("sh", "-ec", "\n".join(diagnosis.undo))
            assert host.run("sh", "-c", STATE) == before
    if config.option.soak or situation.in_replica or list(situations).index(name) % EVERY == 0:
        assert_bundle_and_replica_agree(
            done,
            situation.expected,
            folder / "saved",
            in_bundle=situation.in_bundle,
            in_replica=situation.in_replica,
            replica_notes=situation.replica_notes,
        )


def _judged(host: HandMadeHost, situation: Situation, folder: Path) -> Finished:
    checks = " or ".join(situation.expected)
    folder.mkdir(exist_ok=True)
    return host.viacheck("-q", "-k", checks, site=write_site(folder, situation.site), report_dir=folder / "report")


def _assert_corrects(host: HandMadeHost, situation: Situation, folder: Path, remedies: list[list[str]]) -> None:
    """Type the remedies in the order of the report, and judge again."""
    for lines in remedies:
        host.run("sh", "-ec", "\n".join(lines))
    after = _judged(host, situation, folder / "corrected")
    found = judgements(after)
    assert {check: found[check] for check in situation.expected} == {
        check: situation.still.get(check, PASS) for check in situation.expected
    }, after.said
