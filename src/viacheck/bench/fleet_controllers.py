"""A run over many hosts by `viacheck fleet run`, by a plain loop of ssh, and by Ansible: time, processor and memory.

The hosts are sshds in one lab's namespaces, on this machine. Each way makes the hosts do the same work, so that the
differences are those of the controllers.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from netns_lab import builder
from netns_lab.lab import Lab
from netns_lab.scenarios import SCENARIOS
from netns_lab.services.ssh_host import SSHD, SSHWorld
from reports.report_files import RESULT
from viacheck.bench.figures import BenchFailed, Figure, Limit, Measurement
from viacheck.bench.front_door import VIACHECK, run
from viacheck.bench.large_host import SCENARIO, SITE
from viacheck.bench.process_tree import ProcessTreeUse, measured
from viacheck.fleet.pack import PackFailed, Platform, build, digest_of
from viacheck.installation import ROOT
from viacheck.model.exit_status import ExitStatus

HOSTS, HOSTS_QUICK = 200, 20
PARALLEL = "20"
SELECTION = "ROUTE"
"""The checks of each host: the sooner a host is judged, the more the controller counts."""
PLAYBOOK = ROOT / "contrib" / "ansible" / "playbook.yml"
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
JUDGED = (ExitStatus.OK, ExitStatus.FAILED)


def measure(quick: bool) -> Measurement:
    """Judge the hosts once in each way."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}-{os.uname().machine}"
    try:
        packed = build([Platform.parse(here)])
    except PackFailed as error:
        raise BenchFailed(str(error)) from None
    ansible = ANSIBLE if ANSIBLE.exists() and PLAYBOOK.exists() else None
    with tempfile.TemporaryDirectory(prefix="viacheck-bench-") as folder:
        return compare(HOSTS_QUICK if quick else HOSTS, packed, Path(folder), ansible)


def compare(hosts: int, packed: bytes, folder: Path, ansible: Path | None) -> Measurement:
    """Judge so many hosts once in each way.

    Args:
        hosts: their number.
        packed: the content of viacheck.pyz, for this Python.
        folder: an empty folder for the files of the run.
        ansible: the command ansible-playbook; None leaves it out.

    Raises:
        BenchFailed: a way does not judge every host.
    """
    if not SSHD.exists():
        raise BenchFailed("needs the package openssh-server")
    own = Figure(what="`viacheck fleet run`, and its report", unit="s")
    memory = Figure(what="of that, the memory of the controller", unit="MB", limit=Limit(at_most=400))
    loop = Figure(what="`xargs ssh`: results, no report", unit="s", limit=Limit(of="ratio", at_least=1 / 1.3))
    playbook = Figure(what="Ansible, by the role in contrib/ansible, and the report", unit="s")
    lab = builder.build(SCENARIOS[SCENARIO]())
    try:
        fleet = _Fleet(folder, [f"host-{number:03}" for number in range(hosts)], packed, lab)
        use = fleet.by_viacheck()
        memory.values.append(use.peak_bytes / 1e6)
        _note(own, use)
        _note(loop, fleet.by_loop())
        if ansible is None:
            playbook.remark = "not measured: needs ansible-core and a checkout"
        else:
            _note(playbook, fleet.by_ansible(ansible))
    finally:
        lab.close()
    title = f"{hosts} hosts, {PARALLEL} at once"
    return Measurement(name="fleet", title=title, figures=[own, memory, loop, playbook])


def _note(figure: Figure, use: ProcessTreeUse) -> None:
    figure.values.append(use.seconds)
    figure.remark = (
        f"The controller, its ssh processes included: {use.cpu_seconds:.1f} s of processor time, at most "
        f"{use.peak_bytes / 1e6:.0f} MB."
    )


class _Fleet:
    """The hosts, and the ways to judge them."""

    def __init__(self, folder: Path, names: Sequence[str], packed: bytes, lab: Lab) -> None:
        """Start to serve the hosts, and let the first unpack the file to the cache that all of them share."""
        self._folder, self._names = folder, names
        self._pack, self._site, self._hosts = folder / "viacheck.pyz", folder / "site.toml", folder / "hosts"
        self._pack.write_bytes(packed)
        self._site.write_text(SITE)
        self._hosts.write_text("".join(f"{name}\n" for name in names))
        world = SSHWorld(folder)
        for name in names:
            world.serve(name, lab)
        self._config = world.config
        self._python = folder / "cache" / "viacheck" / digest_of(packed) / "bin" / "python"
        run(*self._fleet_run("warm", "--limit", names[0]))

    def _fleet_run(self, name: str, *options: str) -> list[str]:
        return [
            "fleet", "run", "--inventory", str(self._hosts), "--site-template", str(self._site), "--pack",
            str(self._pack), "--ssh-config", str(self._config), "-P", PARALLEL, "-k", SELECTION,
            "--report-dir", str(self._folder / name), *options,
        ]  # fmt: skip

    def by_viacheck(self) -> ProcessTreeUse:
        """Judge the hosts by a fleet run."""
        use = measured([*VIACHECK, *self._fleet_run("own")], self._folder, env={}, accepted=JUDGED)
        self._verify(self._folder / "own" / "hosts")
        return use

    def by_loop(self) -> ProcessTreeUse:
        """Judge the hosts as one does by hand: each has viacheck already."""
        judge = shlex.join([str(self._python), "-I", "-m", "viacheck.cli.main", "-q", "-k", SELECTION, "--local"])
        remote = (
            f'd=$(mktemp -d) && cat >"$d/site.toml" && {judge} --site "$d/site.toml" --result-only --report-dir "$d/r" '
            f'>/dev/null; cat "$d/r/{RESULT}"; rm -r "$d"'
        )
        ssh = f"ssh -F {self._config} -o BatchMode=yes $1 {shlex.quote(remote)}"
        line = f"mkdir loop/$1 && {ssh} <site.toml >loop/$1/{RESULT}"
        argv = ["xargs", "-a", str(self._hosts), "-P", PARALLEL, "-I", "NAME", "sh", "-c", line, "sh", "NAME"]
        (self._folder / "loop").mkdir()
        use = measured(argv, self._folder, env={}, accepted=(0,))
        self._verify(self._folder / "loop")
        return use

    def by_ansible(self, command: Path) -> ProcessTreeUse:
        """Judge the hosts by the playbook."""
        variables = {
            "ansible_ssh_args": f"-F {self._config}", "ansible_become": False, "viacheck_pack": str(self._pack),
            "viacheck_site_template": str(self._site), "viacheck_results": str(self._folder / "ansible"),
            "viacheck_folder": f"{self._folder}/on-{{{{ inventory_hostname }}}}", "viacheck_options": ["-k", SELECTION],
        }  # fmt: skip
        # JSON is YAML.
        inventory = self._folder / "inventory.yml"
        inventory.write_text(json.dumps({"all": {"vars": variables, "hosts": dict.fromkeys(self._names)}}))
        environment = {
            "PATH": f"{command.parent}:{os.environ['PATH']}", "HOME": str(self._folder), "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3", "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        argv = [str(command), "-i", str(inventory), "-f", PARALLEL, str(PLAYBOOK)]
        use = measured(argv, self._folder, env=environment, accepted=(0,))
        self._verify(self._folder / "ansible")
        return use

    def _verify(self, results: Path) -> None:
        """Raise BenchFailed unless each host has a result with verdicts."""
        judged = sum('"check"' in path.read_text() for path in results.glob(f"*/{RESULT}"))
        if judged != len(self._names):
            raise BenchFailed(f"{results.name}: {judged} of {len(self._names)} hosts were judged")
