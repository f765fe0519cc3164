"""The time in which a whole host boots and reboots, with its own Docker engine and without."""

from __future__ import annotations

import contextlib
import time

from netns_lab.lab import Lab
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from netns_lab.whole_host.power_control import WholeHostPower
from viacheck.bench.figures import BenchFailed, Figure, Limit, Measurement

LAB = "policy-routing-networkd"
ENGINE_UNITS = ("docker.service", "docker.socket", "containerd.service")


def missing() -> str | None:
    """Return why no whole host can run here, in one line; None when it can."""
    return missing_for(BaseRoot(DEFAULT_RELEASE))


def measure(quick: bool) -> Measurement:
    """Reboot one host several times, first with its engine and the agent's container, then without an engine."""
    rounds = 1 if quick else 7
    boot = Figure(what="boot, from power-on until every job is done", unit="s", limit=Limit(at_most=1))
    reboot = Figure(what="reboot, from `systemctl reboot` on", unit="s", limit=Limit(at_most=1.5))
    engine_boot = Figure(what="boot with a Docker engine and its container", unit="s", limit=Limit(at_most=3))
    engine_reboot = Figure(what="reboot with both", unit="s", limit=Limit(at_most=4))
    figures = [boot, reboot, engine_boot, engine_reboot]
    reason = missing()
    if reason is not None:
        for figure in figures:
            figure.remark = f"not measured: {reason}"
    else:
        with contextlib.closing(open_lab(LabSpec(LAB, "host"))) as lab:
            for booted, rebooted in ((engine_boot, engine_reboot), (boot, reboot)):
                for _ in range(rounds):
                    seconds = _reboot(lab)
                    booted.values.append(seconds[0])
                    rebooted.values.append(seconds[1])
                if booted is engine_boot:
                    lab.host.run("systemctl", "mask", "--quiet", *ENGINE_UNITS)
                    # The units still run: the next boot is the first without them.
                    _reboot(lab)
    return Measurement(name="boot", title=f"A whole host (host:{LAB})", figures=figures)


def _reboot(lab: Lab) -> tuple[float, float]:
    """Reboot the host; return the seconds from power-on, and from ``systemctl reboot``, until the boot is complete.

    Raises:
        BenchFailed: a unit failed at boot.
    """
    assert lab.whole_host is not None
    power = WholeHostPower(lab, lab.whole_host)
    begin = time.monotonic()
    lab.host.namespace.run(["systemctl", "reboot"])
    lab.whole_host.wait_until_off()
    power.plug_in()
    on = time.monotonic()
    lab.whole_host.power_on()
    state = lab.whole_host.wait_until_booted()
    end = time.monotonic()
    if state != "running":
        raise BenchFailed(f"the host is {state} after the boot")
    return end - on, end - begin
