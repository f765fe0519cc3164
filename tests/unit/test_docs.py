"""The tables in docs/ of checks, faults, labs and diagnoses match the code."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest
import yaml

from tests.helpers.markdown import blocks
from viacheck.cli.docs import PAGES
from viacheck.host.user_namespace import CONTAINER_FLAGS
from viacheck.installation import ROOT
from viacheck.model.intent import MODES
from viacheck.model.site_agents import parse_agents


@pytest.mark.parametrize("name", PAGES)
def test_a_page_matches_the_code(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run './viacheck docs'"


def test_the_contributors_examples_are_real_code() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    examples = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    folders = ("checks", "src", "netns_lab", "tests")
    sources = [path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(examples) == 5
    for example in examples:
        assert any(example in source for source in sources), f"no longer in the code:\n{example}"


def test_the_site_files_are_complete_and_cover_every_mode() -> None:
    sites = [parse_agents(tomllib.loads(text), source="site-file.md") for text in blocks("site-file.md", "toml")]
    intents = [intent for agents in sites for intent in agents.values()]
    assert any(len(agents) > 1 for agents in sites)
    assert any(intent.agent.source for intent in intents)
    assert {intent.mode for intent in intents} == set(MODES)
    assert any(intent.policy_routed and intent.allow_disruptive for intent in intents)
    assert any(intent.probe.target6 is not None for intent in intents)


def test_the_jobs_run_a_command_line_that_exists() -> None:
    github, gitlab = map(yaml.safe_load, blocks("ci.md", "yaml"))
    commands = [step["run"] for step in github["jobs"]["verify"]["steps"] if "run" in step] + gitlab["egress"]["script"]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.removeprefix("sudo "))
        assert words[0] == "./viacheck/viacheck"
        assert words[1:3] == ["--lab", "multihomed-blank"]
        options = [word for word in words if word.startswith("--")]
        assert set(options) == {"--lab", "--apply", "--report-dir"}
    assert CONTAINER_FLAGS in (ROOT / "docs" / "ci.md").read_text()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    missing = {page for page in pages if f"({page})" not in index}
    assert not missing, f"docs/README.md does not list {', '.join(sorted(missing))}"
