"""A live host behind NAT whose resolver does not answer: how long the whole of ``--local`` takes."""

from __future__ import annotations

from netns_lab.builder import build
from netns_lab.scenarios import SCENARIOS
from viacheck.bench.figures import Figure, Limit, Measurement
from viacheck.bench.front_door import report_folder, run

RESOLVER = "203.0.113.53"
"""An address that no machine of the lab has."""
SITE = """\
schema = 1
[site]
name = "silent-resolver"
[agent]
netns = "/run/netns/agent"
[agent.attach]
mode = "nat"
bridge = "docker0"
[uplinks.eth0]
gateway = "10.10.40.1"
[egress]
uplink = "eth0"
persist = "none"
[host]
default_exit = "eth0"
[probe]
target = "198.51.100.1"
"""


def measure(quick: bool) -> Measurement:
    """Judge the lab ``nat`` from inside, as its operator would; the probes have the default timeout of 2 s."""
    whole = Figure(what="`./viacheck --local --site …`: every check, real probes, the report", unit="s")
    whole.limit = Limit(at_most=3)
    lab = build(SCENARIOS["nat"]())
    try:
        lab.host.write("/etc/resolv.conf", f"nameserver {RESOLVER}\n")
        with report_folder() as folder:
            site = folder / "site.toml"
            site.write_text(SITE)
            for _ in range(1 if quick else 5):
                report = str(folder / "report")
                arguments = ("--local", "--site", str(site), "--report-dir", report)
                whole.values.append(run(*arguments, namespace=lab.host.namespace))
    finally:
        lab.close()
    return Measurement(name="silent-resolver", title="A host behind NAT with a silent resolver", figures=[whole])
