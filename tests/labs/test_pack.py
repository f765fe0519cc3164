"""viacheck in one file: the same bytes each time, run where nothing is installed, from a cache that is private."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from netns_lab.whole_host.apt_sources import sources_for, transport_settings
from netns_lab.whole_host.base_root import TOOL
from reports.report_files import read_outcome
from tests.helpers.front_door import sub_command
from tests.helpers.one_file import HERE, PACKED, packed_once
from viacheck import __version__
from viacheck.fleet import pack, unpack
from viacheck.model.verdict import Verdict

CHROOT = """
mount --bind . .
cd "$PWD"
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot . "$@"
"""
"""Runs a command in the root that is the working directory; needs a mount namespace of its own."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_once(tmp_path_factory)


def start(packed: Path, cache: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Start the file by sh, with a cache of its own and without this Python's environment."""
    clean = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(cache), **env}
    return subprocess.run(
        ["/bin/sh", packed, *arguments], env=clean, cwd=cache.parent, capture_output=True, text=True, timeout=300
    )


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    pack._download(pack.Platform.parse(HERE), wheels, None)
    path = tmp_path / "viacheck.pyz"
    done = sub_command("pack", "--only", HERE, "--wheelhouse", wheels, "-o", path)
    assert done.returncode == 0, done.stderr
    assert pack.digest_of(path.read_bytes()) in done.stdout
    os.utime(next(wheels.glob("*.whl")))
    assert pack.build([pack.Platform.parse(HERE)], wheels) == path.read_bytes()
    assert path.stat().st_size < 12_000_000


