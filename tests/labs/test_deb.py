"""The Debian package: it installs on a whole host, judges it by its service, writes metrics, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from netns_lab.lab import Lab
from netns_lab.lab_specs import parse_labs
from netns_lab.open_lab import open_lab
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from tests.helpers.hand_made import SITE
from tests.helpers.one_file import packed_once
from viacheck import __version__
from viacheck.cli.main import main
from viacheck.fleet import deb
from viacheck.fleet.pack import PLATFORMS, PackFailed, Platform

_BASE = BaseRoot(DEFAULT_RELEASE)
_MISSING = missing_for(_BASE)
needs_whole_host = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))
MANAGED_SITE = SITE.replace('persist = "none"\n', "")
LEFT_BY_A_RUN = ("/var/cache/viacheck", "/var/lib/viacheck", "/etc/viacheck", "/etc/default/viacheck")
STAND_IN = b"#!/bin/sh\n# viacheck 0\ndigest=0123456789abcdef0123456789abcdef\n"
"""For the one file, where the package alone is looked at."""
UNITS = "/usr/lib/systemd/system"


def field(package: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "--field", package, name], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = packed_once(tmp_path_factory).read_bytes()
    path = tmp_path_factory.mktemp("deb") / deb.default_name(PLATFORMS)
    path.write_bytes(deb.build_deb(packed, PLATFORMS))
    return path


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    """A whole Debian whose ifupdown has the guide's rule and route, with an agent in a namespace."""
    _BASE.build(lambda _line: None)
    (spec,) = parse_labs("host:policy-routing-ifupdown")
    with contextlib.closing(open_lab(spec)) as lab:
        yield lab


def test_it_is_a_package_as_debian_names_and_fills_it(package: Path) -> None:
    assert package.name == f"viacheck_{__version__}_all.deb"
    assert field(package, "Version") == f"{__version__}\n"
    assert field(package, "Depends") == "python3 (>= 3.11) | python3.11, python3 (<< 3.15), iproute2\n"
    listed = subprocess.run(["dpkg-deb", "--contents", package], check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in listed.splitlines()]
    assert {line[1] for line in lines} == {"root/root"}
    assert {"./usr/bin/viacheck", f".{UNITS}/viacheck.timer", "./etc/viacheck/"} <= {line[5] for line in lines}


def test_the_same_inputs_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [Platform("3.11", "aarch64")]
    first = deb.build_deb(STAND_IN, only)
    umask = os.umask(0o077)
    try:
        assert deb.build_deb(STAND_IN, only) == first
    finally:
        os.umask(umask)
    assert deb.default_name(only).endswith("_arm64.deb")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    assert deb.build_deb(STAND_IN, only) != first


def test_without_dpkg_deb_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackFailed, match="a Debian package needs dpkg-deb, which is not installed: apt-get install"):
        deb.build_deb(b"", PLATFORMS)


def test_the_command_writes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("viacheck.cli.pack.build", lambda *_arguments: STAND_IN)
    monkeypatch.chdir(tmp_path)
    assert main(["pack", "--deb", "--only", "3.12-x86_64"]) == 0
    assert main(["pack", "--deb", "-o", "other.deb"]) == 0
    files = {path.name: path for path in tmp_path.iterdir()}
    assert files.keys() == {f"viacheck_{__version__}_amd64.deb", "other.deb"}
    assert not any(path.stat().st_mode & 0o111 for path in files.values())
    assert "python3 (>= 3.12) | python3.12, python3 (<< 3.13)" in field(
        files.pop(f"viacheck_{__version__}_amd64.deb"), "Depends"
    )


@needs_whole_host
def test_it_installs_judges_writes_metrics_and_leaves_nothing(host: Lab, package: Path) -> None:
    def on_host(*argv: str) -> str:
        result = host.host.namespace.run(argv, 600)
        assert result.ok, f"{argv}: {result.stdout}{result.stderr}{journal() if 'start' in argv else ''}"
        return result.stdout

    def journal() -> str:
        return host.host.namespace.run(["journalctl", "--no-pager", "-u", "viacheck.service"]).stdout

    def exists(path: str) -> bool:
        return host.host.namespace.run(["test", "-e", path]).ok

    content = package.read_bytes()
    host.host.namespace.call(lambda: Path("/root/viacheck.deb").write_bytes(content))
    on_host("dpkg", "--install", "/root/viacheck.deb")
    assert on_host("viacheck", "--version") == f"viacheck {__version__}\n"
    assert on_host("systemctl", "is-active", "viacheck.timer") == "active\n"
    assert on_host("systemctl", "is-enabled", "viacheck.timer") == "enabled\n"
    on_host("systemd-analyze", "verify", "--man=no", f"{UNITS}/viacheck.service", f"{UNITS}/viacheck.timer")
    # Without a site file there is nothing to judge, and that is no failure.
    on_host("systemctl", "start", "viacheck.service")
    assert not exists("/var/lib/viacheck/viacheck.prom")

    host.host.write("/etc/viacheck/site.toml", MANAGED_SITE)
    for healthy in (True, False):
        if not healthy:
            host.host.ip("rule", "del", "from", "172.17.0.0/16", "lookup", "200")
        # A failed check is a verdict, and not a failure of the service.
        on_host("systemctl", "start", "viacheck.service")
        metrics = verdicts(on_host("cat", "/var/lib/viacheck/viacheck.prom"))
        assert metrics["ROUTE-02"] == ("pass" if healthy else "fail"), journal()
        assert metrics["PERSIST-01"] == metrics["PERSIST-02"] == "pass", journal()
    assert on_host("stat", "-c", "%a", "/var/lib/viacheck/viacheck.prom", "/var/lib/viacheck/report").split() == [
        "644", "700",
    ]  # fmt: skip
    assert on_host("systemctl", "is-system-running") == "running\n"

    on_host("dpkg", "--remove", "viacheck")
    assert exists("/etc/viacheck/site.toml"), "what its operator wrote stays"
    assert not exists("/var/lib/viacheck/viacheck.prom"), "metrics that nothing renews"
    assert not host.host.namespace.run(["systemctl", "cat", "viacheck.timer"]).ok
    on_host("dpkg", "--purge", "viacheck")
    assert not [path for path in LEFT_BY_A_RUN if exists(path)]
    assert on_host("find", "/etc/systemd", "/var/lib/systemd/deb-systemd-helper-enabled", "-name", "viacheck*") == ""
    assert on_host("systemctl", "is-system-running") == "running\n"


def verdicts(text: str) -> dict[str, str]:
    """The verdict of each check without cases, as the file of metrics has it."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    labels = [sample.labels for sample in families["viacheck_check_verdict"].samples]
    return {label["check"]: label["verdict"] for label in labels if not label["case"]}
