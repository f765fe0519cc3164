"""Whole hosts: a Debian with systemd as PID 1 boots, is judged from outside, is really rebooted, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fixtures.check_runner import CheckRunner
from netns_lab import cgroups
from netns_lab.lab import Lab, LabMachine
from netns_lab.lab_specs import LabSpec, parse_labs
from netns_lab.lab_targets import LabTarget
from netns_lab.open_lab import open_lab
from netns_lab.script import Script
from netns_lab.whole_host import power, power_control
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from netns_lab.whole_host.power import ROOTS_ENVIRONMENT
from netns_lab.whole_host.unit_states import failed_units
from reports.run_diff import differences
from tests.helpers.disruptions import carried_out, not_run, through
from tests.helpers.front_door import Finished, by_check, run_once, severity, sub_command, viacheck
from tests.helpers.guarded_host import until
from tests.helpers.paths import ROOT
from tests.helpers.process_plugin import PLUGIN, WRITTEN_TO, ran_by_process
from tests.helpers.processes import descendants
from viacheck.analysis.disruption_text import disruption_text
from viacheck.disruption.disruption_tests import DisruptionTests
from viacheck.host.command import CommandResult
from viacheck.installation import CHECKS
from viacheck.model.intent import FIREWALL_RELOADS, SIDE_EVENTS
from viacheck.model.intent_draft import draft
from viacheck.model.intent_file import parse_intent
from viacheck.model.measurements import EventName, EventObstacle, FlowKind
from viacheck.model.result import CheckResult, Run, RunResult
from viacheck.model.snapshot_json import read_snapshot
from viacheck.model.verdict import Verdict
from viacheck.persistence.assess import manager_of, read_all
from viacheck.targets.namespace_target import NamespaceTarget

NETWORKD, IFUPDOWN, NM = (f"host:policy-routing-{manager}" for manager in ("networkd", "ifupdown", "nm"))
MACVLAN = "host:macvlan-ifupdown"
_BASE = BaseRoot(DEFAULT_RELEASE)
_MISSING = missing_for(_BASE)
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))
SYSCTLS = ("fs", "kernel", "net", "vm")
CHANGES_BY_ITSELF = ("nf_conntrack_count", "random", "pty/nr", "inode", "dentry", "file-nr", "ns_last_pid", "aio-nr")


@pytest.fixture(scope="module", autouse=True)
def _base_root() -> None:
    _BASE.build(lambda _line: None)


def test_systemd_is_the_first_process_and_every_unit_runs(opened: Callable[[str], NamespaceTarget]) -> None:
    target = opened(NETWORKD)
    assert target.flavour == "host"
    assert target.host.run(["cat", "/proc/1/comm"]).stdout == "systemd\n"
    assert target.host.run(["systemctl", "is-system-running"]).stdout == "running\n", failed_units(target.host)
    assert target.host.run(["stat", "-fc", "%T", "/sys/fs/cgroup"]).stdout == "cgroup2fs\n"
    for path in ("/proc/sys/fs/file-max", "/sys/devices/system", "/sys/kernel", "/proc/sysrq-trigger"):
        assert not target.host.run(["test", "-w", path]).ok, f"the machine's own {path} can be written"
    assert target.host.run(["test", "-w", "/sys/class/net/eth0/mtu"]).ok, "udev cannot write the host's own devices"
    assert target.host.run(["no-such-program"]).exit_code == 127
    assert target.host.run(["env"]).stdout.splitlines() == [
        f"{name}={value}" for name, value in ROOTS_ENVIRONMENT.items()
    ]
    for argv in (["ip", "address", "show"], ["iptables-nft-save"]):
        assert "docker0" in target.host.run(argv).stdout
        inside = target.host.run(["sh", "-c", " ".join(argv)])
        assert _without_times(target.host.run(argv)) == _without_times(inside), (
            "a shell is in all of the host's namespaces"
        )


def _without_times(result: CommandResult) -> list[str]:
    return [line for line in result.stdout.splitlines() if not line.startswith("#")]


def test_the_reboot_is_real_and_nothing_leaks(
    opened: Callable[[str], NamespaceTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, open_lab_target = opened(NETWORKD), LabSpec.open
    clones: list[LabTarget] = []

    def open_clone(spec: LabSpec) -> LabTarget:
        clones.append(open_lab_target(spec))
        return clones[-1]

    monkeypatch.setattr(LabSpec, "open", open_clone)
    disruptions = DisruptionTests(target)
    restarts: tuple[EventName, ...] = ("networkd-restart", "container-restart", "engine-restart")
    disruptions.expect(("reboot", *restarts, *SIDE_EVENTS))
    for name in restarts:
        restart = through(disruptions, name)
        assert restart.survived(30), disruption_text(restart)
    reboot = carried_out(disruptions.after_reboot())
    assert reboot.survived(30), disruption_text(reboot)
    assert reboot.leaked == 0, disruption_text(reboot)
    assert not reboot.unproven
    steps = [event.what for event in reboot.timeline.events if event.lane == "event"]
    off = "the host is off, and gets new interfaces"
    assert steps == ["systemctl reboot", off, "the host is powered on", "the boot is complete"]
    assert " after power-on left " in reboot.timeline.figures[0]
    # Between the boots the agent is away, and the rules are gone with the kernel's network state.
    assert all(flow.kind is FlowKind.RECOVERS and flow.lost > 0 for flow in reboot.flow_results)
    assert any("gone: rule priority 1000" in event.what for event in reboot.timeline.events)
    # What others do on the side: the packet filters' programs do not run on this host.
    with contextlib.closing(disruptions):
        made = {name: disruptions.through(name) for name in SIDE_EVENTS}
    for name, result in made.items():
        if name in FIREWALL_RELOADS:
            assert not_run(result).obstacle is EventObstacle.NOT_APPLICABLE, result
        else:
            assert carried_out(result).survived(30), disruption_text(carried_out(result))
    # A busy machine may break an event, which a new clone shows once more.
    assert len(clones) < len(restarts), "the events share a clone, the reboot too"


def test_the_disk_outlives_a_boot_and_nothing_else_does(tmp_path: Path) -> None:
    (spec,) = parse_labs(NETWORKD)
    changed = spec.with_scripts(Script("change.sh", "touch /root/kept\n", str(tmp_path)))
    with contextlib.closing(open_lab(changed)) as lab:
        state = saved(changed, lab)
        lab.host.write("/run/lost", "")
        lab.host.ip("rule", "add", "priority", "7", "from", "10.99.0.0/16", "lookup", "201")
        before = boots(lab)
        control = spec.target_of(lab, ends_lab=False).services.power
        assert control is not None
        assert lab.engine is not None
        files = control.files_for_next_boot()
        assert {"/root/kept", "/etc/machine-id"} <= files.keys()
        lab.engine.containers.set_restart_policy(lab.agent_container, "no")
        (changed_file,) = (path for path, digest in control.files_for_next_boot().items() if files.get(path) != digest)
        assert changed_file.startswith("/var/lib/docker/containers/")
        lab.engine.containers.set_restart_policy(lab.agent_container, "unless-stopped")
        # An engine that was killed makes the namespace of the former container once more before it starts it.
        lab.host.run("systemctl", "mask", "--quiet", "--runtime", "docker.service", "docker.socket")
        lab.host.run("systemctl", "kill", "--signal", "KILL", "docker.service")
        control.reboot()
        control.plug_in()
        control.power_on()
        # On a slow machine the former one may be gone before it is seen.
        first = control.wait_for_agent()
        agent = control.wait_until_booted() or first
        lab.machines[lab.plan.agent.name] = LabMachine(lab.plan.agent, agent)
        assert "eth0" in agent.run(["ip", "-br", "link", "show", "up"]).stdout
        # What a boot draws or counts anew, such as MAC addresses, is no difference to 'viacheck diff'.
        assert differences(state, saved(changed, lab)) == []
        assert control.files_for_next_boot() == files
        assert lab.host.run("ls", "/root").stdout == "kept\n"
        assert "lost" not in lab.host.run("ls", "/run").stdout
        assert lab.host.namespace.run(["ip", "rule", "show", "priority", "7"]).stdout == ""
        assert boots(lab) == before + 1


SURVIVAL = (str(CHECKS / "test_survival.py"),)
NO_CLONE = "the lab's clone for the event cannot be built"
HANGING_UNIT = """\
[Unit]
Before=docker.service
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=sleep infinity
[Install]
WantedBy=multi-user.target
"""


def test_a_host_that_is_still_booting_is_no_verdict_on_its_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bounds are shortened, and the boot is a real one that hangs in a unit."""
    (spec,) = parse_labs(NETWORKD)
    unit = "/etc/systemd/system/hangs.service"
    script = f"cat >{unit} <<'END'\n{HANGING_UNIT}END\nsystemctl --quiet enable hangs.service\n"
    spec = spec.with_scripts(Script("hang.sh", script, str(tmp_path)))
    with contextlib.closing(spec.open()) as target, monkeypatch.context() as bounds:
        bounds.setattr(power, "BOOTED_WITHIN", 0.0)
        bounds.setattr(power, "ASK_AGAIN_WITHIN", 0.01)
        (restart,) = CheckRunner(SURVIVAL, frozenset({"FLAP-09"}))(target, tmp_path)
        assert restart.verdict is Verdict.INCONCLUSIVE
        assert restart.observed.startswith(f"{NO_CLONE}: lab {NETWORKD}: the boot is not complete after 0 s: ")
        assert "\n" not in restart.observed
        # Its own next boot is the one that hangs.
        target.services = replace(target.services, clone=lambda: target)
        bounds.setattr(power_control, "AGENT_WITHIN", 5.0)
        (reboot,) = CheckRunner(SURVIVAL, frozenset({"FLAP-08"}))(target, tmp_path)
    assert reboot.verdict is Verdict.INCONCLUSIVE
    assert reboot.diagnosis is None
    assert reboot.observed.startswith("a reboot: the boot is not complete after 5 s: ")
    assert "docker.service" in reboot.observed
    assert "hangs.service" in reboot.observed


