"""The readers of managers' files take any text: they return entries and problems with their lines, and never raise."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from viacheck.model.config_entry import ParseProblem
from viacheck.model.namespace_state import Link, NetworkState
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.persistence import ifupdown, netplan, networkd, networkmanager
from viacheck.persistence.allowlist import redact_to_allowlist
from viacheck.persistence.assess import networkd_links, read_all
from viacheck.persistence.boot_files import RC_LOCAL
from viacheck.persistence.manager_config import PREDEFINED_TABLES, ManagerConfig
from viacheck.persistence.netplan import YAMLProblem
from viacheck.persistence.pipework import programs_of, redact_to_pipework_lines, reruns

LINKS = (Link(index=11, name="eth0"), Link(index=12, name="wlan0", mac="02:00:00:00:00:0c", wireless=True))
KEYWORDS = ["auto", "iface", "allow-hotplug", "mapping", "source", "source-directory"]
SECTIONS = ["Match", "Network", "Route", "RoutingPolicyRule", "connection", "ipv4", "device", ""]
BEFORE_PIPEWORK = ["", "@reboot ", "* * * * * root ", "/usr/local/sbin/"]
NUMBERS = st.sampled_from(["0", "200", "-1", "9" * 5000, "0x", "1.5", "wlan0rt", "$TABLE", "٣", ""])
ADDRESSES = st.sampled_from(
    [
        "10.10.50.1",
        "172.17.0.0/16",
        "172.17/16",
        "::/0",
        "fe80::1%eth0",
        "300.1.1.1",
        "10.0.0.0/99",
        "",
        "$NET",
        "_dhcp4",
    ]
)
NAMES = st.sampled_from(["eth0", "wlan0", "*", "[", "!eth0", "lo", ""])
NOISE = st.text(max_size=12) | st.sampled_from(
    ["'", '"', "\\", "#", "\0", "\r", "%i", "$(x)", "a: &a [*a]", "{", "!!x"]
)
IP = st.builds(
    "ip {} {} from {} lookup {} {}".format,
    st.sampled_from(["rule", "ru", "-6 rule"]),
    st.sampled_from(["add", "del", "x"]),
    ADDRESSES,
    NUMBERS,
    NOISE,
) | st.builds(
    "ip route {} default via {} dev {} table {}".format, st.sampled_from(["add", "replace"]), ADDRESSES, NAMES, NUMBERS
)
INTERFACES_LINE = (
    st.builds("{} {}".format, st.sampled_from(KEYWORDS), NAMES)
    | st.builds("iface {} inet {}".format, NAMES, st.sampled_from(["dhcp", "static", "", "ppp"]))
    | st.builds("    {} {}".format, st.sampled_from(["up", "post-up", "down", "address", "bridge_ports"]), IP | NOISE)
    | st.builds("source {}".format, st.sampled_from(["/etc/network/interfaces", "*", "interfaces.d/*", "[", "/"]))
    | NOISE
)  # fmt: skip
INI_LINE = (
    st.builds("[{}]".format, st.sampled_from(SECTIONS))
    | st.builds("{}={}".format, st.sampled_from(["Name", "Type", "MACAddress", "From", "To", "Table", "Priority",
        "FirewallMark", "Gateway", "Destination", "Metric", "RouteTable", "ManageForeignRoutes", "SuppressPrefixLength",
        "interface-name", "uuid", "route1", "route1_options", "routing-rule1", "route-table", "address1", "method",
        "managed", "ADMIN_STATE", "NETWORK_FILE"]), ADDRESSES | NUMBERS | NAMES | NOISE | IP)
    | NOISE
)  # fmt: skip
YAML_LINE = st.builds("{}{}{}".format, st.sampled_from(["", "  ", "    ", "      - ", "        "]),
    st.sampled_from(["network:", "version: 2", "ethernets:", "wlan0:", "match: {name: '*'}", "routes:", "to: ", "via: ",
                     "table: ", "routing-policy:", "from: ", "priority: ", "mark: ", "metric: "]),
    ADDRESSES | NUMBERS | NOISE)  # fmt: skip
UNIT_LINE = (
    st.builds("{}={}".format, st.sampled_from(["ExecStart", "ExecStartPost", "Restart", "WantedBy"]), NOISE)
    | st.builds("ExecStart=/bin/sh -c \"{} || pipework {} te-agent {}\"".format, NOISE, NAMES, ADDRESSES)
    | st.builds("{}pipework {} {} {}".format, st.sampled_from(BEFORE_PIPEWORK), NAMES, NAMES, ADDRESSES)
    | st.sampled_from(["docker events |", "exit 0", "#!/bin/sh"])
    | NOISE
)  # fmt: skip


def text(line: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(line, max_size=14).map("\n".join) | st.text(max_size=60)


def files(path: str, content: str) -> tuple[HostFile, ...]:
    """The file as a snapshot holds it, if its redaction has a text, and as it is on the host."""
    try:
        redacted = redact_to_allowlist(path, content)
    except YAMLProblem:
        redacted = ""
    assert len(redacted.split("\n")) in (1, len(content.split("\n")))
    return tuple(HostFile(path=path, exists=True, text=each, mode=0o700) for each in (content, redacted))


def check(config: ManagerConfig, file: HostFile) -> None:
    """Every entry and problem names a line of the file."""
    last = file.text.count("\n") + 1
    for problem in config.problems:
        assert isinstance(problem, ParseProblem)
        assert 0 <= problem.line <= last
    for entry in config.entries:
        assert 1 <= entry.place.line <= last


@given(text(INTERFACES_LINE))
@example("\\\nup 0")
@example("u\\\np 0")
@example("\\\n")
@settings(max_examples=80)
def test_ifupdown(content: str) -> None:
    for file in files(ifupdown.INTERFACES, content):
        check(ifupdown.read([file], PREDEFINED_TABLES.get), file)
        ifupdown.last_line([file], "wlan0")


@given(text(IP | NOISE), st.sampled_from(["/etc/network/if-up.d/x", f"{ifupdown.LEASE_HOOKS}/x"]))
@settings(max_examples=60)
def test_scripts_of_ifupdown_and_of_the_dhcp_client(content: str, path: str) -> None:
    interfaces = HostFile(path=ifupdown.INTERFACES, exists=True, text="iface wlan0 inet dhcp\n")
    for file in files(path, content):
        config = ifupdown.read([interfaces, file], PREDEFINED_TABLES.get)
        check(config, file)


@given(
    text(INI_LINE), st.sampled_from(["/etc/systemd/network/a.network", networkd.CONF, "/run/systemd/netif/links/12"])
)
@settings(max_examples=80)
def test_networkd(content: str, path: str) -> None:
    for file in files(path, content):
        check(networkd.read([file], LINKS), file)
        networkd.purges_foreign([file])
        networkd.file_of([file], LINKS, "wlan0")


@given(text(INI_LINE), st.sampled_from(["/etc/NetworkManager/system-connections/a", "/run/NetworkManager/devices/12"]))
@settings(max_examples=80)
def test_networkmanager(content: str, path: str) -> None:
    for file in files(path, content):
        check(networkmanager.read([file], LINKS, PREDEFINED_TABLES.get), file)
        networkmanager.profile_of([file], LINKS, "wlan0")


@given(text(YAML_LINE))
@example("\x85:")
@settings(max_examples=80)
def test_netplan(content: str) -> None:
    for file in files("/etc/netplan/a.yaml", content):
        check(netplan.read([file], LINKS), file)
        netplan.definitions([file])


@pytest.mark.parametrize("path", ["/etc/systemd/system/a.service", RC_LOCAL, "/etc/crontab", "/usr/local/sbin/watch"])
@given(content=text(UNIT_LINE))
@settings(max_examples=30)
def test_what_runs_pipework_again(path: str, content: str) -> None:
    redacted = redact_to_pipework_lines(path, content)
    assert len(redacted.split("\n")) == len(content.split("\n"))
    for each in (content, redacted):
        file = HostFile(path=path, exists=True, text=each, mode=0o755)
        snapshot = Snapshot(taken="", hostname="", kernel="", host=NetworkState(links=LINKS), files=(file,))
        last = each.count("\n") + 1
        assert list(programs_of(file)) == [program for program in programs_of(file) if program.startswith("/")]
        for container, address in (("te-agent", "10.10.50.1/24"), (None, None)):
            lines = reruns(snapshot, "wlan0", container, address)
            assert all(1 <= rerun.place.line <= last for rerun in lines.effective)
            assert all(1 <= place.line <= last and reason for place, reason in lines.ineffective)


@given(text(INTERFACES_LINE), text(INI_LINE), text(YAML_LINE))
@settings(max_examples=40)
def test_all_together(interfaces: str, network: str, plan: str) -> None:
    content = {ifupdown.INTERFACES: interfaces, "/etc/systemd/network/a.network": network, "/etc/netplan/a.yaml": plan,
               "/etc/iproute2/rt_tables": network}  # fmt: skip
    host_files = tuple(HostFile(path=path, exists=True, text=each) for path, each in content.items())
    snapshot = Snapshot(taken="", hostname="", kernel="", host=NetworkState(links=LINKS), files=host_files)
    assert set(read_all(snapshot)) == {"ifupdown", "networkd", "networkmanager", "netplan"}
    assert networkd_links(snapshot) == ()
