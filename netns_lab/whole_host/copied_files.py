"""The network files of the host that the run was started on, as files of a whole host's disk.

They are read whole, keys and passwords included: they lie on a disk in memory, which ends with the lab, and the report
shows of them what it shows of the host's own. What a base root cannot run is named.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from netns_lab.whole_host.root_files import NO_UNIT, RootFile
from viacheck.host.files import READ_LIMIT, names_in, read_file
from viacheck.model.snapshot import HostFile
from viacheck.persistence.boot_files import UNIT_FOLDERS
from viacheck.persistence.manager_units import CONFIGURED, ENABLES, FOLDERS, UNITS

OS_RELEASE = "/etc/os-release"
COPIED_FOLDERS = (
    "/etc/network", "/etc/netplan", "/etc/NetworkManager", "/etc/systemd/network", "/etc/systemd/networkd.conf.d",
    "/etc/iproute2", "/etc/sysctl.d", "/etc/dhcp",
)  # fmt: skip
COPIED_FILES = (
    "/etc/systemd/networkd.conf", "/etc/sysctl.conf", "/etc/rc.local", "/etc/default/networking", "/etc/nftables.conf",
)  # fmt: skip
OPERATORS_FOLDERS = ("/etc/", "/usr/local/", "/opt/")
"""Where files lie that no package brings, or that an operator may change."""
DAEMON_JSON = "/etc/docker/daemon.json"
NETWORK_SETTINGS = frozenset({
    "bip", "bip6", "default-address-pools", "default-gateway", "default-network-opts", "dns", "dns-opts", "dns-search",
    "firewall-backend", "fixed-cidr", "fixed-cidr-v6", "icc", "ip", "ip-forward", "ip-masq", "ip6tables", "iptables",
    "ipv6", "mtu", "userland-proxy",
})  # fmt: skip
"""The keys of daemon.json that decide how the engine sets up its networks."""
SERVICES = (
    *(unit for units in UNITS.values() for unit in units), "nftables.service", "docker.service", "docker.socket",
)  # fmt: skip
"""The units whose state, enabled or masked, is copied."""
MOST_FILES = 2000
_NOT_RUN = {
    "/etc/networkd-dispatcher": "networkd-dispatcher", "/etc/cron.d": "cron", "/etc/crontab": "cron",
    "/var/spool/cron": "cron", "/etc/wireguard": "WireGuard", "/etc/openvpn": "OpenVPN",
    "/etc/wpa_supplicant": "wpa_supplicant", "/etc/iptables": "netfilter-persistent", "/etc/ufw": "ufw",
    "/etc/firewalld": "firewalld", "/etc/ifplugd": "ifplugd",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CopiedFiles:
    """The files of a disk by absolute path, and what could not be copied."""

    files: dict[str, RootFile]
    notes: tuple[str, ...]


def release_of_this_host() -> tuple[str, str]:
    """Return the codename of this host's release and its name for a reader (os-release(5)); empty if not known."""
    values = {}
    try:
        text = read_file(OS_RELEASE)[0].decode(errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _equals, value = line.strip().partition("=")
        values[key] = value.strip("\"'")
    codename = values.get("VERSION_CODENAME", "") if values.get("ID") == "debian" else ""
    return codename, values.get("PRETTY_NAME", "an unknown release")


def copied_files(base: Path, known: Sequence[HostFile]) -> CopiedFiles:
    """Read this host's network files.

    Args:
        base: the base root that they lie over.
        known: the files of the host's snapshot: units, scripts and links among them are copied too.
    """
    files, notes = dict[str, RootFile](), list[str]()
    paths = dict.fromkeys((*_below("/", COPIED_FOLDERS), *filter(os.path.lexists, COPIED_FILES)))
    paths |= dict.fromkeys(file.path for file in known if file.exists and file.path.startswith(OPERATORS_FOLDERS))
    paths |= dict.fromkeys(_settings_of_units())
    paths.pop(DAEMON_JSON, None)
    if len(paths) > MOST_FILES:
        notes.append(f"{len(paths) - MOST_FILES} network files are not in the copy: it holds {MOST_FILES}")
    for path in list(paths)[:MOST_FILES]:
        try:
            files[path] = _read(path)
        except OSError as error:
            notes.append(f"{path} is not in the copy: {error.strerror}")
    ours = [path for path in _below(str(base), COPIED_FOLDERS) if not os.path.lexists(path)]
    ours += [path for path in COPIED_FILES if os.path.lexists(f"{base}{path}") and not os.path.lexists(path)]
    files |= dict.fromkeys(ours, RootFile(removed=True))
    files |= _services(base)
    notes += _daemon_settings(files)
    notes += _not_run(files)
    return CopiedFiles(files, tuple(notes))


def _below(root: str, folders: Sequence[str]) -> Iterator[str]:
    """Yield the absolute paths of the files below folders of a root."""
    top = root.rstrip("/")
    for folder in folders:
        for place, _folders, names in os.walk(f"{top}{folder}"):
            for name in sorted(names):
                yield os.path.join(place, name)[len(top) :]


def _read(path: str) -> RootFile:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return RootFile(link_to=os.readlink(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is no regular file", path)
    if status.st_size > READ_LIMIT:
        raise OSError(0, f"it has more than {READ_LIMIT} bytes", path)
    content, mode = read_file(path)
    return RootFile(content.decode(errors="surrogateescape"), mode)


def _settings_of_units() -> Iterator[str]:
    """Yield the drop-ins of the units whose state is copied, their replacements in /etc, and their aliases."""
    for name in names_in(CONFIGURED):
        path = f"{CONFIGURED}/{name}"
        if name not in SERVICES and os.path.islink(path) and os.path.basename(os.readlink(path)) in SERVICES:
            yield path
    for unit in SERVICES:
        if os.path.lexists(f"{CONFIGURED}/{unit}"):
            yield f"{CONFIGURED}/{unit}"
        yield from (f"{CONFIGURED}/{unit}.d/{name}" for name in names_in(f"{CONFIGURED}/{unit}.d"))


def _services(base: Path) -> dict[str, RootFile]:
    """Return the links by which the copied units are enabled or not, as on this host."""
    files = dict[str, RootFile]()
    for unit in SERVICES:
        if not any(os.path.lexists(f"{folder}/{unit}") for folder in FOLDERS):
            files[f"{CONFIGURED}/{unit}"] = RootFile(link_to=NO_UNIT)
            continue
        for path in _enabling(str(base), unit):
            if not os.path.lexists(path):
                files[path] = RootFile(removed=True)
        files |= {path: RootFile(link_to=os.readlink(path)) for path in _enabling("", unit) if os.path.islink(path)}
    return files


def _enabling(root: str, unit: str) -> Iterator[str]:
    for wanting in names_in(f"{root}{CONFIGURED}"):
        path = f"{CONFIGURED}/{wanting}/{unit}"
        if wanting.endswith(ENABLES) and os.path.lexists(f"{root}{path}"):
            yield path


def _daemon_settings(files: dict[str, RootFile]) -> Iterator[str]:
    """Copy the engine's settings of its networks: a runtime or a log driver of the host may be missing in the copy."""
    try:
        content, mode = read_file(DAEMON_JSON)
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"{DAEMON_JSON} is not in the copy: {error.strerror}"
        return
    try:
        settings = json.loads(content)
    except ValueError:
        # The engine refuses it as well.
        settings = None
    if not isinstance(settings, dict):
        files[DAEMON_JSON] = RootFile(content.decode(errors="surrogateescape"), mode)
        return
    kept = {key: value for key, value in settings.items() if key in NETWORK_SETTINGS}
    files[DAEMON_JSON] = RootFile(json.dumps(kept), mode)
    if left_out := sorted(settings.keys() - kept.keys()):
        yield f"{DAEMON_JSON}: the copy leaves out {', '.join(left_out)}, which set up no network"


def _not_run(files: dict[str, RootFile]) -> Iterator[str]:
    """Yield what this host may start at boot, and the copy does not."""
    for path, program in _NOT_RUN.items():
        if os.path.isfile(path) or names_in(path):
            yield f"{path}: {program} does not run in the copy"
    others = [
        name
        for folder in UNIT_FOLDERS
        for name in names_in(folder)
        if os.path.isfile(path := f"{folder}/{name}") and not os.path.islink(path) and path not in files
    ]
    if others:
        yield f"units without a command for rules or routes are not in the copy: {', '.join(others)}"
