"""A hand-made host with a real sshd in its namespaces, which the user's own ssh reaches by a ProxyCommand.

The sshd serves one connection on its standard streams (sshd -i), so that no packet leaves any namespace.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.hand_made import HandMadeHost

SSHD = Path("/usr/sbin/sshd")


@dataclass(slots=True)
class SSHWorld:
    """The keys and the ssh_config of a test's fleet."""

    folder: Path
    entries: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("user", "host", "other"):
            self._keygen(name)
        self._know("*", "host")

    @property
    def config(self) -> Path:
        """The ssh_config of all hosts so far."""
        path = self.folder / "ssh_config"
        common = f"IdentityFile {self.folder}/user\nUserKnownHostsFile {self.folder}/known_hosts\nIdentitiesOnly yes\n"
        path.write_text("\n".join([*self.entries, "Host *", common, "GlobalKnownHostsFile /dev/null", "User root\n"]))
        return path

    def serve(
        self, name: str, host: HandMadeHost, *, key: str = "host", path: str = "", cache: Path | None = None
    ) -> None:
        """Put an sshd on a host; ``path`` is the PATH of its sessions, ``cache`` the folder of their caches."""
        environment = f"SetEnv XDG_CACHE_HOME={cache or self.folder / 'cache'}" + (f" PATH={path}" if path else "")
        settings = self.folder / f"sshd-{name}"
        settings.write_text(
            f"HostKey {self.folder}/{key}\nAuthorizedKeysFile /run/sshd/user.pub\nStrictModes no\nUsePAM no\n"
            f"PermitRootLogin prohibit-password\nPidFile none\nPrintMotd no\n{environment}\n"
        )
        host.run("mkdir", "-p", "/run/sshd")
        # An ordinary user's sshd reads it with that user's rights.
        host.run("install", "-m", "0644", f"{self.folder}/user.pub", "/run/sshd/user.pub")
        self.proxy(name, *host.inside(str(SSHD), "-i", "-f", str(settings)))

    def add_user(self, host: HandMadeHost, name: str, password: str) -> None:
        """Make an ordinary user on a host who may use sudo with a password, in a private copy of /etc."""
        host.run("sh", "-c", "mkdir /run/etc && cp -a /etc/. /run/etc && mount --bind /run/etc /etc")
        host.run(
            "sh", "-c", f"echo '{name}:x:4711:4711::/:/bin/sh' >>/etc/passwd; echo '{name}:*:::::::' >>/etc/shadow"
        )
        host.run(
            "sh",
            "-c",
            f"echo '{name}:{password}' | chpasswd; cat >/etc/sudoers.d/{name} <<END\n{name} ALL=(ALL) ALL\n"
            "Defaults env_keep += XDG_CACHE_HOME\nEND\n",
        )

    def proxy(self, name: str, *argv: str) -> None:
        """Reach a host by a command."""
        command = shlex.join(argv).replace("%", "%%")
        self.entries.append(f"Host {name}\n  ProxyCommand {command}\n  HostKeyAlias {name}")

    def entry(self, name: str, *lines: str) -> None:
        """Reach a host by other settings of ssh_config, in place of earlier ones."""
        self.entries.insert(0, "\n  ".join([f"Host {name}", *lines]))

    def _keygen(self, name: str) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.folder / name], check=True
        )

    def _know(self, pattern: str, key: str) -> None:
        public = (self.folder / f"{key}.pub").read_text()
        (self.folder / "known_hosts").write_text(f"{pattern} {public}")
