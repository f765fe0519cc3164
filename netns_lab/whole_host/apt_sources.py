"""Where this machine's apt gets Debian from, so that a base root comes from the same place (sources.list(5))."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OS_RELEASE = Path("/etc/os-release")
COMPONENT = "main"
_FIELDS = ("REPO_URI", "CODENAME", "COMPONENT", "ORIGIN", "IDENTIFIER")
_TRANSPORT = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIPv")
"""Settings of apt.conf(5) without which the same sources may not be reached: proxies, certificates, old indexes."""


@dataclass(frozen=True, slots=True)
class AptSource:
    """One suite of a repository."""

    uri: str
    codename: str
    """``bookworm``, ``bookworm-updates``, ``bookworm-security`` …"""

    @property
    def line(self) -> str:
        """Return the source in the one-line style of sources.list(5)."""
        return f"deb {self.uri} {self.codename} {COMPONENT}"


def sources_for(release: str) -> list[AptSource]:
    """Return the sources of a release: those of this machine, with its own codename replaced.

    Empty where apt knows no index of Debian: then mmdebstrap takes its own default.
    """
    own = _own_codename()
    return [
        AptSource(uri, codename.replace(own, release, 1))
        for uri, codename in dict.fromkeys(_indexes())
        if own and codename.partition("-")[0] == own
    ]


def transport_settings() -> str:
    """Return this machine's settings of apt that sources need, as the text of an apt.conf(5)."""
    lines = output_of("apt-config", "dump").splitlines()
    kept = [line for line in lines if line.startswith(_TRANSPORT) and not line.endswith(' "";')]
    return "".join(f"{line}\n" for line in kept)


def _indexes() -> Iterator[tuple[str, str]]:
    form = "|".join(f"$({field})" for field in _FIELDS)
    for line in output_of("apt-get", "indextargets", "--format", form).splitlines():
        uri, codename, component, origin, identifier = line.split("|")
        if (component, origin, identifier) == (COMPONENT, "Debian", "Packages"):
            yield uri.rstrip("/"), codename


def _own_codename() -> str:
    try:
        lines = OS_RELEASE.read_text().splitlines()
    except OSError:
        return ""
    values = [line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME=")]
    return values[0] if values else ""


def output_of(*argv: str) -> str:
    """Return what a program prints; empty where it is missing."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
