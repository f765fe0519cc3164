"""A lab's host with a real sshd in its namespaces, which the user's own ssh reaches by a ProxyCommand.

The sshd serves one connection on its standard streams (sshd -i), so that no packet leaves any namespace.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from netns_lab.lab import Lab

SSHD = Path("/usr/sbin/sshd")


@dataclass(slots=True)
class SSHWorld:
    """The keys and the ssh_config of a fleet, in a folder."""

    folder: Path
    entries: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the keys of the user and of the hosts, and a key that is not known."""
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
        self, name: str, lab: Lab, *, key: str = "host", user_key: str = "user", path: str = "", cache: str = "cache"
    ) -> None:
        """Put an sshd on a lab's host.

        Args:
            name: of the host, for ssh.
            lab: the lab.
            key: the key by which the host proves itself.
            user_key: the key that it lets in.
            path: the PATH of its sessions; left out, sshd's own.
            cache: the folder of their caches, below the world's folder.
        """
        settings = self.folder / f"sshd-{name}"
        environment = f"XDG_CACHE_HOME={self.folder}/{cache} TMPDIR={self.temporary}" + (
            f" PATH={path}" if path else ""
        )
        settings.write_text(
            f"HostKey {self.folder}/{key}\nAuthorizedKeysFile /run/sshd/user.pub\nStrictModes no\nUsePAM no\n"
            f"PermitRootLogin prohibit-password\nPidFile none\nPrintMotd no\nSubsystem sftp internal-sftp\n"
            f"SetEnv {environment}\n"
        )
        lab.host.run("mkdir", "-p", "/run/sshd")
        # An ordinary user's sshd reads it with that user's rights.
        lab.host.run("install", "-m", "0644", f"{self.folder}/{user_key}.pub", "/run/sshd/user.pub")
        self.proxy(name, *_inside(lab), str(SSHD), "-i", "-f", str(settings))

    @property
    def temporary(self) -> Path:
        """The folder of the sessions' temporary files."""
        folder = self.folder / "tmp"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o1777)
        return folder

    def add_user(self, lab: Lab, name: str, password: str) -> None:
        """Make an ordinary user on a host who may use sudo with a password; its /etc is the lab's own."""
        lab.host.run(
            "sh", "-c",
            f"echo '{name}:x:4711:4711::/:/bin/sh' >>/etc/passwd; echo '{name}:*:::::::' >>/etc/shadow; "
            f"echo '{name}:{password}' | chpasswd; cat >/etc/sudoers.d/{name} <<END\n{name} ALL=(ALL) ALL\n"
            "Defaults env_keep += XDG_CACHE_HOME\nEND\n",
        )  # fmt: skip

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


def _inside(lab: Lab) -> list[str]:
    """Return the words that run a command on a lab's host, for any process while this one lives."""
    namespace = lab.host.namespace
    assert namespace.mount_fd is not None
    return ["nsenter", f"--net={namespace.path}", f"--mount=/proc/{os.getpid()}/fd/{namespace.mount_fd}"]
