"""The files are collected from a namespace's own file system, whatever the folders hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hand_made import SITE
from tests.helpers.paths import ROOT
from tests.helpers.persistence_hosts import recorded
from viacheck.bundle.reader import read_bundle
from viacheck.host import persistence_files, syscalls
from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import HostFile
from viacheck.persistence.manager_units import NotStarted, not_started


def host(files: dict[str, str], extra: dict[str, str] | None = None) -> Namespace:
    """A namespace with an /etc and a /run of its own, with these files; ``extra`` names links and their targets."""

    def prepare() -> None:
        for folder in ("/etc", "/run"):
            syscalls.mount("tmpfs", folder, "tmpfs", options="mode=755")
        for path, text in files.items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).write_bytes(text.encode(errors="surrogateescape"))
            os.chmod(path, 0o600 if "system-connections" in path else 0o755)
        for path, target in (extra or {}).items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mkfifo(path) if target == "fifo" else os.symlink(target, path)

    try:
        return Namespace.create("persistence", prepare)
    except OSError as error:
        pytest.skip(f"no namespace can be made here: {error}")


@pytest.fixture
def collected(request: pytest.FixtureRequest) -> Iterator[dict[str, HostFile]]:
    namespace = host(*request.param)
    try:
        files = persistence_files.collect(namespace)
        assert len({file.path for file in files}) == len(files)
        yield {file.path: file for file in files if not file.path.startswith("/usr/")}
    finally:
        namespace.close()


@pytest.mark.parametrize("collected", [({},)], indirect=True)
def test_a_host_without_any_manager(collected: dict[str, HostFile]) -> None:
    assert [(file.path, file.exists) for file in collected.values()] == [
        ("/etc/network/interfaces", False), ("/etc/rc.local", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "collected",
    [(recorded("ifupdown-healthy") | recorded("networkd-healthy") | recorded("networkmanager-healthy")
      | recorded("netplan-healthy") | recorded("networkmanager-dispatcher"),)],
    indirect=True,
)  # fmt: skip
def test_every_managers_files(collected: dict[str, HostFile]) -> None:
    assert set(collected) == {
        "/etc/network/interfaces", "/etc/rc.local", "/run/network/ifstate",
        "/etc/network/interfaces.d/10-rules.conf", "/etc/network/interfaces.d/radio",
        "/etc/systemd/network/20-wlan0.network", "/etc/systemd/network/10-lo.network",
        "/etc/systemd/network/10-lo.network.d/backstop.conf", "/etc/systemd/networkd.conf.d/10-agent.conf",
        "/run/systemd/network/10-netplan-wlan0.network", "/run/systemd/network/10-netplan-lo.network",
        "/run/systemd/netif/links/1", "/run/systemd/netif/links/12",
        "/etc/NetworkManager/system-connections/office.nmconnection", "/run/NetworkManager/devices/12",
        "/etc/NetworkManager/dispatcher.d/50-agent", "/etc/netplan/01-netcfg.yaml",
    }  # fmt: skip
    assert not any("CANARY" in file.text for file in collected.values())
    assert collected["/etc/NetworkManager/system-connections/office.nmconnection"].mode == 0o600


@pytest.mark.parametrize(
    "collected",
    [(
        {
            "/etc/network/interfaces": "source interfaces.d/* /etc/nowhere\nsource-directory loop\n",
            "/etc/network/interfaces.d/sub/x": "iface a inet dhcp\n",
            "/etc/netplan/bad.yaml": "network: {password: 'CANARY\n",
            "/etc/NetworkManager/dispatcher.d/no-wait.d/vendor": "#!/bin/sh\nexit 0\n",
            "/etc/network/if-up.d/vendor": "#!/bin/sh\nethtool -s $IFACE wol g\n",
            "/etc/network/interfaces.d/bytes": "\udcff",
        },
        {
            "/etc/network/interfaces.d/pipe": "fifo",
            "/etc/network/loop/interfaces": "/etc/network/interfaces",
            "/etc/systemd/network/50-masked.network": "/dev/null",
            "/etc/systemd/network/60-dangling.network": "/nowhere",
            "/etc/netplan/pipe.yaml": "fifo",
        },
    )],
    indirect=True,
)  # fmt: skip
def test_unexpected_files(collected: dict[str, HostFile]) -> None:
    assert "/etc/network/interfaces.d/pipe" not in collected
    assert "/etc/network/if-up.d/vendor" not in collected
    assert "/etc/NetworkManager/dispatcher.d/no-wait.d" not in collected
    assert collected["/etc/systemd/network/50-masked.network"].text == ""
    assert collected["/etc/systemd/network/60-dangling.network"].error == "No such file or directory"
    assert collected["/etc/netplan/pipe.yaml"].text == ""
    bad = collected["/etc/netplan/bad.yaml"]
    assert bad.text == ""
    assert bad.error is not None
    assert "not YAML" in bad.error
    assert "CANARY" not in bad.error


CRON_D, CRON_SCRIPT = "/etc/cron.d/agent", "/opt/agent/rules"
RULE = "ip rule add from 172.17.0.0/16 lookup 200"


@pytest.mark.parametrize(
    "collected",
    [(
        {
            CRON_D: f"@reboot root {CRON_SCRIPT} CANARY\n",
            "/etc/cron.d/backup": "@reboot root /usr/bin/backup CANARY\n",
            "/etc/crontab": f"TOKEN=CANARY\n@reboot root {RULE}\n17 * * * * root ip rule show\n",
            "/run/systemd/system/cron.service": "[Service]\n",
        },
        {"/etc/systemd/system/multi-user.target.wants/cron.service": "/run/systemd/system/cron.service"},
    )],
    indirect=True,
)  # fmt: skip
def test_crontabs_that_change_routing_at_boot(collected: dict[str, HostFile]) -> None:
    assert {path for path in collected if "cron" in path} == {
        "/etc/crontab", "/run/systemd/system/cron.service",
        "/etc/systemd/system/multi-user.target.wants/cron.service",
    }  # fmt: skip
    assert collected["/etc/crontab"].text == f"\n@reboot root {RULE}\n\n"


UNIT_LINK = "/etc/systemd/system/multi-user.target.wants/networking.service"


@pytest.mark.parametrize(
    ("links", "unit"),
    [
        ({UNIT_LINK: "/lib/systemd/system/networking.service"}, None),
        ({}, NotStarted("networking.service")),
        ({"/etc/systemd/system/networking.service": "/dev/null"}, NotStarted("networking.service", masked=True)),
    ],
    ids=["enabled", "disabled", "masked"],
)
def test_the_unit_of_a_manager_is_collected_live_and_by_the_script(
    tmp_path: Path, links: dict[str, str], unit: NotStarted | None
) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    script = str(ROOT / "src" / "viacheck" / "bundle" / "collect.sh")
    namespace = host({"/run/systemd/system/networking.service": "[Service]\n"}, links)
    try:
        assert not_started(persistence_files.collect(namespace), "ifupdown") == unit
        words = ["sh", script, "--site", str(tmp_path / "site.toml"), "-o", str(tmp_path / "case.tar.gz")]
        assert namespace.run(words).ok
        assert not_started(read_bundle(tmp_path / "case.tar.gz").snapshot.files, "ifupdown") == unit
    finally:
        namespace.close()
    namespace = host({}, links)
    try:
        assert not_started(persistence_files.collect(namespace), "ifupdown") is None, "systemd is not its init"
    finally:
        namespace.close()
