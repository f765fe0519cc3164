"""The answers and the packet filter of a release's real engine, as they are recorded below tests/recorded.

python -m tests.helpers.engine_answers trixie        records those of trixie's engine again
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from netns_lab.docker_engine.image import IMAGE
from netns_lab.lab import AGENT_CONTAINER, Lab
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from tests.helpers.paths import RECORDED

RECORDED_AS = {"trixie": "26", "forky": "28"}
"""The release whose engine was recorded, and the version in the names of the files."""
BRIDGE, MACVLAN = "measure", "macvlan0"
ENVIRONMENT = {"TEAGENT_ACCOUNT_TOKEN": "s3cret-token", "TEAGENT_INET": "4"}
INFO = (
    "Driver", "CgroupDriver", "IPv4Forwarding", "BridgeNfIptables", "ServerVersion", "SecurityOptions",
    "LiveRestoreEnabled", "FirewallBackend",
)  # fmt: skip
NOT_KEPT = {"Components", "KernelVersion", "GraphDriver", "Mounts", "MaskedPaths", "ReadonlyPaths", "ResolvConfPath",
            "HostnamePath", "HostsPath", "LogPath", "ConsoleSize", "DeviceCgroupRules", "Devices"}  # fmt: skip


@contextlib.contextmanager
def recorded_host(release: str) -> Iterator[Lab]:
    """Run the host that is recorded: an agent on a bridge network with both families, and a port of another container.

    Raises:
        viacheck.targets.specs.TargetUnavailable: no engine of the release can run here.
    """
    with contextlib.closing(open_lab(LabSpec("nat", "engine", release=release))) as lab:
        assert lab.engine is not None
        lab.engine.containers.remove(AGENT_CONTAINER)
        # An engine that switches forwarding on, as after a boot, sets the policy of FORWARD to DROP.
        lab.host.sysctl("net/ipv4/ip_forward", "0")
        lab.engine.restart()
        for argv in (
            ["network", "create", "--ipv6", "--subnet", "172.30.0.0/24", "--subnet", "fd00:30::/64", BRIDGE],
            ["network", "create", "-d", "macvlan", "-o", "parent=eth0", "--subnet", "10.10.40.0/24", "--gateway",
             "10.10.40.1", "--ip-range", "10.10.40.192/27", MACVLAN],
            ["run", "-d", "--name", "web", "--init", "-p", "8080:80", IMAGE, "sleep", "infinity"],
        ):  # fmt: skip
            done = lab.host.namespace.run([*inside(lab), "docker", *argv])
            assert done.ok, done.stderr
        lab.engine.containers.run(
            AGENT_CONTAINER, network=BRIDGE, restart="unless-stopped", dns=["10.10.40.53"],
            environment=ENVIRONMENT, capabilities=["NET_ADMIN"],
        )  # fmt: skip
        yield lab


def inside(lab: Lab) -> list[str]:
    """Return the command line that runs a program of the engine's release beside the engine."""
    assert lab.engine is not None
    return ["nsenter", "--target", str(lab.engine.pid), "--mount", "--pid", "--net"]


def answers_of(lab: Lab) -> dict[str, Any]:
    """Return what the engine says of itself, its networks and the agent."""
    assert lab.engine is not None
    api = lab.engine.client.api
    info = api.info()
    return {
        "version": _kept(api.version()),
        "info": {key: info[key] for key in INFO if key in info},
        "networks": sorted(_kept(api.networks()), key=lambda network: str(network["Name"])),
        "container": _kept(api.inspect_container(AGENT_CONTAINER)),
    }


def packet_filter_of(lab: Lab) -> str:
    """Return what the release's iptables-save prints."""
    done = lab.host.namespace.run([*inside(lab), "iptables-save", "-c"])
    assert done.ok, done.stderr
    return done.stdout


def shape(value: Any) -> Any:
    """Return the keys of an answer and the types of its values, which one version has in common."""
    if isinstance(value, dict):
        return {_unnamed(key): shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return type(value).__name__


def _unnamed(key: str) -> str:
    # The containers of a network are listed by their ids.
    return "id" if len(key) == len("0" * 64) else key


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _kept(inner) for key, inner in value.items() if key not in NOT_KEPT}
    return [_kept(inner) for inner in value] if isinstance(value, list) else value


def record(release: str) -> None:
    """Write the files of a release."""
    name = RECORDED_AS[release]
    with recorded_host(release) as lab:
        answers = answers_of(lab)
        version = answers["version"]["Version"]
        source = f"recorded from docker.io {version} of Debian {release} in a lab (tests/helpers/engine_answers.py)"
        text = json.dumps({"source": source, **answers}, indent=1)
        (RECORDED / f"engine-{name}.json").write_text(f"{text}\n")
        (RECORDED / f"docker-{name}-iptables-nft.save").write_text(packet_filter_of(lab))


if __name__ == "__main__":
    for each in sys.argv[1:] or RECORDED_AS:
        record(each)
