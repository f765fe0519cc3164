"""The answers of a real podman on its socket, as they are recorded below tests/recorded.

python -m tests.helpers.podman_answers        records them again
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from netns_lab.docker_engine.podman import NAME, PodmanEngine
from netns_lab.lab import AGENT_CONTAINER
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from tests.helpers.engine_answers import ENVIRONMENT, INFO, MACVLAN, NOT_KEPT
from tests.helpers.paths import RECORDED
from viacheck.host.docker import PODMAN_NETWORKS

RECORDING = RECORDED / "engine-podman-5.json"
LEASED, PARTLY = "leased0", "partly0"
"""A network with DHCP, and one with a range that is no subnet, another mode and a label."""
_NOT_KEPT = NOT_KEPT - {"Components"} | {"created", "Created"}


@contextlib.contextmanager
def recorded_podman() -> Iterator[PodmanEngine]:
    """Run the podman that is recorded: one network of each kind, and the agent on a macvlan network.

    Raises:
        viacheck.targets.specs.TargetUnavailable: podman cannot run here.
    """
    with contextlib.closing(open_lab(LabSpec("nat", "engine", release=NAME))) as lab:
        engine = lab.engine
        assert isinstance(engine, PodmanEngine)
        engine.networks.create_macvlan(MACVLAN, "eth0", "10.10.40.0/24", "10.10.40.1", "10.10.40.192/27")
        engine.networks.create_macvlan_dhcp(LEASED, "eth0")
        engine.networks.create_bridge("measure", "172.30.0.0/24", bridge="br-measure")
        options = ["--opt", "mode=vepa", "--opt", "parent=eth0", "--label", "owner=lab"]
        pool = ["--subnet", "10.10.40.0/24", "--ip-range", "10.10.40.20-10.10.40.30"]
        engine.run("podman", "network", "create", "--driver", "macvlan", *options, *pool, PARTLY)
        engine.containers.remove(AGENT_CONTAINER)
        engine.containers.run(
            AGENT_CONTAINER, network=MACVLAN, restart="unless-stopped", dns=["10.10.40.53"], environment=ENVIRONMENT
        )
        engine.networks.connect("measure", AGENT_CONTAINER, gateway_priority=0)
        yield engine


def answers_of(engine: PodmanEngine) -> dict[str, Any]:
    """Return what podman says of itself, of its networks in both of its APIs, and of the agent."""
    api = engine.client.api
    info = api.info()
    own = api.get(f"{api.base_url}/{PODMAN_NETWORKS}", timeout=api.timeout)
    own.raise_for_status()
    return {
        "version": _kept(api.version()),
        "info": {key: info[key] for key in INFO if key in info},
        "networks": _by_name(api.networks(), "Name"),
        "of_podman": _by_name(own.json(), "name"),
        "container": _kept(api.inspect_container(AGENT_CONTAINER)),
    }


def _by_name(networks: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted(_kept(networks), key=lambda network: str(network[name]))


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _kept(inner) for key, inner in value.items() if key not in _NOT_KEPT}
    return [_kept(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    with recorded_podman() as running:
        answers = answers_of(running)
        version = answers["version"]["Version"]
        source = f"recorded from podman {version} of Debian trixie in a lab (tests/helpers/podman_answers.py)"
        RECORDING.write_text(f"{json.dumps({'source': source, **answers}, indent=1)}\n")
