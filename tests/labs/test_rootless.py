"""Labs as an ordinary user: viacheck starts itself again in a user namespace, or says in one line why it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from tests.helpers.front_door import VIACHECK, Finished, command, finished
from tests.helpers.hand_made import NOBODY, nobodys_folder
from tests.helpers.paths import ROOT
from viacheck.host.user_namespace import CONTAINER_FLAGS
from viacheck.model.verdict import Verdict

AS_NOBODY = (*NOBODY, "sh", "-c", 'exec "$@"', "sh")
"""setpriv(1) would start a program with its own rights; sh starts it with nobody's."""
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
RUN_MODULE = (
    "import runpy, sys; sys.path[:0] = {path!r}; sys.argv = sys.argv[1:]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python that an ordinary user may start, with the folders where it finds the libraries."""

    executable: str
    path: tuple[str, ...]

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return a command line of the test's own Python (``-m MODULE ARGUMENT ...``) for this one."""
        module = argv.index("-m") + 1
        return [self.executable, "-I", "-c", RUN_MODULE.format(path=list(self.path)), *argv[module:]]


def _interpreter() -> Interpreter | None:
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    path = (str(ROOT), str(ROOT / "src"), sysconfig.get_path("purelib"))
    for interpreter in (Interpreter(sys.executable, path), Interpreter(system, path)):
        probe = f"import sys; sys.path[:0] = {path!r}; import pytest, pydantic, pyroute2, scapy"
        argv = [*AS_NOBODY, interpreter.executable, "-I", "-c", probe]
        if subprocess.run(argv, capture_output=True, check=False).returncode == 0:
            return interpreter
    return None


def _forbidden() -> str | None:
    """Return why these tests cannot run as an ordinary user; None when they can."""
    if os.geteuid() != 0:
        return "needs root, to become another user"
    if subprocess.run([*AS_NOBODY, "test", "-r", str(ROOT / "conftest.py")], check=False).returncode != 0:
        return f"{ROOT} cannot be read by ordinary users"
    if INTERPRETER is None:
        return "no Python with the libraries can be started by ordinary users"
    unshare = [*AS_NOBODY, "unshare", "--user", "--map-root-user", "--net", "--mount", "true"]
    if subprocess.run(unshare, capture_output=True, check=False).returncode != 0:
        return "ordinary users get no user namespaces here"
    return None


INTERPRETER = _interpreter() if os.geteuid() == 0 else None
REASON = _forbidden()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that belongs to the user nobody; the folders of pytest are closed to other users."""
    with nobodys_folder() as folder:
        yield folder


def as_nobody(argv: Sequence[str], place: Path, path: str | None = None) -> Finished:
    """Run a Python command line as nobody; the report goes to ``place``."""
    assert INTERPRETER is not None
    environment = {"HOME": str(place), **({"PATH": path} if path is not None else {})}
    return finished([*AS_NOBODY, *INTERPRETER.command(argv)], place / "report", cwd=place, env=environment)


def checks(place: Path, *arguments: str) -> list[str]:
    return command(*arguments, "--report-dir", str(place / "report"))


def without(program: str, place: Path, script: str) -> str:
    """Return a PATH on which a program is replaced by a script."""
    folder = place.parent / "bin"
    folder.mkdir()
    (folder / program).write_text(f"#!/bin/sh\n{script}\n")
    (folder / program).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_every_netns_lab_is_judged_as_by_root(place: Path) -> None:
    done = as_nobody(checks(place), place)
    assert done.exit_code == 0, done.said
    verdicts = {(r.target, r.check, r.case): r.verdict for r in done.outcome.results}
    proven = {target for target, check, _case in verdicts if check == "EGRESS-01"}
    assert {"lab:nat", "lab:nat-multihomed", "lab:policy-routing", "lab:policy-routing-hardened"} <= proven
    assert {verdict for (_t, check, _c), verdict in verdicts.items() if check == "EGRESS-01"} == {Verdict.PASS}


def test_a_fault_is_found_as_by_root(place: Path) -> None:
    done = as_nobody(checks(place, "--lab", "policy-routing+rule-missing", "-n", "2"), place)
    assert done.exit_code == 1, done.said
    assert "RULE_MISSING (ROUTE-02)" in done.stdout


@pytest.mark.skipif(shutil.which("ifup") is None, reason="ifupdown is not installed")
def test_what_is_written_is_run_as_by_root(place: Path) -> None:
    done = as_nobody(checks(place, "--lab", "policy-routing-ifupdown", "-k", "PERSIST-02"), place)
    (result,) = done.outcome.results
    assert result.verdict is Verdict.PASS, result.observed
    assert "3 cycles of ifdown and ifup of wlan0: rules 2, 2, 2, 2" in result.observed


def test_what_lies_in_the_callers_directory_is_not_imported_on_the_second_start(place: Path) -> None:
    (place / "json.py").write_text("raise SystemExit('imported from the caller')")
    assert as_nobody(checks(place, "--lab", "nat"), place).exit_code == 0


def test_a_shell_works_too(place: Path) -> None:
    script = "id -u; ip rule; agent ip route get 198.51.100.1"
    done = as_nobody([*VIACHECK, "shell", "policy-routing", "sh", "-c", script], place)
    assert done.exit_code == 0, done.said
    assert done.stdout.startswith("0\n")
    assert "from 172.17.0.0/16 lookup wlan0rt" in done.stdout
    assert "198.51.100.1 via 172.17.0.1 dev eth0 src 172.17.0.2" in done.stdout


@pytest.mark.parametrize("reason", ["unshare: unshare failed: Operation not permitted", ""], ids=["reason", "silent"])
def test_where_the_system_forbids_it_one_line_says_so_and_what_to_do(place: Path, reason: str) -> None:
    path = without("unshare", place, f"[ -z '{reason}' ] || echo '{reason}' >&2; exit 1")
    done = as_nobody(checks(place, "--lab", "nat"), place, path)
    assert (done.exit_code, done.stdout) == (4, ""), done.said
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("ERROR: labs need root or user namespaces, and this system forbids the latter")
    assert reason in line
    assert "run as root, or allow them (sysctl kernel.unprivileged_userns_clone=1" in line


def test_an_engine_lab_is_not_run_for_want_of_root(place: Path) -> None:
    done = as_nobody(checks(place, "--lab", "engine:nat"), place)
    assert done.exit_code == 1
    assert {r.verdict for r in done.outcome.results} == {Verdict.NOT_RUN}
    (reason,) = {r.observed for r in done.outcome.results}
    assert "this is root of a user namespace only" in reason
    assert " ".join(done.stdout.split()).count(reason) == 1, done.stdout


def test_root_without_capabilities_is_told_what_a_container_needs(tmp_path: Path) -> None:
    argv = command("--lab", "nat,policy-routing", "--report-dir", str(tmp_path / "report"))
    done = finished([*NO_CAPABILITIES, *argv], tmp_path / "report")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.strip() == (
        "ERROR: labs cannot be built: root lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN here. "
        f"If this is a container, start it with: {CONTAINER_FLAGS}"
    )


CONTAINER = """
for place; do volumes="$volumes -v $place:$place"; done
judge() {
    docker run --rm --net none "$@" $volumes viacheck-agent:lab "$VIACHECK" --lab nat -k 'HOST or EGRESS-01' \
        --report-dir "$REPORT"
}
echo "without: $(judge 2>&1)"
judge $FLAGS
"""


@pytest.mark.skipif(missing_requirement() is not None, reason=str(missing_requirement()))
@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")
def test_a_container_is_told_its_flags_and_with_them_it_holds_labs(tmp_path: Path) -> None:
    viacheck = Path(sys.prefix, "bin", "viacheck")
    system = [path for path in ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc") if os.path.exists(path)]
    own = [path for path in (sys.base_prefix, sys.prefix, str(ROOT), str(tmp_path)) if not path.startswith("/usr")]
    environment = {"VIACHECK": str(viacheck), "REPORT": str(tmp_path / "report"), "FLAGS": CONTAINER_FLAGS}
    done = finished(
        [*VIACHECK, "shell", "engine:nat", "sh", "-c", CONTAINER, "sh", *system, *dict.fromkeys(own)],
        tmp_path / "report", env=environment,
    )  # fmt: skip
    assert done.exit_code == 0, done.said
    without = done.stdout.partition("without: ")[2].splitlines()[0]
    assert without.startswith("ERROR: labs cannot be built: ")
    assert without.endswith(CONTAINER_FLAGS)
    assert {target.verdict for target in done.outcome.targets} == {"pass"}