def test_it_holds_the_libraries_of_each_python_and_processor(packed: Path) -> None:
    native: dict[str, dict[str, zipfile.ZipInfo]] = {}
    shared = 0
    with zipfile.ZipFile(packed) as archive:
        assert archive.read(unpack.PLATFORMS).decode().split() == PACKED
        for entry in archive.infolist():
            library = re.fullmatch(r"(.+)\.cpython-3(\d+)-(\w+)-linux-gnu\.so", entry.filename)
            if library is None:
                shared += entry.compress_size
                continue
            name, minor, machine = library.groups()
            native.setdefault(f"3.{minor}-{machine}", {})[name] = entry
            assert elf_machine(archive, entry) == ELF_MACHINES[machine], entry.filename
    assert sorted(native) == PACKED
    assert len({frozenset(libraries) for libraries in native.values()}) == 1, "a library lacks for one of them"
    largest = max(sum(entry.compress_size for entry in libraries.values()) for libraries in native.values())
    assert shared + len(pack.PLATFORMS) * largest <= 35_000_000, "the file for every Python and processor"


ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""EM_X86_64 and EM_AARCH64 of elf(5)."""


def elf_machine(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    with archive.open(entry) as file:
        head = file.read(20)
    assert head[:4] == b"\x7fELF"
    return int.from_bytes(head[18:20], "little")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts file systems")
@pytest.mark.skipif(shutil.which(TOOL) is None, reason="needs the package mmdebstrap")
def test_it_runs_on_a_debian_with_python_3_14(packed: Path, tmp_path: Path) -> None:
    """Forky's Python, with no other package than iproute2: labs, probes and captures work."""
    root = tmp_path / "root"
    settings = tmp_path / "apt.conf"
    # The release file of a release under way may be out of date on a mirror.
    settings.write_text(
        f'{transport_settings()}Acquire::Check-Valid-Until "false";\nAcquire::Languages "none";\n'
        'APT::Install-Recommends "false";\n'
    )
    made = subprocess.run(
        [TOOL, "--quiet", "--mode=root", "--variant=extract", f"--aptopt={settings}",
         "--include=base-files,dash,iproute2,python3.14", "forky", root, *(s.line for s in sources_for("forky"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    shutil.copy(packed, root / "viacheck.pyz")

    def inside(*argv: str) -> subprocess.CompletedProcess[str]:
        words = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-ec", CHROOT, "sh", *argv]
        return subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)

    assert inside("python3.14", "-c", "import sys; print(sys.version_info[:2])").stdout == "(3, 14)\n"
    run = inside("sh", "/viacheck.pyz", "--lab", "policy-routing", "-k", "EGRESS-01", "--report-dir", "/report")
    assert run.returncode == 0, run.stdout + run.stderr
    assert {r.verdict for r in read_outcome(root / "report/result.json").results} == {Verdict.PASS}


def test_it_judges_a_lab_from_a_private_cache(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = tmp_path_factory.mktemp("cache") / "cache"
    report = cache.parent / "report"
    done = start(packed, cache, "--lab", "policy-routing", "-q", "-k", "ROUTE-05", "--report-dir", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [r.verdict for r in read_outcome(report / "result.json").results] == [Verdict.PASS]
    (folder,) = (cache / "viacheck").iterdir()
    assert folder.name == pack.digest_of(packed.read_bytes())
    assert {path.stat().st_mode & 0o777 for path in (cache / "viacheck", folder)} == {0o700}
    # A later start runs what is there, also where no Python is on PATH.
    warm = start(packed, cache, "--version", PATH="/nonexistent")
    assert (warm.returncode, warm.stdout) == (0, f"viacheck {__version__}\n")


def test_a_planted_folder_is_not_run(packed: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    (planted / "bin").mkdir(parents=True)
    (planted / "bin" / "python").write_text("#!/bin/sh\necho planted\n")
    (planted / "bin" / "python").chmod(0o755)
    cache = tmp_path / "cache"
    (cache / "viacheck").mkdir(parents=True)
    (cache / "viacheck" / pack.digest_of(packed.read_bytes())).symlink_to(planted)
    done = start(packed, cache, "--version")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "is not a folder of this user" in done.stderr


def test_a_host_without_python_is_one_line(packed: Path, tmp_path: Path) -> None:
    done = start(packed, tmp_path / "cache", "--version", PATH=str(tmp_path))
    assert done.returncode == 4
    assert done.stderr == "viacheck: needs Python 3.11 or newer on PATH; python3 is: missing\n"


def test_a_python_without_libraries_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(Path(unpack.__file__), "__main__.py")
        archive.writestr(unpack.PLATFORMS, "3.14-riscv64\n")
    done = subprocess.run([sys.executable, "-I", path, tmp_path / "c", "d"], capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr == f"viacheck: this file has no libraries for Python {HERE}; it has: 3.14-riscv64\n"
    assert not (tmp_path / "c").exists()


def test_starts_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "small.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(Path(unpack.__file__), "__main__.py")
        archive.writestr(unpack.PLATFORMS, f"{HERE}\n")
        for number in range(200):
            archive.writestr(f"{unpack.PACKAGES}m{number}.py", "x = 1\n")
    starts = [subprocess.Popen([sys.executable, "-I", path, tmp_path / "c", "d"]) for _ in range(8)]
    assert [process.wait(60) for process in starts] == [0] * 8
    assert [entry.name for entry in (tmp_path / "c").iterdir()] == ["d"]
    assert {entry.name for entry in (tmp_path / "c" / "d").iterdir()} == {"bin", "lib", "pyvenv.cfg", "site-packages"}


def test_wheels_that_do_not_fit_together_are_refused() -> None:
    entries: dict[str, bytes] = {}
    pack._add(entries, [("a.py", b"1")], "a.whl")
    pack._add(entries, [("a.py", b"1")], "b.whl")
    with pytest.raises(pack.PackFailed, match=r"c\.whl: holds another a\.py"):
        pack._add(entries, [("a.py", b"2")], "c.whl")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--only", "2.7-x86_64"), 4, "--only: unknown platform '2.7-x86_64'; allowed: 3.11-x86_64"),
        (("--wheelhouse", "none"), 4, "--wheelhouse: none is not a directory"),
        (("--only", HERE, "--wheelhouse", "."), 1, f"pip found no wheels for {HERE}: ERROR: "),
    ],
)
def test_what_cannot_be_packed_is_one_line(arguments: tuple[str, ...], status: int, text: str, tmp_path: Path) -> None:
    done = sub_command("pack", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert text in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", [".unpacking-*", "*/pyvenv.cfg"], ids=["while it unpacks", "while it compiles"])
def test_the_interrupt_key_ends_a_first_start(packed: Path, tmp_path: Path, there: str) -> None:
    """The pool of compileall waited for ever for its workers, which the key reaches as well."""
    ours, theirs = pty.openpty()
    argv = ["setsid", "--ctty", "env", f"XDG_CACHE_HOME={tmp_path}", "/bin/sh", str(packed), "--version"]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    while process.poll() is None and not list((tmp_path / "viacheck").glob(there)):
        time.sleep(0.01)
    os.write(ours, b"\x03")
    assert process.wait(60) in (130, -signal.SIGINT)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert said in ("^C", "^Cviacheck: interrupted\r\n")
    assert not list((tmp_path / "viacheck").glob(".unpacking-*"))
