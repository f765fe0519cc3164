"""Builds a Debian package around the one file, with a timer that judges the host read-only and writes metrics.

It is made by dpkg-deb alone. The same inputs give the same bytes: all times are one (SOURCE_DATE_EPOCH, see
https://reproducible-builds.org/specs/source-date-epoch/), and the archive's owners are root.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from email.utils import formatdate
from pathlib import Path

from viacheck import __version__
from viacheck.fleet.pack import PackFailed, Platform

TOOL = "dpkg-deb"
TEMPLATES = Path(__file__).with_name("debian")
DEFAULT_EPOCH = 1767225600
"""The start of 2026: the date of every file, where SOURCE_DATE_EPOCH does not name another."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's name of each processor."""
_PROGRAM, _FILE = 0o755, 0o644
_PLACES = {
    "command.sh": ("usr/bin/viacheck", _PROGRAM),
    "viacheck.service": ("usr/lib/systemd/system/viacheck.service", _FILE),
    "viacheck.timer": ("usr/lib/systemd/system/viacheck.timer", _FILE),
    "default": ("etc/default/viacheck", _FILE),
    "copyright": ("usr/share/doc/viacheck/copyright", _FILE),
    "lintian-overrides": ("usr/share/lintian/overrides/viacheck", _FILE),
    "postinst": ("DEBIAN/postinst", _PROGRAM),
    "prerm": ("DEBIAN/prerm", _PROGRAM),
    "postrm": ("DEBIAN/postrm", _PROGRAM),
}
_CONFIGURATION = "etc/default/viacheck"
_DESCRIPTION = """\
proof of which way a containerised agent's packets take
 viacheck sends tagged probes from the network namespace of a measurement
 agent, captures on every interface at once, and says whether the packets
 take the intended uplink now and after a reboot, and what to change if not.
 .
 A timer judges this host read-only, once /etc/viacheck/site.toml is there,
 and writes metrics for Prometheus.
"""


def architecture(platforms: Collection[Platform]) -> str:
    """Return Debian's architecture of a package that is for these platforms."""
    machines = {platform.machine for platform in platforms}
    return ARCHITECTURES[machines.pop()] if len(machines) == 1 else "all"


def default_name(platforms: Collection[Platform]) -> str:
    """Return the file name that Debian's tools give such a package."""
    return f"viacheck_{__version__}_{architecture(platforms)}.deb"


def build_deb(packed: bytes, platforms: Collection[Platform]) -> bytes:
    """Return the content of the Debian package.

    Args:
        packed: the one file, of :func:`viacheck.fleet.pack.build`.
        platforms: what it is for.

    Raises:
        PackFailed: dpkg-deb is missing, or refuses.
    """
    if shutil.which(TOOL) is None:
        raise PackFailed(f"a Debian package needs {TOOL}, which is not installed: apt-get install dpkg")
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", DEFAULT_EPOCH))
    files = {place: ((TEMPLATES / name).read_bytes(), mode) for name, (place, mode) in _PLACES.items()}
    files["usr/lib/viacheck/viacheck.pyz"] = packed, _FILE
    for place, text in _documents(epoch).items():
        files[place] = gzip.compress(text, mtime=0), _FILE
    with tempfile.TemporaryDirectory(prefix="viacheck-deb-") as folder:
        root, package = Path(folder, "root"), Path(folder, "package.deb")
        # The site file's folder is there for its author.
        (root / "etc/viacheck").mkdir(parents=True)
        (root / "DEBIAN").mkdir()
        files |= {f"DEBIAN/{name}": (text.encode(), _FILE) for name, text in _control(files, platforms).items()}
        for place, (content, mode) in files.items():
            path = root / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(mode)
        for path in (root, *root.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)  # whatever the umask is
            os.utime(path, (epoch, epoch))
        # The one file is compressed already.
        argv = [TOOL, "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(package)]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        )
        if done.returncode != 0:
            raise PackFailed(f"{TOOL} ended with exit code {done.returncode}: {done.stderr.strip()}")
        return package.read_bytes()


def _documents(epoch: int) -> Mapping[str, bytes]:
    """Return the texts that Debian keeps compressed."""
    changes = (
        f"viacheck ({__version__}) unstable; urgency=medium\n\n  * viacheck {__version__}, as 'viacheck pack --deb' "
        f"packs it.\n\n -- {_maintainer()}  {formatdate(epoch)}\n"
    )
    return {
        "usr/share/man/man1/viacheck.1.gz": (TEMPLATES / "viacheck.1").read_bytes(),
        "usr/share/doc/viacheck/changelog.gz": changes.encode(),
    }


def _control(files: Mapping[str, tuple[bytes, int]], platforms: Collection[Platform]) -> Mapping[str, str]:
    """Return the control files of the package: deb-control(5), deb-conffiles(5) and the sums of its files."""
    minors = sorted(int(platform.python.partition(".")[2]) for platform in platforms)
    installed = {place: content for place, (content, _mode) in files.items() if not place.startswith("DEBIAN/")}
    fields = {
        "Package": "viacheck",
        "Version": __version__,
        "Architecture": architecture(platforms),
        "Maintainer": _maintainer(),
        "Installed-Size": str(sum(map(len, installed.values())) // 1024 + 1),
        # The one file finds a python3.11 beside an older python3, as Ubuntu 22.04 has it.
        "Depends": f"python3 (>= 3.{minors[0]}) | python3.{minors[0]}, python3 (<< 3.{minors[-1] + 1}), iproute2",
        "Recommends": "nftables | iptables",
        "Section": "net",
        "Priority": "optional",
        "Description": _DESCRIPTION,
    }
    sums = (f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}  {place}\n"
            for place, content in sorted(installed.items()) if place != _CONFIGURATION)  # fmt: skip
    return {
        "control": "".join(f"{name}: {value}\n" for name, value in fields.items()).rstrip("\n") + "\n",
        "conffiles": f"/{_CONFIGURATION}\n",
        "md5sums": "".join(sums),
    }


def _maintainer() -> str:
    """Return who packs it, by the variables that Debian's tools read."""
    name, address = os.environ.get("DEBFULLNAME", "viacheck"), os.environ.get("DEBEMAIL", "viacheck@viacheck.invalid")
    return f"{name} <{address}>"
