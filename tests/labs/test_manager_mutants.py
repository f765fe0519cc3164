"""Random small changes of managers' healthy files: PERSIST-01 holds exactly when the manager sets rule and route.

A manager starts in a whole host whose interfaces, rules and manager state are as after a boot, without a boot for each
change: so a change takes a second. ``--soak`` tries 160 changes, and CI a fixed sample. With ``--soak`` a host without
an engine is booted for each of 160 more changes.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from netns_lab.lab import Lab
from netns_lab.lab_specs import parse_labs
from netns_lab.open_lab import open_lab
from netns_lab.scenarios import BRIDGE, WHOLE_HOSTS
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, BaseRoot
from netns_lab.whole_host.host_lab import boot_host
from netns_lab.whole_host.host_requirements import missing_for
from netns_lab.whole_host.root_files import NO_UNIT, UNITS, RootFile, root_files
from tests.helpers.manager_mutants import CASES, ManagerCase, as_it_is, disagreement, mutants, sets_both, settle
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.persistence.assess import assess_persistence

BASE = BaseRoot(DEFAULT_RELEASE)
_MISSING = missing_for(BASE)
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))
SAMPLE, SOAK = 5, 40
"""Changes of each manager's files, in CI and with ``--soak``."""
AS_AFTER_A_BOOT = """
for priority in $(ip rule show | sed -n 's/^\\([0-9]*\\):.*/\\1/p' | grep -vx -e 0 -e 32766 -e 32767); do
    ip rule del priority $priority
done
ip route flush table 200
for name in eth0 wlan0; do ip address flush dev $name; ip link set $name down; done
rm -rf /run/network/ifstate* /run/systemd/netif/links /run/systemd/netif/state /run/systemd/network /run/NetworkManager
"""
NO_ENGINE = {f"{UNITS}/{unit}": RootFile(link_to=NO_UNIT) for unit in ("docker.service", "docker.socket")}
"""A boot without the engine takes a second less."""


@dataclass
class Bench:
    """A whole host in which one manager after another is started."""

    lab: Lab
    resolved: ResolvedIntent
    """The host after its first boot; its agent and its bridge stay."""

    def run(self, *argv: str) -> str:
        """Run a command on the host; return its output."""
        return self.lab.host.namespace.run(argv, 60).stdout

    def started(self, case: ManagerCase, changed: dict[str, str]) -> ResolvedIntent:
        """Return the host once the manager has started from its files, of which some are changed."""
        for other in CASES.values():
            self.run("systemctl", "stop", *other.units)
            self.run("rm", "-f", *WHOLE_HOSTS[other.scenario]().files)
        for path, text in (WHOLE_HOSTS[case.scenario]().files | changed).items():
            self.run("mkdir", "-p", path.rpartition("/")[0])
            self.lab.host.write(path, text)
            self.run("chmod", "600" if path.endswith((".yaml", ".nmconnection")) else "644", path)
        self.run("sh", "-c", AS_AFTER_A_BOOT)
        for command in case.prepare:
            self.run(*command)
        self.run("systemctl", "reset-failed", case.units[0])
        self.run("systemctl", "start", case.units[0])
        settle(case, self.run)
        return as_it_is(self.lab.host.namespace, self.resolved)

    def booted(self, case: ManagerCase, changed: dict[str, str]) -> ResolvedIntent:
        """Return another host, without an engine, after a boot from the manager's files, of which some are changed."""
        plan = WHOLE_HOSTS[case.scenario]()
        # The link watcher would set the route whatever ifupdown's file says.
        plan = replace(plan, files=plan.files | changed, link_hook=None)
        lab, _whole_host = boot_host(plan, BASE, root_files(plan) | NO_ENGINE)
        with contextlib.closing(lab):
            host = lab.host.namespace
            settle(case, lambda *argv: host.run(argv, 60).stdout)
            # The engine's own.
            lab.host.ip("link", "add", BRIDGE, "type", "bridge")
            lab.host.ip("address", "add", "172.17.0.1/16", "dev", BRIDGE)
            return as_it_is(host, self.resolved)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    BASE.build(lambda _line: None)
    (spec,) = parse_labs("host:policy-routing-nm")
    lab = open_lab(spec)
    try:
        lab.host.run("systemctl", "enable", "systemd-networkd.service")
        target = spec.target_of(lab, ends_lab=False)
        yield Bench(lab, target.resolved)
        target.close()
    finally:
        lab.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        metafunc.parametrize("way", ("started", "booted") if metafunc.config.option.soak else ("started",))


@pytest.mark.parametrize("manager", CASES)
def test_the_verdict_from_the_files_is_what_the_manager_does(
    bench: Bench, manager: str, way: str, pytestconfig: pytest.Config
) -> None:
    soak, boots = pytestconfig.option.soak, way == "booted"
    case, chooser = CASES[manager], random.Random(f"{manager} {way}" if boots else manager)
    bring_up = bench.booted if boots else bench.started
    healthy = WHOLE_HOSTS[case.scenario]().files
    resolved = bring_up(case, {})
    assert assess_persistence(resolved).holds
    assert sets_both(resolved), "the healthy files"
    changes = [mutants(healthy[path], chooser) for path in case.files]
    wrong, outcomes = [], set()
    for _number in range(SOAK if soak else SAMPLE):
        at = chooser.randrange(len(changes))
        what, text = next(changes[at])
        resolved = bring_up(case, {case.files[at]: text})
        outcomes.add(sets_both(resolved))
        if (difference := disagreement(resolved)) is not None:
            wrong.append(f"{case.files[at]} {what}: {difference}")
    assert not wrong, "\n".join(wrong)
    assert outcomes == {True, False}, "changes of both kinds were tried"
