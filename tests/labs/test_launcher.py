"""``./viacheck`` in small checkouts of its own: real shells, real venv, real pip, and no package index.

A small checkout holds a package of its own, which its build backend installs without a download, and depends on a wheel
that is made here. To hide Python's venv, as Debian does without python3-venv, a test uses a private mount namespace.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT

LAUNCHER = ROOT / "viacheck"
SETTING_UP = "viacheck: setting up .venv (once, about half a minute)\n"
PYTHON = str(Path(sys.executable).resolve())
TOOLS = (
    "cat", "cksum", "dirname", "env", "find", "grep", "id", "mkdir", "mount", "readlink", "rm", "sh", "umount", "uname",
)  # fmt: skip
SHELLS = [argv for argv in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(argv[0])]
PRIVATE_MOUNTS = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "viacheck"
version = "1"
dependencies = ["lent>=1"]
[project.optional-dependencies]
tests = ["lent-tests"]
"""
BACKEND = """\
import pathlib, tomllib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with open("pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    metadata = "Metadata-Version: 2.1\\nName: viacheck\\nVersion: 1\\nProvides-Extra: tests\\n"
    metadata += "".join(f"Requires-Dist: {name}\\n" for name in project["dependencies"])
    extra = project["optional-dependencies"]["tests"]
    metadata += "".join(f"Requires-Dist: {name}; extra == 'tests'\\n" for name in extra)
    wheel = "viacheck-1-py3-none-any.whl"
    files = {
        "viacheck.pth": str(pathlib.Path("src").resolve()),
        "viacheck-1.dist-info/METADATA": metadata,
        "viacheck-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    with zipfile.ZipFile(pathlib.Path(wheel_directory, wheel), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr("viacheck-1.dist-info/RECORD", "".join(f"{path},,\\n" for path in files))
    return wheel
"""
MAIN = """\
import json, os, sys

print(json.dumps({
    "arguments": sys.argv[1:], "file": __file__, "cwd": os.getcwd(), "pid": os.getpid(),
    "isolated": sys.flags.isolated, "safe_path": sys.flags.safe_path, "path": sys.path,
    "pycache_prefix": sys.pycache_prefix, "dont_write_bytecode": sys.dont_write_bytecode,
}))
sys.exit(int(os.environ.get("STATUS", "0")))
"""