def saved(spec: LabSpec, lab: Lab) -> RunResult:
    """The state of a lab's host as result.json holds it."""
    target = spec.target_of(lab, ends_lab=False)
    return RunResult(run=Run(id="", started="", finished="", command=""), targets=[target.record()], results=[])


def boots(lab: Lab) -> int:
    return len(lab.host.run("journalctl", "--list-boots", "--quiet", "--no-pager").stdout.splitlines())


FLUSHED, PURGED = f"{NETWORKD}+nftables-flushes-nat", f"{NETWORKD}+reconfigure-purges-rules"


def test_what_others_do_on_the_side_breaks_a_host_with_the_right_diagnosis(tmp_path: Path) -> None:
    events = "FLAP-12 and (flushes and nftables-restart or purges and networkd-reconfigure)"
    processes = tmp_path / "processes"
    options = (*PLUGIN, "--lab", f"{FLUSHED},{PURGED}", "-k", events)
    run = viacheck(*options, report_dir=tmp_path / "report", env={WRITTEN_TO: str(processes)})
    assert len(ran_by_process(processes)) == 2, "the hosts are judged beside each other"
    flushed, purged = (worse(run, lab)["FLAP-12"] for lab in (FLUSHED, PURGED))
    assert flushed.diagnosis is not None
    assert flushed.diagnosis.code == "MASQUERADE_MISSING"
    assert "PartOf=nftables.service" in flushed.diagnosis.remedy[0]
    assert purged.diagnosis is not None
    assert purged.diagnosis.code == "FOREIGN_RULES_PURGED"
    assert "2 rules missing" in purged.observed


