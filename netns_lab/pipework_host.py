"""What a host is like on which pipework attaches the agent: the files that run it again, and how it is run in a lab.

pipework itself is not ours to ship. Where it is not installed, a stand-in takes its place at the path that the guide
names: a script of our own with the effects that the guide uses, written from what pipework was seen to leave behind.
"""

from __future__ import annotations

import shutil

from netns_lab.docker_engine.sandbox import SEARCH_PATH
from netns_lab.lab import Lab
from viacheck.host.command import CommandResult

PATH = "/usr/local/sbin/pipework"
RC_LOCAL = "/etc/rc.local"
INTERFACES = "/etc/network/interfaces"
WATCH = "/usr/local/sbin/pipework-watch"
WATCH_UNIT = "/etc/systemd/system/pipework-watch.service"
WATCH_ENABLED = "/etc/systemd/system/multi-user.target.wants/pipework-watch.service"
LEASE_SCRIPT = "/usr/local/sbin/pipework-lease"
INTERFACE = "eth1"
"""What pipework calls the agent's interface."""
NO_ADDRESS = "0/0"
"""pipework's word for an interface without an address."""

EQUIVALENT_NOTE = "pipework is not installed: an equivalent of its effects was made"
NO_CONTAINER_NOTE = "the agent is no container: an equivalent of pipework's effects was made"
CLIENT_NOTE = "the agent's lease is held by the lab's own DHCP client"

STAND_IN = """\
#!/bin/sh
# A lab's stand-in for pipework, with its effects on a physical interface; in the DHCP modes it gets one lease, and no
# client stays. Like pipework it cannot run twice for one container.
set -e

fail() {
    echo "$1" >&2
    exit 1
}

[ $# -ge 3 ] || fail "usage: pipework INTERFACE CONTAINER ADDRESS/PREFIX[@GATEWAY]|dhclient|dhcpcd|udhcpc [MAC]"
parent=$1 container=$2 address=$3 mac=$4 inside=eth1 address_words=

if [ -e "/run/netns/$container" ]; then
    # A bare namespace has no first process to be named after.
    namespace=/run/netns/$container
    number=$(($(printf %s "$container" | cksum | cut -d ' ' -f 1) % 1000000))
    # pipework leaves the MAC address to chance; without an engine a lab is to come out the same each time.
    address_words="address 5a:1c:$(printf '%s %s' "$parent" "$container" | md5sum |
        sed 's/\\(..\\)\\(..\\)\\(..\\)\\(..\\).*/\\1:\\2:\\3:\\4/')"
else
    command -v docker >/dev/null || fail "Container $container not found, and there is no docker command."
    number=$(docker inspect --format '{{.State.Pid}}' "$container")
    [ "$number" != 0 ] || fail "Container $container is not running."
    # The engine's process numbers are true in the /proc beside its socket.
    root=${DOCKER_HOST#unix://}
    root=${root%/run/docker.sock}
    namespace=${root%/var}/proc/$number/ns/net
fi
within() {
    nsenter --net="$namespace" "$@"
}

case $address in
dhclient | dhcpcd | udhcpc) ;;
*/*@*) gateway=${address#*@} address=${address%%@*} ;;
*/*) ;;
*) fail "The address needs a prefix length, such as $address/24." ;;
esac

mtu=$(ip -oneline link show dev "$parent" | sed 's/.* mtu \\([0-9]*\\) .*/\\1/')
outside=$(printf 'ph%s%s' "$number" "$inside" | cut -c 1-15)
ip link add link "$parent" name "$outside" mtu "$mtu" $address_words type macvlan mode bridge
ip link set dev "$parent" up
ip link set dev "$outside" netns "$namespace"
within ip link set dev "$outside" name "$inside"
[ -z "$mac" ] || within ip link set dev "$inside" address "$mac"

case $address in
dhclient | dhcpcd | udhcpc)
    within ip link set dev "$inside" up
    within busybox udhcpc -q -n -t 5 -T 1 -i "$inside" -s @LEASE_SCRIPT@
    ;;
*)
    [ "$address" = 0/0 ] || within ip address add "$address" dev "$inside"
    [ -z "$gateway" ] || within ip route delete default 2>/dev/null || true
    within ip link set dev "$inside" up
    if [ -n "$gateway" ]; then
        within ip route get "$gateway" >/dev/null 2>&1 || within ip route add "$gateway/32" dev "$inside"
        within ip route replace default via "$gateway" dev "$inside"
    fi
    ;;
esac
""".replace("@LEASE_SCRIPT@", LEASE_SCRIPT)

