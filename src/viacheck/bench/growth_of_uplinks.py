"""Growth with the number of uplinks: a lab is built, its state read, and every check run that interrupts nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from fixtures.check_runner import CheckRunner
from netns_lab.builder import build
from netns_lab.draft import LabDraft
from netns_lab.nft_rules import Masquerade
from netns_lab.plan import LabPlan
from netns_lab.scenarios import AGENT_SUBNET
from netns_lab.scenarios.nat import BRIDGE
from viacheck.bench.figures import BenchFailed, Measurement
from viacheck.bench.growth import growth_figures
from viacheck.installation import CHECKS
from viacheck.model.known_checks import CHECK_IDS
from viacheck.model.verdict import Verdict
from viacheck.targets.namespace_target import NamespaceTarget

SIZES = (1, 10, 50)
CHAPTERS = ("host", "nat", "routing", "egress")


def measure(quick: bool) -> Measurement:
    """Check a host with that many uplinks, all of them watched."""
    actions = {size: partial(_check, size) for size in (SIZES[:2] if quick else SIZES)}
    # The first run imports.
    _check(1)
    figures = growth_figures(actions, "{} uplinks: lab, snapshot, every check without an event", 1 if quick else 5)
    return Measurement(name="growth-uplinks", title="Growth with uplinks (CPU time)", figures=figures)


def plan(uplinks: int) -> LabPlan:
    """Describe a host with that many uplinks, whose agent leaves by the default route."""
    lab = LabDraft(f"uplinks-{uplinks}", f"{uplinks} uplinks", "NAT")
    first, *_others = [lab.uplink(f"eth{number}", f"10.20.{number}.0/24") for number in range(uplinks)]
    lab.host.route("default", via=first.gateway, dev="eth0")
    lab.behind_bridge(BRIDGE, AGENT_SUBNET)
    lab.host.packet_filter.append(Masquerade(source=AGENT_SUBNET, not_oif=BRIDGE))
    return lab.finish(
        {
            "agent": {"netns": "/run/netns/agent", "attach": {"mode": "nat", "bridge": BRIDGE}},
            "egress": {"uplink": "eth0", "persist": "none", "survives": []},
            "host": {"default_exit": "eth0"},
        }
    )


def _check(uplinks: int) -> None:
    lab = build(plan(uplinks))
    try:
        target = NamespaceTarget(f"lab:uplinks-{uplinks}", "lab", lab.plan.intent, lab.host.namespace)
        try:
            files = tuple(str(CHECKS / f"test_{chapter}.py") for chapter in CHAPTERS)
            with TemporaryDirectory() as captures:
                results = CheckRunner(files, CHECK_IDS)(target, Path(captures))
        finally:
            target.close()
    finally:
        lab.close()
    bad = [result for result in results if result.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)]
    if bad:
        raise BenchFailed(f"{uplinks} uplinks: {bad[0].check}: {bad[0].verdict}: {bad[0].observed}")