def wheel(folder: Path, name: str, version: str) -> None:
    """Write a wheel with one empty module."""
    files = {
        f"{name}.py": "",
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{name}-{version}.dist-info/RECORD", "".join(f"{path},,\n" for path in files))


class Checkout:
    """A small checkout with the real launcher, and a PATH with nothing on it but the test's programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "check out"
        self.bin = folder / "bin"
        self.wheels = folder / "wheel house"

    @classmethod
    def new(cls, folder: Path) -> Checkout:
        """Lay out everything but .venv."""
        checkout = cls(folder)
        package = checkout.root / "src" / "viacheck" / "cli"
        for path in (package, checkout.bin, checkout.wheels):
            path.mkdir(parents=True)
        shutil.copy2(LAUNCHER, checkout.root)
        (checkout.root / "pyproject.toml").write_text(PYPROJECT)
        (checkout.root / "backend.py").write_text(BACKEND)
        (checkout.root / "constraints.txt").write_text("lent==1.0\nlent-tests==1.0\n")
        (package / "main.py").write_text(MAIN)
        for tool in TOOLS:
            (checkout.bin / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        checkout.python()
        for name, version in (("lent", "1.0"), ("lent", "1.1"), ("lent_tests", "1.0")):
            wheel(checkout.wheels, name, version)
        return checkout

    def copy(self, folder: Path) -> Checkout:
        """Copy the checkout with its .venv, as a move would."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        return Checkout(folder)

    def python(self, name: str = "python3", pip_of: Checkout | None = None) -> None:
        """Put this Python on the checkout's PATH.

        Args:
            name: of the program.
            pip_of: a checkout with a .venv. ensurepip takes four fifths of a set-up, and would install the same pip as
                it did there: a new .venv gets links to those files instead.
        """
        script = f'exec {PYTHON} "$@"'
        if pip_of is not None:
            (pip,) = (pip_of.root / ".venv").glob("lib/python3*/site-packages/pip")
            link = shlex.join([str(shutil.which("cp")), "--archive", "--link", *map(str, pip.parent.glob("pip*"))])
            script = (
                f'[ "$1 $2 $3" != "-I -m venv" ] || {{\n{PYTHON} -I -m venv --without-pip "$4" && exec {link} '
                f'"$4"/lib/python3*/site-packages\n}}\n{script}'
            )
        self.tool(name, script)

    def tool(self, name: str, script: str) -> None:
        """Put a program on the checkout's PATH."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """An environment without settings of the caller, and without a package index."""
        return {
            "PATH": str(self.bin),
            "HOME": str(self.folder),
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.wheels.as_uri(),
        }

    def start(
        self, *arguments: str, by: Sequence[str] = (), cwd: Path | None = None, **more: str
    ) -> subprocess.Popen[str]:
        """Start the launcher in a process group of its own."""
        by = [shutil.which(by[0]) or by[0], *by[1:]] if by else []
        environment = {name: value for name, value in {**self.environment, **more}.items() if value}
        return subprocess.Popen(
            [*by, str(self.root / "viacheck"), *arguments],
            cwd=cwd or self.folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self, *arguments: str, by: Sequence[str] = (), cwd: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the launcher to its end."""
        process = self.start(*arguments, by=by, cwd=cwd, **more)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    @property
    def installed(self) -> dict[str, str]:
        """The versions of the lent wheels that pip installed."""
        folders = (self.root / ".venv").glob("lib/python3*/site-packages/lent*.dist-info")
        return dict(path.name.removesuffix(".dist-info").split("-") for path in folders)


def seen_by(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return what the package that was started saw of itself; assert that the launcher was silent."""
    assert (done.returncode, done.stderr) == (0, "")
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout that was started once, from a folder with modules that it must not import."""
    checkout, caller = Checkout.new(tmp_path_factory.mktemp("ready")), tmp_path_factory.mktemp("caller")
    for name in ("venv.py", "pip.py", "fcntl.py", "ensurepip.py", "json.py"):
        (caller / name).write_text("raise SystemExit('imported from the caller')")
    first = checkout.run(cwd=caller, PYTHONPATH=str(caller), PYTHONSTARTUP=str(caller / "json.py"))
    assert (first.returncode, first.stderr) == (0, SETTING_UP), first.stdout + first.stderr
    return checkout


@pytest.fixture
def fresh(ready: Checkout, tmp_path: Path) -> Checkout:
    """A checkout that was never started."""
    checkout = Checkout.new(tmp_path)
    checkout.python(pip_of=ready)
    return checkout


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_every_shell_starts_the_package_and_says_nothing(ready: Checkout, shell: list[str]) -> None:
    assert seen_by(ready.run(by=shell))["file"] == str(ready.root / "src/viacheck/cli/main.py")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_every_shell_sets_up_a_moved_checkout_again(ready: Checkout, tmp_path: Path, shell: list[str]) -> None:
    moved = ready.copy(tmp_path)
    assert moved.run(by=shell).stderr == SETTING_UP
    assert seen_by(moved.run(by=shell))["file"] == str(moved.root / "src/viacheck/cli/main.py")
    assert moved.installed == {"lent": "1.0"}


def test_nothing_of_the_callers_directory_or_environment_is_imported(ready: Checkout, tmp_path: Path) -> None:
    trap = "raise SystemExit('imported from the caller')"
    for name in ("viacheck.py", "json.py", "sitecustomize.py", "usercustomize.py"):
        (tmp_path / name).write_text(trap)
    (tmp_path / "link").symlink_to(ready.root / "viacheck")
    environment = {
        **ready.environment, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py"),
        "PYTHONHOME": str(tmp_path), "PYTHONUSERBASE": str(tmp_path), "PYTHONOPTIMIZE": "2",
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(tmp_path / "cache"),
    }  # fmt: skip
    done = subprocess.run(["./link"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    seen = seen_by(done)
    assert (seen["cwd"], seen["file"]) == (str(tmp_path), str(ready.root / "src/viacheck/cli/main.py"))
    assert (seen["isolated"], seen["safe_path"]) == (1, True)
    assert not [entry for entry in seen["path"] if entry.startswith(str(tmp_path)) or not entry]
    assert (seen["pycache_prefix"], seen["dont_write_bytecode"]) == (str(ready.root / ".venv/pycache"), False)
    assert not (tmp_path / "cache").exists()


def test_a_set_up_imports_nothing_of_the_caller(ready: Checkout) -> None:
    assert ready.installed == {"lent": "1.0"}


def test_byte_code_stays_in_the_venv_and_is_made_for_what_is_imported(ready: Checkout) -> None:
    assert not list((ready.root / "src").rglob("__pycache__"))
    assert list((ready.root / ".venv").rglob("lent.py"))
    assert not list((ready.root / ".venv").rglob("lent.*.pyc"))
    assert list((ready.root / ".venv" / "pycache").rglob("main*.pyc"))


def test_the_package_runs_in_the_process_that_was_started(ready: Checkout) -> None:
    process = ready.start()
    stdout, _ = process.communicate(timeout=60)
    assert json.loads(stdout)["pid"] == process.pid


@pytest.mark.parametrize("status", [0, 1, 4, 130])
def test_the_exit_status_is_passed_on(ready: Checkout, status: int) -> None:
    assert ready.run(STATUS=str(status)).returncode == status


def test_arguments_are_passed_on_unchanged(ready: Checkout, tmp_path: Path) -> None:
    seen = seen_by(ready.run("site", "init", "-o", "a b.toml", "", "*", "--", "--wheelhouse", cwd=tmp_path))
    assert seen["arguments"] == ["site", "init", "-o", "a b.toml", "", "*", "--", "--wheelhouse"]
    assert seen["cwd"] == str(tmp_path)


def test_the_harness_tests_install_their_extra_once(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    assert moved.installed == {"lent": "1.0"}
    first, second = moved.run("tests", "-q"), moved.run("tests", "-q")
    assert (first.returncode, first.stderr) == (0, SETTING_UP)
    assert seen_by(second)["arguments"] == ["tests", "-q"]
    assert moved.installed == {"lent": "1.0", "lent_tests": "1.0"}
    assert moved.run("-q").stderr == ""


def test_it_installs_again_only_when_the_requirements_or_python_change(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    moved.run()
    os.utime(moved.root / "constraints.txt")
    assert moved.run().stderr == ""
    (moved.root / "constraints.txt").write_text("lent==1.1\n")
    assert moved.run().stderr == SETTING_UP
    assert moved.installed == {"lent": "1.1"}
    (moved.root / "pyproject.toml").write_text(PYPROJECT.replace("lent>=1", "lent>=1.1"))
    assert moved.run().stderr == SETTING_UP
    assert moved.run().stderr == ""
    python = moved.root / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo Python 3.99 && exit\nexec {PYTHON} "$@"\n')
    python.chmod(0o755)
    assert moved.run().stderr.startswith(SETTING_UP)


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGINT, 130, "viacheck: interrupted; the next start sets .venv up\n"),
    ],
    ids=["SIGKILL", "SIGINT"],
)
def test_an_interrupted_set_up_is_repeated_from_the_start(
    fresh: Checkout, number: signal.Signals, status: int, said: str
) -> None:
    lock = fresh.root / ".venv" / "viacheck.lock"
    process = fresh.start()
    while process.poll() is None and not (lock.exists() and lock.stat().st_size):
        os.sched_yield()
    os.killpg(process.pid, number)
    assert process.communicate()[1] == SETTING_UP + said
    assert process.returncode == status
    half_done = fresh.root / ".venv" / "half-done"
    half_done.touch()
    done = fresh.run()
    assert (done.returncode, done.stderr) == (0, SETTING_UP)
    assert not half_done.exists()


def test_a_broken_venv_is_made_again(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    moved.python(pip_of=ready)
    for name in ("python", "python3"):
        (moved.root / ".venv" / "bin" / name).unlink()
    done = moved.run()
    assert (done.returncode, done.stderr) == (0, SETTING_UP)


def test_two_first_starts_at_once_set_up_once(fresh: Checkout) -> None:
    starts = [fresh.start() for _ in range(2)]
    outputs = [start.communicate(timeout=120) for start in starts]
    assert [start.returncode for start in starts] == [0, 0], outputs
    assert "".join(stderr for _stdout, stderr in outputs).count(SETTING_UP) == 1


def test_the_wait_for_another_start_ends(fresh: Checkout) -> None:
    launcher = fresh.root / "viacheck"
    text = launcher.read_text()
    assert "lock_timeout=600 " in text
    launcher.write_text(text.replace("lock_timeout=600 ", "lock_timeout=1 "))
    lock = fresh.root / ".venv" / "viacheck.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = fresh.run()
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        "viacheck: waiting for another start that is setting up .venv",
        f"viacheck: another start has been setting up .venv for 1 s; find the process that holds {lock}",
    ]


def test_pips_messages_are_shown_when_it_fails_and_the_next_start_repeats(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    moved.python(pip_of=ready)
    (moved.root / "pyproject.toml").write_text(PYPROJECT.replace("lent>=1", "not-on-any-shelf"))
    done = moved.run()
    assert done.returncode == 4
    assert "No matching distribution found for not-on-any-shelf" in done.stderr
    assert done.stderr.endswith("viacheck: pip could not install viacheck; its messages are above\n")
    (moved.root / "pyproject.toml").write_text(PYPROJECT)
    assert (moved.run().returncode, moved.run().stderr) == (0, "")


def test_an_index_that_cannot_be_reached_is_one_line(ready: Checkout, tmp_path: Path) -> None:
    moved = ready.copy(tmp_path)
    (moved.root / "pyproject.toml").write_text(PYPROJECT.replace("lent>=1", "not-installed"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{unused.getsockname()[1]}/simple"
        done = moved.run(PIP_NO_INDEX="", PIP_FIND_LINKS="", PIP_INDEX_URL=index, PIP_RETRIES="1")
    assert done.returncode == 4
    assert done.stderr == (
        f"{SETTING_UP}viacheck: pip cannot reach a package index; check the network or proxy, "
        "or install from wheels: --wheelhouse DIR\n"
    )


def test_a_wheelhouse_is_enough_without_an_index(fresh: Checkout) -> None:
    index = "http://127.0.0.1:1/simple"
    wheels = ("--wheelhouse", fresh.wheels.name)
    done = fresh.run(*wheels, "-q", PIP_NO_INDEX="", PIP_FIND_LINKS="", PIP_INDEX_URL=index)
    assert (done.returncode, done.stderr) == (0, SETTING_UP)
    assert json.loads(done.stdout)["arguments"] == ["-q"]
    assert fresh.installed == {"lent": "1.0"}
    assert seen_by(fresh.run("--wheelhouse", str(fresh.wheels)))["arguments"] == []


@pytest.mark.parametrize("arguments", [("--wheelhouse",), ("--wheelhouse", "nowhere")])
def test_a_wheelhouse_that_is_missing_is_one_line(fresh: Checkout, arguments: tuple[str, ...]) -> None:
    done = fresh.run(*arguments)
    name = arguments[1] if len(arguments) > 1 else ""
    assert (done.returncode, done.stderr) == (
        4, f"viacheck: --wheelhouse: '{name}' is not a directory; name the directory of the wheels\n",
    )  # fmt: skip


def read_only(checkout: Checkout) -> list[str]:
    """Return a command prefix for a mount namespace where the checkout is read-only."""
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    return [*PRIVATE_MOUNTS, "sh", "-c", script, "sh", str(checkout.root)]


def test_a_checkout_that_cannot_be_written_runs_once_it_is_set_up(ready: Checkout) -> None:
    assert seen_by(ready.run(by=read_only(ready)))["dont_write_bytecode"] is True


def test_a_checkout_that_cannot_be_written_says_so_where_it_is_not_set_up(fresh: Checkout) -> None:
    done = fresh.run(by=read_only(fresh))
    assert done.returncode == 4
    assert done.stderr.startswith(f"viacheck: {fresh.root}/.venv is not set up for this version, and ")
    assert done.stderr.count("\n") == 1


def test_a_python_that_this_user_cannot_run_is_named(fresh: Checkout) -> None:
    venv = fresh.root / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    for name, leads_to in (("python3", "/home/of-another/python3"), ("python", "python3")):
        (venv / "bin" / name).symlink_to(leads_to)
    done = fresh.run(by=read_only(fresh))
    assert (done.returncode, done.stdout) == (4, "")
    assert f" cannot run the Python of {venv}, /home/of-another/python3; start a checkout of your own\n" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_old_python_is_refused_in_one_line(fresh: Checkout) -> None:
    fresh.tool("python3", '[ "$1" = -V ] && echo Python 3.9.2')
    done = fresh.run()
    assert done.returncode == 4
    assert done.stderr == "viacheck: needs Python 3.11 or newer on PATH; python3 is: Python 3.9.2\n"


def test_a_missing_python_is_one_line(fresh: Checkout) -> None:
    (fresh.bin / "python3").unlink()
    done = fresh.run()
    assert done.returncode == 4
    assert done.stderr == "viacheck: needs Python 3.11 or newer on PATH; python3 is: missing\n"


def test_a_newer_python_beside_an_old_one_is_found(ready: Checkout, fresh: Checkout) -> None:
    fresh.tool("python3", "exit 1")
    fresh.python("python3.12", pip_of=ready)
    assert (fresh.run().returncode, fresh.installed) == (0, {"lent": "1.0"})


def without_venv() -> list[str]:
    """Return a command prefix for a mount namespace where Python lacks ensurepip, as on Debian without python3-venv."""
    ask = "import ensurepip; print(*ensurepip.__path__)"
    folder = subprocess.run([PYTHON, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    script = 'export HIDDEN="$1" && mount -t tmpfs none "$1" && shift && exec "$@"'
    return [*PRIVATE_MOUNTS, "sh", "-c", script, "sh", folder]


APT_GET = """\
echo "$DEBIAN_FRONTEND" "$@" >>"$HOME/apt-get.log"
case "$*" in *install*) umount "$HIDDEN" ;; esac"""


def test_root_on_debian_gets_python3_venv_installed(fresh: Checkout) -> None:
    fresh.python()
    fresh.tool("apt-get", APT_GET)
    done = fresh.run(by=without_venv())
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
def test_apt_get_that_does_not_help_is_reported(fresh: Checkout, apt_get: str, last: str) -> None:
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
