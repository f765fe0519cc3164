"""A draft of `site init` on a healthy host judges that host as healthy, in every mode, without an edit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.lab import Lab
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from tests.helpers.front_door import VIACHECK, Finished, command, finished
from tests.helpers.hand_made import AGENT_PATH, apply_the_guides_recipe, hand_made_host
from viacheck.model.intent_file import load_intent

MODES = {
    "nat": "nat", "nat-multihomed": "nat", "policy-routing-hardened": "nat", "macvlan": "macvlan",
    "pipework-static": "pipework-static", "pipework-dhcp": "pipework-dhcp",
}  # fmt: skip
"""The mode that the draft of each lab has."""
ENGINE_LABS = {"engine:policy-routing": "nat", "engine:macvlan": "macvlan"}
"""The same, for agents that are containers."""
BY_ENGINE = {"DOCKER_HOST": "unix:///run/docker.sock"}
"""Where the engine of a lab listens."""


def drafted_and_judged(
    inside: Sequence[str], init: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
) -> tuple[Finished, Path]:
    """Draft a site file on a host and judge the host by it, both from inside."""
    site = folder / "site.toml"
    drafted = finished([*inside, *VIACHECK, "site", "init", "-o", str(site), *init], folder, env=env)
    assert drafted.exit_code == 0, drafted.said
    assert f"wrote {site}; review it" in drafted.stderr
    return finished([*inside, *command("--local", "--site", str(site), "--report-dir", str(folder / "report"))],
                    folder / "report", env=env), site  # fmt: skip


def in_namespaces_of(lab: Lab) -> list[str]:
    """Words that run a command on a lab's host, where its process numbers are true."""
    if lab.engine is None:
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{lab.host.namespace.net_fd}",
                f"--mount=/proc/{os.getpid()}/fd/{lab.host.namespace.mount_fd}"]  # fmt: skip
    return ["nsenter", "--target", str(lab.engine.pid), "--mount", "--pid", "--net"]


@pytest.mark.parametrize(("name", "mode"), MODES.items(), ids=MODES)
def test_the_draft_of_a_healthy_lab_judges_it_as_healthy(name: str, mode: str, tmp_path: Path) -> None:
    with contextlib.closing(open_lab(LabSpec(name))) as lab:
        agent = f"/proc/{os.getpid()}/fd/{lab.agent.namespace.net_fd}"
        done, site = drafted_and_judged(in_namespaces_of(lab), ["--netns", agent], tmp_path)
    assert done.exit_code == 0, done.said
    intent = load_intent(site)
    assert (intent.mode, intent.egress.uplink) == (mode, lab.plan.intent.egress.uplink)
    assert intent.egress.table == lab.plan.intent.egress.table


@pytest.mark.skipif(missing_requirement() is not None, reason=str(missing_requirement()))
@pytest.mark.parametrize(("name", "mode"), ENGINE_LABS.items(), ids=ENGINE_LABS)
def test_the_draft_finds_the_container_by_itself(name: str, mode: str, tmp_path: Path) -> None:
    with contextlib.closing(open_lab(LabSpec(name.removeprefix("engine:"), "engine"))) as lab:
        done, site = drafted_and_judged(in_namespaces_of(lab), [], tmp_path, BY_ENGINE)
    assert done.exit_code == 0, done.said
    intent = load_intent(site)
    assert (intent.agent.container, intent.mode) == ("te-agent", mode)


def test_the_draft_of_a_hand_made_host_judges_it_as_healthy(tmp_path: Path) -> None:
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        done, site = drafted_and_judged(host.inside(), ["--netns", AGENT_PATH], tmp_path)
    assert done.exit_code == 0, done.said
    intent = load_intent(site)
    assert (intent.egress.uplink, intent.egress.table, intent.egress.persist) == ("wlan0", 200, "none")
