"""A hand-made host on which a real Docker engine runs, judged from inside the engine's own namespaces.

Everything is typed as the guide says it, where the engine's process numbers are true.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab import pipework_host
from netns_lab.docker_engine.daemon import DockerDaemon
from netns_lab.docker_engine.requirements import missing_requirement
from tests.helpers.front_door import Finished, command, finished
from tests.helpers.hand_made import UPLINKS, HandMadeHost, write_site

DOCKER_HOST = "DOCKER_HOST=unix:///run/docker.sock"
NO_ENGINE = missing_requirement()
needs_engine = [
    pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE)),
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command"),
]
"""For ``pytestmark``."""


class EngineHost:
    """The host, and a shell in the engine's namespaces."""

    def __init__(self, host: HandMadeHost, engine: DockerDaemon) -> None:
        """Take both over."""
        self.host, self.engine = host, engine
        self.inside = ["nsenter", "--target", str(engine.pid), "--mount", "--pid", "--net"]

    def type(self, words: str) -> str:
        """Type a command on this host, which must succeed."""
        done = self.engine.host.run([*self.inside, "env", DOCKER_HOST, *words.split()])
        assert done.ok, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def shell(self, line: str) -> str:
        """Type a line of shell on this host, as a remedy prints it; it must succeed."""
        done = self.engine.host.run([*self.inside, "env", DOCKER_HOST, "sh", "-ec", line])
        assert done.ok, f"{line}: {done.stderr}"
        return done.stdout.strip()

    def install_pipework(self) -> None:
        """Put pipework where the guide puts it: a stand-in where this machine has none of its own."""
        if pipework_host.installed():
            return
        self.type("mount -t tmpfs tmpfs /usr/local/sbin")
        for path, text in {
            pipework_host.PATH: pipework_host.STAND_IN,
            pipework_host.LEASE_SCRIPT: pipework_host.LEASE_TEXT,
        }.items():
            Path(f"{self.engine.root}{path}").write_text(text)
            self.type(f"chmod a+x {path}")

    def run_agent(self, network: str) -> None:
        """Run the container with ``--net``, as the guide's step 3 does with the real image."""
        self.engine.containers.run("te-agent", network=network)

    def judge(self, site: str, folder: Path, *arguments: str) -> Finished:
        """Judge it from inside, as its operator would; ``site`` is the text of its site.toml."""
        report = folder / "report"
        words = command("--local", "--site", str(write_site(folder, site)), "-q", "--report-dir", str(report))
        name, _, address = DOCKER_HOST.partition("=")
        return finished([*self.inside, *words, *arguments], report, env={name: address})


@contextlib.contextmanager
def engine_host() -> Iterator[EngineHost]:
    """A host with two uplinks, the default route by the first, and an engine without a container."""
    with contextlib.ExitStack() as ending:
        made = ending.enter_context(contextlib.closing(HandMadeHost()))
        for name, network in UPLINKS.items():
            made.uplink(name, network)
        made.ip("route add default via 10.10.40.1 dev eth0")
        engine = ending.enter_context(DockerDaemon.start(made.namespace))
        yield EngineHost(made, engine)
