"""Whole hosts through the command line: one of each network manager, each with every event and a real reboot."""

from __future__ import annotations

from viacheck.bench import host_boot
from viacheck.bench.figures import Figure, Limit, Measurement
from viacheck.bench.front_door import report_folder, run

LABS = [f"host:policy-routing-{manager}" for manager in ("networkd", "ifupdown", "nm", "netplan")]


def measure(quick: bool) -> Measurement:
    """Judge all of them in one run, and one alone."""
    every = Figure(what=f"`./viacheck --lab` over {len(LABS)} hosts", unit="s", limit=Limit(at_most=30))
    single = Figure(what=f"`./viacheck --lab {LABS[0]}`", unit="s")
    reason = host_boot.missing()
    if reason is not None:
        every.remark = single.remark = f"not measured: {reason}"
    else:
        with report_folder() as folder:
            for _ in range(1 if quick else 5):
                every.values.append(run("--lab", ",".join(LABS), "--report-dir", str(folder)))
                single.values.append(run("--lab", LABS[0], "--report-dir", str(folder)))
    return Measurement(name="hosts", title="Whole hosts of four network managers", figures=[every, single])
