"""``./viacheck`` in small checkouts of its own: real shells, real venv, real pip, real pytest, and no registry.

The only thing that such a checkout installs is a wheel made here, whose .pth file lends it the pytest that runs these
tests. Where Python's venv must be missing, a private mount namespace hides it, as Debian does without python3-venv.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

VIACHECK = ROOT / "viacheck"
SETTING_UP = "viacheck: setting up .venv (once, about half a minute)\n"
LENT = str(Path(pytest.__file__).parent.parent)
PYTHON = str(Path(sys.executable).resolve())
TOOLS = (
    "cat",
    "cksum",
    "dirname",
    "env",
    "find",
    "id",
    "mkdir",
    "mount",
    "readlink",
    "rm",
    "sh",
    "touch",
    "umount",
    "uname",
)
SHELLS = [words for words in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(words[0])]
PRIVATE_MOUNTS = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]

PYPROJECT = """\
[project]
name = "small"
version = "1"
dependencies = ["lent>=1"]
[project.optional-dependencies]
tests = ["lent-tests; python_version >= '3.11'"]
[tool.pytest]
pythonpath = ["."]
addopts = ["--import-mode=importlib"]
"""
CHECK = """\
import json, os, sys
from fixtures.place import PLACE

def test_way(request):
    told = {"place": PLACE, "cwd": os.getcwd(), "pid": os.getpid(), "root": str(request.config.rootpath)}
    with open(os.environ["TOLD"], "w") as file:
        json.dump(told, file)

def test_exit():
    assert not os.environ.get("FAIL")