WITHOUT_RULE, TOO_EARLY = f"{IFUPDOWN}+no-post-up", f"{IFUPDOWN}+rule-after-docker"
NOT_STARTED = f"{NETWORKD}+container-not-started"
NETPLAN_WITHOUT_RULE = "host:policy-routing-netplan+netplan-without-rule"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run through the front door: three healthy labs and four with a fault."""
    labs = ",".join((IFUPDOWN, NM, MACVLAN, WITHOUT_RULE, TOO_EARLY, NOT_STARTED, NETPLAN_WITHOUT_RULE))
    options = ("--lab", labs, "-k", "EGRESS-01 or PERSIST or FLAP-08 or FLAP-11", "-n", "2")
    return run_once(tmp_path_factory, "whole-hosts", lambda folder: viacheck(*options, report_dir=folder))


def worse(run: Finished, lab: str) -> dict[str, CheckResult]:
    """The results of a lab that are a reason to act."""
    results = by_check(run.outcome, f"lab:{lab}")
    assert results, run.said
    return {check: case for check, cases in results.items() for case in cases if severity([case])}


def test_healthy_hosts_pass_through_the_front_door(run: Finished) -> None:
    assert worse(run, IFUPDOWN) == worse(run, NM) == worse(run, MACVLAN) == {}
    (reboot,) = by_check(run.outcome, f"lab:{MACVLAN}")["FLAP-08"]
    assert reboot.verdict is Verdict.PASS, "the engine attached the container to its parent again"
    (restart,) = by_check(run.outcome, f"lab:{NM}")["FLAP-11"]
    assert restart.verdict is Verdict.PASS, "NetworkManager was restarted"
    assert {target.flavour for target in run.outcome.targets} == {"host"}
    assert run.exit_code == 1


@pytest.mark.parametrize(("lab", "persist"), [(IFUPDOWN, "ifupdown"), (NM, "networkmanager")])
def test_the_draft_of_a_healthy_host_is_its_site_file(run: Finished, lab: str, persist: str) -> None:
    (record,) = (target for target in run.outcome.targets if target.id == f"lab:{lab}")
    snapshot, (spec,) = read_snapshot(record.snapshot), parse_labs(lab)
    manager = partial(manager_of, read_all(snapshot))
    drafted = draft({"": snapshot}, {200: "wlan0rt"}, manager, netns=spec.intent.agent.netns)
    intent = parse_intent(tomllib.loads(drafted.text), source="site.toml")
    egress, meant = intent.egress, spec.intent.egress
    assert (egress.uplink, egress.table, egress.table_name) == (meant.uplink, meant.table, meant.table_name)
    assert egress.persist == persist
    assert (intent.mode, intent.uplinks, intent.host) == (spec.intent.mode, spec.intent.uplinks, spec.intent.host)


def test_a_rule_that_is_not_written_down_is_gone_after_the_reboot(run: Finished) -> None:
    results = worse(run, WITHOUT_RULE)
    assert results.keys() == {"PERSIST-01", "FLAP-08"}
    reboot = results["FLAP-08"]
    assert reboot.verdict is Verdict.FAIL
    assert "1 rule missing" in reboot.observed
    assert "left by eth0" in reboot.observed
    assert reboot.diagnosis is not None
    assert reboot.diagnosis.code == "NOT_PERSISTENT"


def test_an_engine_that_does_not_start_the_container_is_seen_after_the_reboot(run: Finished) -> None:
    results = worse(run, NOT_STARTED)
    assert results.keys() == {"FLAP-08"}
    reboot = results["FLAP-08"]
    assert reboot.observed == "a reboot: the container te-agent does not run after the boot"
    assert reboot.diagnosis is not None
    assert reboot.diagnosis.code == "AGENT_NOT_RUNNING"


def test_an_agent_that_starts_before_its_rule_leaks_at_boot(run: Finished) -> None:
    results = worse(run, TOO_EARLY)
    assert results.keys() == {"FLAP-08"}
    assert results["FLAP-08"].diagnosis is not None
    assert results["FLAP-08"].diagnosis.code == "LEAK_AT_BOOT"
    assert "leaks" in results["FLAP-08"].observed


def test_a_rule_that_netplan_does_not_know_is_gone_once_netplan_is_applied(run: Finished) -> None:
    results = worse(run, NETPLAN_WITHOUT_RULE)
    assert results.keys() == {"PERSIST-01", "FLAP-08", "FLAP-11"}
    for check in results:
        diagnosis = results[check].diagnosis
        assert diagnosis is not None
        assert diagnosis.code == "NOT_PERSISTENT", results[check]
    assert "4 rules missing" in results["FLAP-11"].observed


RC_LOCAL, UNIT = "host:pipework-rc-local", "host:pipework-unit"


def test_pipework_attaches_the_agent_after_a_reboot_or_the_report_says_why_not(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    broken = f"{RC_LOCAL}+boot-rc-local-not-executable"
    labs = [UNIT, broken]
    if pytestconfig.option.releases:
        labs += [RC_LOCAL, f"{UNIT}+pipework-unit-not-enabled"]
    checks = "PIPEWORK-05 or FLAP-08"
    run = viacheck("--lab", ",".join(labs), "-k", checks, "-n", "2", report_dir=tmp_path)
    for lab in labs:
        results = worse(run, lab)
        assert results.keys() == ({"PIPEWORK-05", "FLAP-08"} if "+" in lab else set()), run.said
        for check in results:
            diagnosis = results[check].diagnosis
            assert diagnosis is not None
            assert diagnosis.code == "PIPEWORK_NOT_PERSISTENT"


REPAIRED = (
    f"{NM}+nm-without-rule", NETPLAN_WITHOUT_RULE, f"{IFUPDOWN}+networking-not-enabled"
)  # fmt: skip


def test_the_remedies_of_a_managers_files_are_verified_and_rolled_back(tmp_path: Path) -> None:
    options = ("--lab", ",".join(REPAIRED), "-k", "PERSIST-01 or ROUTE-06", "-n", "2", "--mend-in-lab")
    run = viacheck(*options, report_dir=tmp_path)
    for lab in REPAIRED:
        results = worse(run, lab)
        assert results.keys() == {"PERSIST-01"}, run.said
        diagnosis = results["PERSIST-01"].diagnosis
        assert diagnosis is not None
        check = diagnosis.remedy_check
        assert check is not None, lab
        assert (check.verified, check.rollback_verified) == (True, True), f"{lab}: {check.text}"
        assert not check.side_effects, f"{lab}: ROUTE-06 passes as before"


def test_a_shell_is_on_the_host_and_its_agent_is_the_hosts() -> None:
    host = sub_command("shell", NETWORKD, "cat", "/proc/1/comm")
    assert (host.returncode, host.stdout) == (0, "systemd\n"), host.stderr
    agent = sub_command("shell", NETWORKD, "agent", "ip", "-br", "address", "show", "dev", "eth0")
    assert "172.17.0.2/16" in agent.stdout, agent.stderr


HELD = f"""
import sys
from netns_lab.lab_specs import parse_labs
from netns_lab.open_lab import open_lab
lab = open_lab(*parse_labs({NETWORKD!r}))
print("ready", flush=True)
sys.stdin.read()
"""


def machine() -> dict[str, str]:
    """What a host must not change of the machine that it runs on: sysctls, the resolver, mounts."""
    files = [path for top in SYSCTLS for path in Path("/proc/sys", top).rglob("*") if not path.is_dir()]
    state = {}
    for path in (*files, Path("/etc/resolv.conf"), Path("/etc/hostname"), Path("/etc/machine-id")):
        if not any(name in str(path) for name in CHANGES_BY_ITSELF):
            with contextlib.suppress(OSError):
                state[str(path)] = path.read_text(errors="replace")
    # Other labs may run meanwhile: their folders are theirs.
    return state | {"mounts": "".join(sorted(Path("/proc/self/mounts").read_text().splitlines(keepends=True)))}


def own_cgroups(pid: int) -> list[Path]:
    return list(Path(cgroups.MOUNT_POINT).rglob(f"{cgroups.PREFIX}{pid}-*"))


@pytest.mark.parametrize("number", [None, signal.SIGKILL], ids=["closed", "killed"])
def test_nothing_is_left_of_it_and_nothing_of_the_machine_has_changed(number: signal.Signals | None) -> None:
    before = machine()
    text = HELD if number is not None else f"{HELD}lab.close()\n"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin:
        assert process.stdout.readline() == b"ready\n"
        ours = descendants(process.pid)
        commands = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in ours}
        assert {"systemd", "systemd-network", "dbus-daemon", "dockerd", "containerd", "sleep"} <= commands
        assert own_cgroups(process.pid)
        if number is not None:
            process.send_signal(number)
    process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours), "the host ends with its program", 20)
    until(lambda: not own_cgroups(process.pid), "the folders of its cgroup are removed", 20)
    assert machine() == before
