"""A host on which pipework attaches the agent: the files that run pipework again, and how a lab runs it.

viacheck does not ship pipework. Where pipework is not installed, a stand-in script takes its place at the path that the
guide names. The script has the effects that the guide uses, as they were observed with the real pipework.
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
"""pipework's name of the agent's interface."""
NO_ADDRESS = "0/0"
"""pipework's notation for an interface without an address."""

EQUIVALENT_NOTE = "pipework is not installed: the lab sets up what pipework would"
NO_CONTAINER_NOTE = "the agent is not a container: the lab sets up what pipework would"
CLIENT_NOTE = "the lab's own DHCP client holds the agent's lease"

STAND_IN = """\
#!/bin/sh
# A lab's stand-in for pipework, with its effects on a physical interface; in the DHCP modes it gets a lease, and no
# client stays. Like pipework it cannot run twice for the same container.
set -e

fail() {
    echo "$1" >&2
    exit 1
}

[ $# -ge 3 ] || fail "usage: pipework INTERFACE CONTAINER ADDRESS/PREFIX[@GATEWAY]|dhclient|dhcpcd|udhcpc [MAC]"
parent=$1 container=$2 address=$3 mac=$4 inside=eth1 address_options=

if [ -e "/run/netns/$container" ]; then
    # A namespace without a container has no first process whose number could be used.
    namespace=/run/netns/$container
    number=$(($(printf %s "$container" | cksum | cut -d ' ' -f 1) % 1000000))
    # With pipework the MAC address is random; without an engine each run of a lab must get the same address.
    address_options="address 5a:1c:$(printf '%s %s' "$parent" "$container" | md5sum |
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
ip link add link "$parent" name "$outside" mtu "$mtu" $address_options type macvlan mode bridge
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
# udhcpc(8) runs this script with each lease: the address ends with the lease.
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

HOST_WATCH_TEXT = """\
#!/bin/sh
# Runs pipework whenever the container starts, or runs already: pipework-watch INTERFACE CONTAINER ADDRESS...
since=$(date +%s)
{
    echo "it may run already"
    docker events --since "$since" --filter type=container --filter event=start --filter "container=$2" \
        --format '{{.Actor.ID}}'
} | while read -r _; do
    nsenter --target "$(docker inspect --format '{{.State.Pid}}' "$2")" --net ip link show dev eth1 >/dev/null 2>&1 ||
        pipework "$@"
done
"""
"""What a host needs whose engine is restarted: it starts the container before anything can ask it for events."""
BOOT_UNIT = "/etc/systemd/system/pipework.service"
BOOT_ENABLED = "/etc/systemd/system/multi-user.target.wants/pipework.service"


def command_line(parent: str, container: str, address: str) -> str:
    """Return the operator's command line: ``pipework eth0 te-agent 10.10.40.200/24@10.10.40.1``."""
    return f"pipework {parent} {container} {address}"


def container_guard(container: str) -> str:
    """Return a command that succeeds if a container has pipework's interface; ``||`` and the command line follow it."""
    process = f"$(docker inspect --format '{{{{.State.Pid}}}}' {container})"
    return f'nsenter --target "{process}" --net ip link show dev {INTERFACE} >/dev/null 2>&1'


def namespace_guard(name: str) -> str:
    """Return a command that succeeds if a named namespace has pipework's interface."""
    return f"ip -n {name} link show dev {INTERFACE} >/dev/null 2>&1"


def rc_local(*lines: str) -> str:
    """Return the text of an rc.local that runs these lines at the end of the boot."""
    return "\n".join(["#!/bin/sh -e", *lines, "exit 0", ""])


def interfaces(parent: str, address: str | None, gateway: str, *post_up: str) -> str:
    """Return the text of an ifupdown file: a parent with a fixed address or DHCP runs these lines when it comes up."""
    method, *options = ["static", f"address {address}", f"gateway {gateway}"] if address else ["dhcp"]
    lines = [
        f"no-scripts lo {parent}",
        "",
        "auto lo",
        "iface lo inet loopback",
        "",
        f"auto {parent}",
        f"iface {parent} inet {method}",
        *(f"    {option}" for option in options),
    ]
    return "\n".join([*lines, *(f"    post-up {line}" for line in post_up), ""])


def boot_unit(parent: str, container: str, address: str) -> str:
    """Return the systemd unit that runs pipework once at boot, when the engine has started the container."""
    return f"""\
[Unit]
Description=Runs pipework for {container}
After=docker.service
Requires=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={PATH} {parent} {container} {address}

[Install]
WantedBy=multi-user.target
"""


def watch_unit(parent: str, container: str, address: str, after: str = "docker.service") -> str:
    """Return the systemd unit that runs pipework again after each restart of the container (systemd.service(5))."""
    return f"""\
[Unit]
Description=Runs pipework whenever {container} starts
After={after}

[Service]
ExecStart={WATCH} {parent} {container} {address}
Restart=always

[Install]
WantedBy=multi-user.target
"""


def installed() -> str | None:
    """Return the path of this machine's own pipework, or None."""
    return shutil.which("pipework")


def run(lab: Lab, parent: str, container: str, address: str) -> CommandResult:
    """Run pipework, or its stand-in, on a lab's host; a failure is in the result."""
    program = (lab.engine and installed()) or PATH
    return lab.host.namespace.run(host_command(lab, program, parent, container, address))


def host_command(lab: Lab, *argv: str) -> list[str]:
    """Return a command line for a lab's host; with an engine, in its sandbox, where its process numbers are true."""
    if lab.engine is None:
        return list(argv)
    inside = ["nsenter", "--target", str(lab.engine.pid), "--mount", "--pid", "--net"]
    environment = ["env", "--ignore-environment", f"PATH={SEARCH_PATH}", "DOCKER_HOST=unix:///run/docker.sock"]
    # pipework looks for the parent below /sys/class/net, which must show the lab's host.
    fresh_sysfs = ["unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh"]
    return [*inside, *environment, *fresh_sysfs, *argv]