LEASE_TEXT = """\
#!/bin/sh
# What udhcpc(8) calls with a lease: the address ends with it.
case $1 in
bound | renew)
    ip address replace "$ip/${mask:-24}" dev "$interface" valid_lft "$lease" preferred_lft "$lease"
    for gateway in $router; do
        ip route replace default via "$gateway" dev "$interface"
        break
    done
    ;;
esac
"""

WATCH_TEXT = """\
#!/bin/sh
# Runs pipework again whenever the container starts: pipework-watch INTERFACE CONTAINER ADDRESS...
docker events --filter type=container --filter event=start --filter "container=$2" --format '{{.Actor.ID}}' |
while read -r _; do
    pipework "$@"
done
"""


def command_line(parent: str, container: str, address: str) -> str:
    """The line that an operator writes down: ``pipework eth0 te-agent 10.10.40.200/24@10.10.40.1``."""
    return f"pipework {parent} {container} {address}"


def containers_guard(container: str) -> str:
    """What succeeds where a container has an interface of pipework's: it stands before ``||`` and the line to run."""
    process = f"$(docker inspect --format '{{{{.State.Pid}}}}' {container})"
    return f'nsenter --target "{process}" --net ip link show dev {INTERFACE} >/dev/null 2>&1'


def namespaces_guard(name: str) -> str:
    """The same for a bare namespace that has a name."""
    return f"ip -n {name} link show dev {INTERFACE} >/dev/null 2>&1"


def rc_local(*lines: str) -> str:
    """An rc.local that runs these lines at the end of the boot."""
    return "\n".join(["#!/bin/sh -e", *lines, "exit 0", ""])


def interfaces(parent: str, address: str | None, gateway: str, *post_up: str) -> str:
    """What ifupdown reads for a parent, with a fixed address or DHCP, that runs these lines (interfaces, section 5)."""
    how = ["static", f"    address {address}", f"    gateway {gateway}"] if address else ["dhcp"]
    lines = [
        f"no-scripts lo {parent}",
        "",
        "auto lo",
        "iface lo inet loopback",
        "",
        f"auto {parent}",
        f"iface {parent} inet {how[0]}",
        *how[1:],
    ]
    return "\n".join([*lines, *(f"    post-up {line}" for line in post_up), ""])


def watch_unit(parent: str, container: str, address: str) -> str:
    """The systemd unit that runs pipework again after each restart of the container (systemd.service(5))."""
    return f"""\
[Unit]
Description=Runs pipework whenever {container} starts
After=docker.service

[Service]
ExecStart={WATCH} {parent} {container} {address}
Restart=always

[Install]
WantedBy=multi-user.target
"""


def installed() -> str | None:
    """Where this machine has a pipework of its own, if it has one."""
    return shutil.which("pipework")


def run(lab: Lab, parent: str, container: str, address: str) -> CommandResult:
    """Run pipework, or its stand-in, on a lab's host, whatever comes of it."""
    program = (lab.engine and installed()) or PATH
    return lab.host.namespace.run(host_command(lab, program, parent, container, address))


def host_command(lab: Lab, *words: str) -> list[str]:
    """A command on a lab's host; with an engine where that lives, as there its process numbers are true."""
    if lab.engine is None:
        return list(words)
    inside = ["nsenter", "--target", str(lab.engine.pid), "--mount", "--pid", "--net"]
    environment = ["env", "--ignore-environment", f"PATH={SEARCH_PATH}", "DOCKER_HOST=unix:///run/docker.sock"]
    # pipework looks for the parent below /sys/class/net, which must show the lab's host.
    fresh_sysfs = ["unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh"]
    return [*inside, *environment, *fresh_sysfs, *words]