"""
COMMANDS = """\
import json, os, sys
from fixtures.place import PLACE
print(json.dumps({"words": sys.argv[1:], "place": PLACE, "cwd": os.getcwd()}))
sys.exit(3)
"""


def wheel(folder: Path, name: str, version: str, files: Mapping[str, str]) -> None:
    """Write a wheel by hand (PEP 427): the files, and what pip wants to know of them."""
    inside = dict(files)
    meta = f"{name}-{version}.dist-info"
    inside[f"{meta}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    inside[f"{meta}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    digests = {
        path: base64.urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=").decode()
        for path, text in inside.items()
    }
    record = "".join(f"{path},sha256={digest},{len(inside[path])}\n" for path, digest in digests.items())
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**inside, f"{meta}/RECORD": f"{record}{meta}/RECORD,,\n"}.items():
            archive.writestr(path, text)


class Checkout:
    """A small checkout with the real front door, and a PATH on which only what the test put there can be found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "check out"
        self.bin = folder / "bin"
        self.wheels = folder / "wheels"
        self.told = folder / "told.json"

    @classmethod
    def new(cls, folder: Path) -> Checkout:
        """Lay out everything but .venv."""
        made = cls(folder)
        for path in (made.root / "checks", made.root / "tests", made.root / "fixtures", made.bin, made.wheels):
            path.mkdir(parents=True)
        shutil.copy2(VIACHECK, made.root)
        (made.root / "pyproject.toml").write_text(PYPROJECT)
        (made.root / "constraints.txt").write_text("lent==1.0\nlent-tests==1.0\n")
        (made.root / "checks" / "test_way.py").write_text(CHECK)
        (made.root / "tests" / "test_own.py").write_text("def test_own():\n    import lent_tests\n")
        (made.root / "fixtures" / "place.py").write_text("PLACE = 'the checkout'\n")
        (made.root / "fixtures" / "commands.py").write_text(COMMANDS)
        for tool in TOOLS:
            (made.bin / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        made.tool("python3", f'exec {PYTHON} "$@"')
        for version in ("1.0", "1.1"):
            wheel(made.wheels, "lent", version, {"lent.pth": f"{LENT}\n", "lent.py": ""})
        wheel(made.wheels, "lent_tests", "1.0", {"lent_tests.py": ""})
        return made

    def copy(self, folder: Path) -> Checkout:
        """The same elsewhere, .venv and all: a checkout may be moved."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        return Checkout(folder)

    def tool(self, name: str, script: str) -> None:
        """Put a program on the checkout's PATH."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the caller's own: no registry, no configuration, no plugins."""
        return {
            "PATH": str(self.bin),
            "HOME": str(self.folder),
            "TOLD": str(self.told),
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.wheels.as_uri(),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    def start(self, *words: str, by: Sequence[str] = (), cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
        """Start the front door, in a process group of its own."""
        by = [shutil.which(by[0]) or by[0], *by[1:]] if by else []
        return subprocess.Popen(
            [*by, str(self.root / "viacheck"), *words],
            cwd=cwd or self.folder,
            env={**self.environment, **more},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self, *words: str, by: Sequence[str] = (), cwd: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the front door to its end."""
        process = self.start(*words, by=by, cwd=cwd, **more)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    @property
    def installed(self) -> dict[str, str]:
        """What pip put into .venv, by name."""
        found = (self.root / ".venv").glob("lib/python3*/site-packages/lent*.dist-info")
        return dict(path.name.removesuffix(".dist-info").split("-") for path in found)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout that was started once."""
    checkout = Checkout.new(tmp_path_factory.mktemp("ready"))
    first = checkout.run()
    assert (first.returncode, first.stderr) == (0, SETTING_UP), first.stdout + first.stderr
    assert "2 passed" in first.stdout
    return checkout


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A checkout that was never started."""
    return Checkout.new(tmp_path)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_every_shell_starts_the_checks_without_another_word(ready: Checkout, shell: list[str]) -> None:
    again = ready.run(by=shell)
    assert (again.returncode, again.stderr) == (0, "")
    assert "2 passed" in again.stdout


def test_the_callers_directory_stays_and_nothing_in_it_is_imported(ready: Checkout, tmp_path: Path) -> None:
    for name in ("pytest.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the caller')")
    (tmp_path / "fixtures").mkdir()
    (tmp_path / "fixtures" / "place.py").write_text("PLACE = 'the caller'")
    (tmp_path / "link").symlink_to(ready.root / "viacheck")
    done = subprocess.run(["./link", "-q"], cwd=tmp_path, env=ready.environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    told = json.loads(ready.told.read_text())
    assert (told["place"], told["cwd"], told["root"]) == ("the checkout", str(tmp_path), str(ready.root))
    words = subprocess.run(["./link", "word"], cwd=tmp_path, env=ready.environment, capture_output=True, text=True)
    assert json.loads(words.stdout)["place"] == "the checkout"


def test_the_checks_run_in_the_process_that_was_started(ready: Checkout) -> None:
    process = ready.start("-q")
    process.communicate(timeout=60)
    assert json.loads(ready.told.read_text())["pid"] == process.pid


@pytest.mark.parametrize(
    ("words", "fail", "status"),
    [(["-q"], "1", 1), (["-k", "nothing"], "", 5), (["--no-such-option"], "", 4), (["word"], "", 3)],
    ids=["a check fails", "nothing selected", "usage", "command"],
)
def test_the_exit_status_is_passed_on(ready: Checkout, words: list[str], fail: str, status: int) -> None:
    assert ready.run(*words, FAIL=fail).returncode == status


def test_a_named_file_is_run_alone(ready: Checkout) -> None:
    done = ready.run("-q", "checks/test_way.py::test_exit", cwd=ready.root)
    assert (done.returncode, done.stdout.splitlines()[-1].split(" in ")[0]) == (0, "1 passed")


def test_words_reach_the_commands_as_they_are(ready: Checkout, tmp_path: Path) -> None:
    done = ready.run("site", "init", "-o", "a b.toml", "", "*", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (told["words"], told["cwd"]) == (["site", "init", "-o", "a b.toml", "", "*"], str(tmp_path))


def test_the_harness_tests_install_their_extra_once(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    assert moved.installed == {"lent": "1.0"}
    first, second = moved.run("tests", "-q"), moved.run("tests", "-q")
    assert (first.returncode, first.stderr) == (0, SETTING_UP)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.splitlines()[-1].startswith("1 passed")
    assert moved.installed == {"lent": "1.0", "lent_tests": "1.0"}
    assert moved.run("-q").stderr == ""


def test_it_installs_again_only_when_what_is_named_has_changed(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    os.utime(moved.root / "constraints.txt")
    assert moved.run("-q").stderr == ""
    (moved.root / "constraints.txt").write_text("lent==1.1\n")
    assert moved.run("-q").stderr == SETTING_UP
    assert moved.installed == {"lent": "1.1"}
    (moved.root / "pyproject.toml").write_text(PYPROJECT.replace("lent>=1", "lent>=1.1"))
    assert moved.run("-q").stderr == SETTING_UP
    assert moved.run("-q").stderr == ""


def test_an_install_that_was_cut_short_is_begun_anew(fresh: Checkout) -> None:
    lock = fresh.root / ".venv" / "viacheck.lock"
    process = fresh.start()
    while process.poll() is None and not (lock.exists() and lock.stat().st_size):
        os.sched_yield()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    half_done = fresh.root / ".venv" / "half-done"
    half_done.touch()
    done = fresh.run("-q")
    assert (done.returncode, done.stderr) == (0, SETTING_UP)
    assert not half_done.exists()


def test_a_broken_venv_is_made_anew(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    for name in ("python", "python3"):
        (moved.root / ".venv" / "bin" / name).unlink()
    done = moved.run("-q")
    assert (done.returncode, done.stderr) == (0, SETTING_UP)


def test_two_first_starts_at_once_set_up_once(fresh: Checkout) -> None:
    starts = [fresh.start("-q") for _ in range(2)]
    told = [start.communicate(timeout=120) for start in starts]
    assert [start.returncode for start in starts] == [0, 0], told
    assert "".join(stderr for _stdout, stderr in told).count(SETTING_UP) == 1


def test_it_does_not_wait_for_ever_for_another_start(fresh: Checkout) -> None:
    front_door = fresh.root / "viacheck"
    text = front_door.read_text()
    assert "wait_at_most=600 " in text
    front_door.write_text(text.replace("wait_at_most=600 ", "wait_at_most=1 "))
    lock = fresh.root / ".venv" / "viacheck.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = fresh.run()
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        "viacheck: waiting for another start that is setting up .venv",
        f"viacheck: another start has been setting up .venv for 1 s; see who holds {lock}",
    ]


def test_pips_own_words_are_shown_when_it_fails_and_the_next_start_repeats(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    (moved.root / "pyproject.toml").write_text(PYPROJECT.replace("lent>=1", "not-on-any-shelf"))
    done = moved.run()
    assert done.returncode == 4
    assert "No matching distribution found for not-on-any-shelf" in done.stderr
    assert done.stderr.endswith("viacheck: pip could not install what pyproject.toml names; its own words are above\n")
    (moved.root / "pyproject.toml").write_text(PYPROJECT)
    assert (moved.run("-q").returncode, moved.run("-q").stderr) == (0, "")


def read_only(checkout: Checkout) -> list[str]:
    """Words that run a command where the checkout's file system is mounted read-only."""
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    return [*PRIVATE_MOUNTS, "sh", "-c", script, "sh", str(checkout.root)]


def test_a_checkout_that_cannot_be_written_runs_once_it_is_set_up(ready: Checkout) -> None:
    done = ready.run("-q", by=read_only(ready))
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning" not in done.stdout


def test_a_checkout_that_cannot_be_written_says_so_where_it_is_not_set_up(fresh: Checkout) -> None:
    done = fresh.run("-q", by=read_only(fresh))
    assert done.returncode == 4
    assert done.stderr.startswith(f"viacheck: {fresh.root}/.venv is not set up for this version, and ")
    assert done.stderr.count("\n") == 1


def test_an_old_python_is_refused_in_one_line(fresh: Checkout) -> None:
    fresh.tool("python3", '[ "$1" = -V ] && echo Python 3.9.2')
    done = fresh.run()
    assert done.returncode == 4
    assert done.stderr == "viacheck: needs Python 3.11 or newer on PATH; python3 is: Python 3.9.2\n"


def test_no_python_is_told_in_one_line(fresh: Checkout) -> None:
    (fresh.bin / "python3").unlink()
    done = fresh.run()
    assert done.returncode == 4
    assert done.stderr == "viacheck: needs Python 3.11 or newer on PATH; python3 is: not there\n"


def test_a_newer_python_beside_an_old_one_is_found(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    moved.tool("python3", "exit 1")
    moved.tool("python3.12", f'exec {PYTHON} "$@"')
    (moved.root / "constraints.txt").write_text("")
    assert (moved.run("-q").returncode, moved.installed) == (0, {"lent": "1.0"})


def without_venv() -> list[str]:
    """Words that run a command where this Python has no ensurepip, as on Debian without python3-venv."""
    ask = "import ensurepip; print(*ensurepip.__path__)"
    place = subprocess.run([PYTHON, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    script = 'export HIDDEN="$1" && mount -t tmpfs none "$1" && shift && exec "$@"'
    return [*PRIVATE_MOUNTS, "sh", "-c", script, "sh", place]


APT_GET = """\
echo "$DEBIAN_FRONTEND" "$@" >>"$HOME/apt-get.log"
case "$*" in *install*) umount "$HIDDEN" ;; esac"""


def test_root_on_debian_gets_the_missing_half_of_python_installed(fresh: Checkout) -> None:
    fresh.tool("apt-get", APT_GET)
    done = fresh.run("-q", by=without_venv())
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr == f"{SETTING_UP}viacheck: python3 lacks venv: installing the package python3-venv with apt-get\n"
    )
    assert (fresh.folder / "apt-get.log").read_text().splitlines() == [
        "noninteractive -q -y update",
        "noninteractive -q -y install --no-install-recommends python3-venv",
    ]


@pytest.mark.parametrize(
    ("apt_get", "last"),
    [
        ("echo E: no route to any mirror; exit 100", "apt-get could not install python3-venv"),
        ("true", "{python} lacks venv even with the package python3-venv installed"),
    ],
    ids=["fails", "does not help"],
)
def test_apt_get_that_does_not_help_is_told(fresh: Checkout, apt_get: str, last: str) -> None:
    fresh.tool("apt-get", apt_get)
    done = fresh.run(by=without_venv())
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == f"viacheck: {last.format(python=fresh.bin / 'python3')}"
    assert ("E: no route to any mirror" in done.stderr) == apt_get.startswith("echo")


@pytest.mark.parametrize("missing", ["root", "apt-get"])
def test_elsewhere_the_missing_package_is_named(fresh: Checkout, missing: str) -> None:
    if missing == "root":
        fresh.tool("apt-get", APT_GET)
        fresh.tool("id", "echo 1000")
    done = fresh.run(by=without_venv())
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == (
        "viacheck: python3 lacks venv: install it as root (on Debian and Ubuntu: apt-get install python3-venv), "
        "then start again"
    )
    assert not (fresh.folder / "apt-get.log").exists()
