"""The base root of a release: its sources, its name in the cache, and that no half of it is ever seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netns_lab.whole_host import apt_sources, base_root
from netns_lab.whole_host.base_root import BaseRoot, BaseRootFailed, remove_all
from netns_lab.whole_host.host_requirements import missing_for
from tests.helpers.guarded_host import until
from tests.helpers.paths import ROOT

INDEXES = """\
http://mirror.example/debian/|bookworm|main|Debian|Packages
http://mirror.example/debian/|bookworm-updates|main|Debian|Packages
http://mirror.example/security|bookworm-security|main|Debian|Packages
http://mirror.example/debian/|bookworm|contrib|Debian|Packages
http://other.example/apt|bookworm|main|Other|Packages
http://mirror.example/debian/|bookworm|main|Debian|Translations
"""
SETTINGS = """\
APT::Architecture "amd64";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https "";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
"""
STAND_IN = """\
#!/bin/sh
# Stands in for mmdebstrap, whose last arguments are the release, the root and the sources.
for word; do case $word in /*/root) root=$word ;; esac; done
echo run >>"$COUNT"
mkdir -p "$root/var/lib/dpkg"
echo half >"$root/half"
while [ -e "$COUNT.wait" ]; do sleep 0.02; done
[ ! -e "$COUNT.fail" ] || { echo "E: no such release" >&2; exit 1; }
rm "$root/half"
echo "Package: base" >"$root/var/lib/dpkg/status"
"""
BUILD = """
from netns_lab.whole_host.base_root import BaseRoot
BaseRoot("bookworm").build(lambda line: print(line, flush=True))
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a build has namespaces of its own")


@pytest.fixture
def count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own and a stand-in for mmdebstrap; returns the file with one line for each run of it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    # The machine's own apt takes seconds to answer on a busy machine, and the stand-in asks no source.
    for name, text in ((base_root.TOOL, STAND_IN), ("apt-get", "#!/bin/sh\n"), ("apt-config", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    return tmp_path / "count"


def build_elsewhere() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    return subprocess.Popen([sys.executable, "-P", "-c", BUILD], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_release_comes_from_where_this_machine_gets_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('NAME="Debian"\nVERSION_CODENAME=bookworm\n')
    monkeypatch.setattr(apt_sources, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setattr(apt_sources, "output_of", lambda *_argv: INDEXES)
    assert [source.line for source in apt_sources.sources_for("trixie")] == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/security trixie-security main",
    ]


def test_a_machine_without_debians_indexes_leaves_the_sources_to_mmdebstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_sources, "output_of", lambda *_argv: "")
    assert apt_sources.sources_for("bookworm") == []


def test_proxies_and_the_checks_of_dates_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_sources, "output_of", lambda *_argv: SETTINGS)
    assert apt_sources.transport_settings().splitlines() == [
        'Acquire::http::Proxy "http://proxy.example:3128";', 'Acquire::Check-Valid-Until "false";',
    ]  # fmt: skip


def test_its_name_holds_the_release_and_the_packages(count: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {BaseRoot(release).folder.name for release in base_root.RELEASES}
    monkeypatch.setattr(base_root, "PACKAGES", (*base_root.PACKAGES, "docker.io"))
    names |= {BaseRoot(release).folder.name for release in base_root.RELEASES}
    assert len(names) == 2 * len(base_root.RELEASES)
    assert BaseRoot("trixie").folder.parent == count.parent / "cache" / "viacheck" / "roots"


@as_root
def test_it_is_built_once(count: Path) -> None:
    base, lines = BaseRoot("bookworm"), list[str]()
    for _ in range(2):
        base.build(lines.append)
    assert base.built
    assert len(lines) == 1
    assert lines[0].startswith("building the bookworm base root in ")
    assert count.read_text() == "run\n"
    assert base.folder.parent.stat().st_mode & 0o077 == 0, "its set-user-ID programs are not for other users"
    (base.path / "var/lib/dpkg/status").write_text("Package: another\n")
    assert not base.built, "a root that was changed is not the root that was built"
    assert remove_all() == [base.folder]
    assert not base.folder.exists()


@as_root
def test_a_build_that_is_killed_leaves_no_root(count: Path) -> None:
    hold = Path(f"{count}.wait")
    hold.touch()
    aside = BaseRoot("bookworm").folder.with_suffix(".building")
    process = build_elsewhere()
    until(lambda: (aside / "root" / "half").exists(), "the build has begun")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not BaseRoot("bookworm").built
    hold.unlink()
    BaseRoot("bookworm").build(lambda _line: None)
    assert BaseRoot("bookworm").built
    assert [path.name for path in BaseRoot("bookworm").path.iterdir()] == ["var"]
    assert not aside.exists()


@as_root
def test_two_builds_at_once_are_one(count: Path) -> None:
    hold = Path(f"{count}.wait")
    hold.touch()
    processes = [build_elsewhere(), build_elsewhere()]
    lines = {process.stdout.readline().split()[0] for process in processes if process.stdout is not None}
    assert lines == {"building", "waiting"}
    hold.unlink()
    assert [process.communicate() and process.returncode for process in processes] == [0, 0]
    assert count.read_text() == "run\n"


@as_root
def test_a_failed_build_says_why_and_leaves_nothing(count: Path) -> None:
    Path(f"{count}.fail").touch()
    with pytest.raises(BaseRootFailed, match="mmdebstrap bookworm ended with exit code 1: E: no such release"):
        BaseRoot("bookworm").build(lambda _line: None)
    assert [path.name for path in base_root.cache_folder().iterdir()] == ["lock"]


@as_root
def test_what_is_missing_is_said_in_one_line(count: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_for(BaseRoot("bookworm")) is None
    monkeypatch.setenv("PATH", str(count.parent))
    assert missing_for(BaseRoot("bookworm")) == (
        "a whole host needs the base root of bookworm, and the package that builds it is not installed: "
        "apt-get install mmdebstrap"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing_for(BaseRoot("bookworm")) == "a whole host needs root: it mounts file systems and makes cgroups"
