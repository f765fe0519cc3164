"""The jobs of docs/ci.md, their lines as they stand there, run in containers of a real engine.

What needs the Internet is there beforehand: the packages are in the image, and .venv is this checkout's own.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
import yaml

from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.lab import Lab
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from netns_lab.whole_host.base_root import BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from reports.report_files import read_outcome
from tests.helpers.ci_image import import_ci_image, interpreter_mounts, privileged, release_for_this_python
from tests.helpers.markdown import blocks
from tests.helpers.paths import ROOT
from viacheck.host.user_namespace import CONTAINER_FLAGS

_BASE = BaseRoot(release_for_this_python())
_MISSING = missing_requirement() or missing_for(_BASE)
pytestmark = [
    pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING)),
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command"),
]
GITHUB, GITLAB = (yaml.safe_load(block) for block in blocks("ci.md", "yaml"))
IMAGE = GITLAB["egress"]["image"]
SCRIPT = "hosts/berlin-7/routing.sh"
CHANGE = """\
#!/bin/sh
echo 200 wlan0rt >> /etc/iproute2/rt_tables
ip rule add from 172.17.0.0/16 lookup wlan0rt
ip route add default via 10.10.50.1 dev wlan0 table wlan0rt
"""


@pytest.fixture(scope="module")
def runner() -> Iterator[Lab]:
    """The machine of the runner, whose engine has the job's image."""
    _BASE.build(lambda _line: None)
    with contextlib.closing(open_lab(LabSpec("nat", "engine"))) as lab:
        assert lab.engine is not None
        import_ci_image(lab.engine.client, _BASE.path, IMAGE)
        yield lab


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of scripts, with viacheck as its submodule."""
    (tmp_path / SCRIPT).parent.mkdir(parents=True)
    (tmp_path / SCRIPT).write_text(CHANGE)
    (tmp_path / "viacheck").symlink_to(ROOT)
    # The user of a job in a container is root, and GitHub's machines have sudo.
    sudo = tmp_path / "bin" / "sudo"
    sudo.parent.mkdir()
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)
    return tmp_path


def job(runner: Lab, repository: Path, lines: list[str], flags: str) -> subprocess.CompletedProcess[str]:
    """Run the lines of a job in a container, as a runner does: the first one that fails ends it."""
    assert runner.engine is not None
    mounts = ["-v", f"{repository}:{repository}", "-v", f"{ROOT}:{ROOT}:ro", *interpreter_mounts()]
    path = f"{repository}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    options = ["--rm", "--network", "none", *shlex.split(flags), *mounts, "-w", str(repository), "-e", f"PATH={path}"]
    words = ["docker", "run", *options, IMAGE, "sh", "-ec", "\n".join(lines)]
    inside = ["nsenter", "--target", str(runner.engine.pid), "--mount", "--pid", "--net"]
    return subprocess.run(
        [*inside, "env", "DOCKER_HOST=unix:///run/docker.sock", *words], capture_output=True, text=True, check=False
    )


def gitlab_flags() -> str:
    """The options of ``docker run`` that the runner's config.toml stands for."""
    (block,) = blocks("ci.md", "toml")
    settings: dict[str, Any] = tomllib.loads(block)["runners"]["docker"]
    assert settings == {"privileged": True}
    return privileged()


def github_line() -> str:
    (line,) = (step["run"] for step in GITHUB["jobs"]["verify"]["steps"] if "run" in step)
    return str(line)


def documented_flags() -> str:
    """The options of the command for any container."""
    (flags,) = re.findall(r"^    docker run (--.*) IMAGE \.\.\.$", (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE)
    return str(flags)


@pytest.mark.parametrize("where", ["GitLab", "GitHub"])
def test_a_job_is_green_and_leaves_its_report(runner: Lab, repository: Path, where: str) -> None:
    lines, flags = (
        (GITLAB["egress"]["script"], gitlab_flags()) if where == "GitLab" else ([github_line()], documented_flags())
    )
    done = job(runner, repository, lines, flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The agent's packets leave by wlan0: proven by 9 of 9 probes" in done.stdout
    outcome = read_outcome(repository / "report" / "result.json")
    assert [target.verdict for target in outcome.targets] == ["pass"]
    junit = GITLAB["egress"]["artifacts"]["reports"]["junit"]
    assert Xml.fromstring((repository / junit).read_text()).get("failures") == "0"


def test_without_the_flags_the_job_says_which_it_needs(runner: Lab, repository: Path) -> None:
    done = job(runner, repository, GITLAB["egress"]["script"], "")
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert done.stderr.strip().removeprefix("ERROR: ") == (
        "labs cannot be built: root lacks CAP_NET_ADMIN, CAP_SYS_ADMIN here. If this is a container, start it with: "
        f"{documented_flags()}"
    )
    assert documented_flags() == CONTAINER_FLAGS
