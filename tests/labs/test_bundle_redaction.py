"""What leaves a host in a bundle, a report, a result: no secret that lies about, and in ``strict`` no name."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import re
import shlex
import shutil
import sys
import tarfile
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from fixtures.check_runner import CheckRunner
from netns_lab.docker_engine.requirements import missing_requirement
from reports.report_page import render
from tests.helpers.bundles import CANARY, COMMANDS, case_of, in_lab, site
from tests.helpers.front_door import command
from tests.helpers.paths import RECORDED, ROOT
from viacheck.bundle.reader import read_bundle, read_bundles
from viacheck.bundle.redaction.mapping import KEPT4, PRIVATE4, Redactor
from viacheck.bundle.redaction.patterns import without_secrets
from viacheck.bundle.writer import Case, write_bundle
from viacheck.cli.docs import all_checks
from viacheck.installation import CHECKS
from viacheck.model.intent_file import load_intent
from viacheck.model.result import CheckResult, Run, RunResult, TargetRecord
from viacheck.model.site_agents import SOLE_AGENT
from viacheck.model.verdict import Verdict
from viacheck.targets.bundle import BundleTarget

needs_engine = pytest.mark.skipif(missing_requirement() is not None, reason=str(missing_requirement()))

needs_tools = pytest.mark.skipif(
    not (shutil.which("nft") and shutil.which("iptables-nft")), reason="needs the packages nftables and iptables"
)

FILES = {
    "/etc/network/interfaces": f"""\
# {CANARY} was the old password
auto wlan0
iface wlan0 inet dhcp
    wpa-ssid office
    wpa-psk {CANARY}
    wireless-key1 {CANARY}
    post-up ip rule add priority 1000 from 172.17.0.0/16 lookup wlan0rt 2>/dev/null || true # {CANARY}
    post-up ip route replace default via 10.10.50.1 dev wlan0 table wlan0rt && curl -u me:{CANARY} https://up/
    post-up curl -H "Authorization: Bearer {CANARY}" \\
        --data {CANARY} https://example.net/
    up TOKEN={CANARY} ip route add 10.9.0.0/16 via $(curl https://me:{CANARY}@gw/) dev wlan0
source /etc/network/interfaces.d/*
""",
    "/etc/netplan/50-wifi.yaml": f"""\
network:
  version: 2
  wifis:
    wlan0:
      dhcp4: true  # {CANARY}
      access-points:
        "{CANARY}":
          password: "{CANARY}"
          auth:
            key-management: psk
            identity: {CANARY}
            password: |
              {CANARY}
      routing-policy:
        - from: 172.17.0.0/16
          table: 200
          priority: 1000
  tunnels:
    wg0: {{mode: wireguard, key: {CANARY}}}
""",
    "/etc/NetworkManager/system-connections/wifi.nmconnection": f"""\
[connection]
id={CANARY}
interface-name=wlan0
[wifi-security]
psk={CANARY}
[ipv4]
method=auto
routing-rule1=priority 1000 from 172.17.0.0/16 table 200
# {CANARY}
""",
    "/etc/systemd/network/10-wlan0.network": f"""\
[Match]
Name=wlan0
[Network]
DHCP=yes
; {CANARY}
Description={CANARY}
[RoutingPolicyRule]
From=172.17.0.0/16
Table=200
[WireGuard]
PrivateKey={CANARY}
""",
    "/etc/rc.local": f"""\
#!/bin/sh
docker run -d -e TEAGENT_ACCOUNT_TOKEN={CANARY} --label owner={CANARY} agent {CANARY}
TEAGENT_ACCOUNT_TOKEN={CANARY}
export TEAGENT_ACCOUNT_TOKEN
NOTE={CANARY}
DEVICE={CANARY}
ip link set dev wlan0 alias $NOTE
ip link set dev wlan0 alias {CANARY}
ip route add 10.8.0.0/16 dev $DEVICE
ip rule add priority 1000 from 172.17.0.0/16 lookup 200; echo {CANARY}
[ "$1" = "{CANARY}" ] && ip rule add priority 1001 from 172.17.0.0/16 lookup 200
if test {CANARY} != "$TOKEN"; then ip rule add priority 1002 from 172.17.0.0/16 lookup 200; fi
ip rule add priority 1003 from 172.17.0.0/16 lookup ${{TABLE:-{CANARY}}} <<<{CANARY}
pipework eth0 te-agent dhclient {CANARY}
exit 0
""",
    "/etc/network/if-up.d/agent": f"""\
#!/bin/sh
PASSWORD={CANARY}
ip rule add from 172.17.0.0/16 lookup 200 # {CANARY}
""",
    "/etc/systemd/system/agent-net.service": f"""\
[Service]
Environment=TOKEN={CANARY}
ExecStart=/usr/local/bin/pipework eth0 te-agent dhclient {CANARY}
""",
    "/etc/systemd/system/agent-net.service.d/token.conf": f"""\
[Service]
Environment="TOKEN={CANARY}" OTHER={CANARY}
ExecStartPost=/sbin/ip route add 10.7.0.0/16 via 10.10.50.1 realm {CANARY}
""",
    "/etc/systemd/network/20-wg0.netdev": f"""\
[NetDev]
Name=wg0
Kind=wireguard
[WireGuard]
PrivateKey={CANARY}
[WireGuardPeer]
PresharedKey={CANARY}
Endpoint=me:{CANARY}@vpn.example.net:51820
""",
    "/etc/wireguard/wg0.conf": f"[Interface]\nPrivateKey = {CANARY}\nPostUp = ip rule add from {CANARY}\n",
    "/etc/ppp/chap-secrets": f'"me" * "{CANARY}" *\n',
    "/etc/ppp/peers/uplink": f'user "me"\npassword "{CANARY}"\n',
    "/etc/ppp/ip-up.d/agent": f"#!/bin/sh\nKEY={CANARY}\nip rule add from 172.17.0.0/16 lookup 200 # {CANARY}\n",
    "/etc/wpa_supplicant/wpa_supplicant.conf": f'network={{\n ssid="x"\n psk="{CANARY}"\n password="{CANARY}"\n}}\n',
    "/etc/docker/daemon.json": json.dumps(
        {"log-opts": {"splunk-token": CANARY}, "proxies": {"http-proxy": f"http://me:{CANARY}@proxy:3128"}}
    ),
    "/run/user/0/.docker/config.json": json.dumps({"auths": {"registry.example.net": {"auth": CANARY}}}),
    "/etc/NetworkManager/system-connections/vpn.nmconnection": f"""\
[connection]
id=vpn
type=vpn
interface-name=wlan0
[802-1x]
password={CANARY}
private-key-password={CANARY}
[gsm]
pin={CANARY}
[vpn]
service-type=org.freedesktop.NetworkManager.openvpn
cookie={CANARY}
[vpn-secrets]
password={CANARY}
[wireguard-peer.abc=]
preshared-key={CANARY}
[ipv4]
method=auto
route1=10.6.0.0/16,10.10.50.1
dhcp-client-id={CANARY}
""",
    "/etc/NetworkManager/dispatcher.d/50-agent": f"""\
#!/bin/sh
curl --user me:{CANARY} -H 'X-Token: {CANARY}' https://up/ &
ip rule add priority 1000 from 172.17.0.0/16 lookup 200 || logger {CANARY}
""",
    "/etc/network/interfaces.d/ppp": f"""\
iface ppp0 inet ppp
    provider {CANARY}
iface wlan1 inet dhcp
    wpa-identity {CANARY}
    wpa-password {CANARY}
    wireless-essid {CANARY}
""",
    "/etc/dhcp/dhclient.conf": f'send user-class "{CANARY}";\n',
    "/etc/dhcp/dhclient-exit-hooks.d/agent": f"""\
SECRET={CANARY}
ip link add gre1 type gre remote 10.0.0.1 key {CANARY}
""",
    "/etc/crontab": f"@reboot root TOKEN={CANARY} ip rule add from 172.17.0.0/16 lookup 200\n",
}
"""Where people keep secrets, by path; only /etc and /run are the lab's own."""
NOT_COLLECTED = (
    "/etc/wireguard/", "/etc/ppp/", "/etc/wpa_supplicant/", "/etc/docker/", "/run/user/", "/etc/crontab",
    "/etc/dhcp/dhclient.conf", "/etc/systemd/network/20-wg0.netdev", "/etc/systemd/system/agent-net.service.d/",
)  # fmt: skip

READERS = {
    "netplan": (RECORDED / "manager_answers" / "netplan-0.106-get").read_text().replace("CANARY", CANARY),
    "networkctl": (RECORDED / "manager_answers" / "networkctl-252-list.json").read_text().replace(
        '"Name":"wlan0"', f'"Name":"wlan0","WirelessLanPassphrase":"{CANARY}"'
    ),
}  # fmt: skip
"""What managers' own readers have been seen to print, by program, and what they might."""

SOURCES = f"""
set -e
mkdir -p /run/systemd/netif/links /run/network
: >/run/systemd/netif/links/1
printf '\\n201 spare # {CANARY}\\n' >>/etc/iproute2/rt_tables
ip link set wlan0 alias {CANARY}
nft add table ip spare
nft 'add chain ip spare forward {{ type filter hook forward priority 0; }}'
nft 'add rule ip spare forward tcp dport 9999 accept comment "{CANARY}"'
iptables-nft -A FORWARD -p tcp --dport 9998 -m comment --comment "x {CANARY} y" -j ACCEPT
"""


PLANTED = 57
"""Sources that an attack on 0.2.0 tried; each has a canary of its own here."""


def numbered(text: str, numbers: Iterator[int]) -> str:
    """Give each canary of a text a number of its own."""
    return re.sub(CANARY, lambda _: f"{CANARY}{next(numbers):03}", text)


def spoiled(folder: Path, where: list[Path]) -> list[str]:
    """The files, and the members of archives, in which the canary is found."""
    found = []
    for path in where:
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    content = archive.extractfile(member)
                    if content is not None and CANARY.encode() in content.read():
                        found.append(f"{path.name}:{member.name}")
        elif path.is_file() and CANARY.encode() in path.read_bytes():
            found.append(str(path.relative_to(folder)))
    return found


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bundles and a report of a host full of canaries."""
    folder = tmp_path_factory.mktemp("canaries")
    files = folder / "files.json"
    numbers = itertools.count(1)
    files.write_text(json.dumps({path: numbered(text, numbers) for path, text in FILES.items()}))
    plant = f"""
import json, os, pathlib
for path, text in json.load(open({str(files)!r})).items():
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pathlib.Path(path).write_text(text)
    os.chmod(path, 0o600 if "NetworkManager" in path else 0o755)
"""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in READERS.items():
        (folder / name).write_text(numbered(text, numbers))
        (programs / name).write_text(f"#!/bin/sh\nexec cat {folder / name}\n")
        (programs / name).chmod(0o755)
    file = site(folder)
    collect = " ".join([*COMMANDS, "collect", "--site", str(file)])
    script = ROOT / "src" / "viacheck" / "bundle" / "collect.sh"
    run = " ".join(command("--local", "--site", str(file), "--report-dir", str(folder / "report"), "-q"))
    in_lab(
        "policy-routing",
        f"""{numbered(SOURCES, numbers)}
bash -c 'exec -a "ifplugd -i wlan0 {CANARY}" sleep 1000' >/dev/null 2>&1 &
planted=$!
bash -c 'exec -a "dhclient -cf {CANARY} wlan0" sleep 1000' >/dev/null 2>&1 &
trap "kill $planted $!" EXIT
{sys.executable} -c '{plant.replace("'", '"')}'
{collect} -o {folder}/default.tar.gz
{collect} -o {folder}/none.tar.gz --redact none
{collect} -o {folder}/strict.tar.gz --redact strict
sh {script} --site {file} -o {folder}/script.tar.gz
sh {script} --site {file} -o {folder}/script-none.tar.gz --redact none
{run} || true
""",
        {"TEAGENT_ACCOUNT_TOKEN": CANARY, "PATH": f"{programs}:{os.environ['PATH']}"},
    )
    assert next(numbers) > PLANTED
    return folder


@needs_tools
@pytest.mark.parametrize("name", ["none.tar.gz", "script-none.tar.gz"])
def test_every_source_holds_a_canary(collected: Path, name: str) -> None:
    found = spoiled(collected, [collected / name])
    for path in FILES:
        if path.startswith(NOT_COLLECTED):
            assert f"{name}:files{path}" not in found
        elif "system/agent-net.service" not in path or name == "none.tar.gz":
            assert f"{name}:files{path}" in found


@needs_tools
@pytest.mark.parametrize("name", ["default.tar.gz", "strict.tar.gz", "script.tar.gz", "report/bundle.tar.gz"])
def test_no_canary_is_in_a_bundle(collected: Path, name: str) -> None:
    assert not spoiled(collected, [collected / name])
    assert read_bundle(collected / name).manifest.redaction in ("default", "strict")


@needs_tools
def test_no_canary_is_in_a_report(collected: Path) -> None:
    written = sorted((collected / "report").rglob("*"))
    assert {"report.html", "result.json", "bundle.tar.gz"} <= {path.name for path in written}
    assert not spoiled(collected, written)


@needs_tools
@pytest.mark.parametrize("name", ["default.tar.gz", "script.tar.gz"])
def test_what_makes_rules_persist_is_still_there(collected: Path, name: str) -> None:
    snapshot = read_bundle(collected / name).snapshot
    texts = {file.path: file.text for file in snapshot.files}
    assert "ip rule add priority 1000 from 172.17.0.0/16 lookup wlan0rt" in texts["/etc/network/interfaces"]
    assert "|| true" in texts["/etc/network/interfaces"].splitlines()[6]
    assert "ip route replace default via 10.10.50.1 dev wlan0 table wlan0rt" in texts["/etc/network/interfaces"]
    assert "From=172.17.0.0/16" in texts["/etc/systemd/network/10-wlan0.network"]
    assert "priority 1000 from" in texts["/etc/NetworkManager/system-connections/wifi.nmconnection"]
    assert "- from: 172.17.0.0/16" in texts["/etc/netplan/50-wifi.yaml"]
    assert "ip rule add priority 1000" in texts["/etc/rc.local"]
    assert "201" in texts["/etc/iproute2/rt_tables"]
    modes = {file.path: file.mode for file in snapshot.files}
    assert modes["/etc/NetworkManager/system-connections/wifi.nmconnection"] == 0o600
    assert modes["/etc/rc.local"] == 0o755


@needs_tools
@pytest.mark.parametrize("name", ["none.tar.gz", "default.tar.gz", "script.tar.gz", "script-none.tar.gz"])
def test_what_the_managers_say_of_the_uplink_is_still_there(collected: Path, name: str) -> None:
    said = {word.command: word.said for word in read_bundle(collected / name).snapshot.manager_answers}
    links = {link["Name"]: link for link in json.loads(said["networkctl --json=short list"])["Interfaces"]}
    assert (links["wlan0"]["AdministrativeState"], links["veth-agent"]["AdministrativeState"]) == (
        "configured", "unmanaged",
    )  # fmt: skip
    assert links["wlan0"]["NetworkFile"] == "/etc/systemd/network/10-wlan0.network"
    assert 'via: "10.10.50.1"' in said["netplan get"]
    assert not any(CANARY in text for text in said.values())
    if shutil.which("ifquery"):
        assert "ip rule add priority 1000" in said["ifquery wlan0"]


@needs_tools
def test_script_and_program_tell_the_same_state(collected: Path) -> None:
    ours, theirs = (read_bundle(collected / name).snapshot for name in ("default.tar.gz", "script.tar.gz"))
    for mine, other in ((ours.host, theirs.host), (ours.agent, theirs.agent)):
        assert mine is not None
        assert other is not None
        # The kernel settles a bridge's operstate a moment after its ports are up.
        links = [[dataclasses.replace(link, operstate="") for link in one.links] for one in (mine, other)]
        assert links[0] == links[1]
        assert (mine.rules, mine.routes) == (other.rules, other.routes)
        assert mine.addresses == other.addresses
        assert mine.sysctls == other.sysctls
    assert ours.hostname == theirs.hostname
    assert ours.kernel == theirs.kernel
    assert set(ours.programs) == set(theirs.programs)
    assert ours.link_watchers == theirs.link_watchers == ()
    masquerading = [
        [rule.verdict for chain in one.host.packet_filter.chains if chain.hook == "postrouting" for rule in chain.rules]
        for one in (ours, theirs)
    ]
    assert masquerading[0] == masquerading[1] == ["masquerade"]
    (rule,) = (
        rule for chain in theirs.host.packet_filter.chains for rule in chain.rules if rule.verdict == "masquerade"
    )
    assert not rule.text.startswith("["), "a rule is shown, and typed again by a rollback, as nft's own language has it"
    assert not theirs.host.packet_filter.unread


@needs_engine
@pytest.mark.skipif(os.geteuid() != 0, reason="an engine needs root")
def test_no_canary_of_a_container_is_in_a_bundle(tmp_path: Path) -> None:
    file = site(tmp_path, agent="canary-agent")
    collect = " ".join([*COMMANDS, "collect", "--site", str(file)])
    script = ROOT / "src" / "viacheck" / "bundle" / "collect.sh"
    run = " ".join(command("--local", "--site", str(file), "--report-dir", str(tmp_path / "report"), "-q"))
    in_lab(
        "engine:policy-routing",
        f"""set -e
docker network create --label owner={CANARY} --opt com.example.password={CANARY} spare
docker run -d --name canary-agent -e TEAGENT_ACCOUNT_TOKEN={CANARY} -e PLAIN=x -l owner={CANARY} \
    --health-cmd 'curl -u me:{CANARY} https://up/' --log-driver json-file --log-opt tag={CANARY} \
    --log-opt labels={CANARY} --add-host {CANARY}.example.net:192.0.2.9 --dns-search {CANARY}.example.net \
    --tmpfs /{CANARY} --stop-signal TERM --security-opt label=user:{CANARY} \
    --net bridge viacheck-agent:lab sh -c 'sleep 1000; : {CANARY}'
docker inspect canary-agent | grep -q {CANARY}
{collect} -o {tmp_path}/default.tar.gz
{collect} -o {tmp_path}/none.tar.gz --redact none
sh {script} --site {file} -o {tmp_path}/script.tar.gz
sh {script} -o {tmp_path}/without-site.tar.gz
{collect} -o {tmp_path}/strict.tar.gz --redact strict
{run} || true
""",
        {},
    )
    assert (tmp_path / "report" / "report.html").exists()
    assert not spoiled(tmp_path, sorted([*tmp_path.glob("*.tar.gz"), *(tmp_path / "report").rglob("*")]))
    for name in ("default.tar.gz", "script.tar.gz", "without-site.tar.gz"):
        snapshot = read_bundle(tmp_path / name, load_intent(file) if name == "without-site.tar.gz" else None).snapshot
        engine = snapshot.engine
        assert engine is not None
        assert engine.container is not None
        assert engine.container.name == "canary-agent"
        assert {"TEAGENT_ACCOUNT_TOKEN", "PLAIN"} <= set(engine.container.environment_names)
        assert engine.network("bridge") is not None
        spare = engine.network("spare")
        assert spare is not None
        assert not any(CANARY in value for value in spare.options.values())


@pytest.mark.parametrize(
    "text",
    [
        f"wpa-psk {CANARY}",
        f"password={CANARY}",
        f"  passphrase: '{CANARY}'",
        f"curl -H 'X-Api-Key: {CANARY}'",
        f"Authorization: Bearer {CANARY}",
        f"https://me:{CANARY}@example.net/",
        f"docker run -e NAME={CANARY} -l a={CANARY} agent",
        f'-A FORWARD -m comment --comment "an \\"odd\\" {CANARY}" -j ACCEPT',
        f'{{"ifname": "eth0", "ifalias": "{CANARY}"}}',
    ],
)
def test_a_secret_is_redacted_everywhere(text: str) -> None:
    assert CANARY not in without_secrets(text)


# ---- strict ----------------------------------------------------------------------------------------------------------


def _shared(one: IPv4Address, other: IPv4Address) -> int:
    return 32 - (int(one) ^ int(other)).bit_length()


def test_addresses_keep_their_relations_and_their_kind() -> None:
    chance = random.Random("strict")
    redactor = Redactor("strict")

    def mapped(address: IPv4Address) -> IPv4Address:
        return IPv4Address(redactor.plain(str(address)))

    def kind(address: IPv4Address) -> IPv4Network | None:
        return next((block for block in (*KEPT4, *PRIVATE4) if address in block), None)

    changed = 0
    for number in range(2_000):
        block = PRIVATE4[number % 8] if number % 8 < len(PRIVATE4) else IPv4Network("0.0.0.0/0")
        one = IPv4Address(int(block.network_address) + chance.randrange(block.num_addresses))
        other = IPv4Address(int(one) ^ (1 << chance.randrange(32)))
        if kind(one) in KEPT4 or kind(other) in KEPT4:
            continue
        assert _shared(mapped(one), mapped(other)) == _shared(one, other)
        assert kind(mapped(one)) == kind(one)
        assert mapped(one) != one or kind(one) is None
        changed += mapped(one) != one
    assert changed > 1_000


@pytest.mark.parametrize("text", ["127.0.0.1", "0.0.0.0/0", "10.0.0.0/8", "172.16.0.0/12", "169.254.1.1", "224.0.0.1",
                                  "255.255.255.0", "fe80::1", "::/0", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00",
                                  "20.10.24", "12:34:56", "2026-01-01T10:11:12.131+00:00"])  # fmt: skip
def test_what_identifies_no_host_stays(text: str) -> None:
    assert Redactor("strict").plain(text) == text


def test_a_private_network_stays_one_with_its_gateway_and_its_broadcast_address() -> None:
    redactor = Redactor("strict", networks=[IPv4Network("172.17.0.0/16")])
    docker = IPv4Network(redactor.plain("172.17.0.0/16"))
    assert docker.subnet_of(IPv4Network("172.16.0.0/12"))
    assert docker != IPv4Network("172.17.0.0/16")
    assert IPv4Address(redactor.plain("172.17.0.1")) in docker
    assert redactor.plain("172.17.255.255") == str(docker.broadcast_address)
    assert redactor.plain("172.17.255.255/32") == f"{docker.broadcast_address}/32"
    assert redactor.plain('"src":"172.17.0.0","srclen":16') == f'"src":"{docker.network_address}","srclen":16'
    lan = IPv4Network(redactor.plain("192.168.1.0/24"))
    assert [IPv4Address(redactor.plain(f"192.168.1.{host}")) for host in (1, 255)] == [lan[1], lan[255]]
    assert redactor.plain("192.168.1.9/24") == f"{lan[9]}/24"
    local = IPv6Address(redactor.plain("fd00:17::2"))
    assert local != IPv6Address("fd00:17::2")
    assert (local.packed[0], local.packed[8:]) == (0xFD, bytes((0, 0, 0, 0, 0, 0, 0, 2)))
    assert redactor.plain("fe80::a1b2:c3d4:e5f6:1718") != "fe80::a1b2:c3d4:e5f6:1718"


def test_a_network_stays_a_network() -> None:
    redactor = Redactor("strict")
    mapped = IPv4Network(redactor.plain("203.0.112.0/22"))
    assert IPv4Address(redactor.plain("203.0.114.7")) in mapped
    assert redactor.plain("203.0.114.7/22").endswith("/22")


def test_a_mac_address_is_the_same_wherever_it_hides() -> None:
    redactor = Redactor("strict")
    mac = redactor.plain("52:54:00:12:34:56")
    octets = bytes.fromhex(mac.replace(":", ""))
    assert mac != "52:54:00:12:34:56"
    assert octets[0] & 3 == 0x52 & 3
    for text in ("fe80::5054:ff:fe12:3456", "2001:db8:1:2:5054:ff:fe12:3456"):
        identifier = IPv6Address(redactor.plain(text)).packed[8:]
        assert (identifier[0] ^ 2, identifier[1:3], identifier[5:]) == (octets[0], octets[1:3], octets[3:])
    assert redactor.plain("8000.52:54:0:12:34:56") == "8000." + ":".join(f"{octet:x}" for octet in octets)


def test_strict_leaves_no_name_and_its_map_stays_at_home(tmp_path: Path) -> None:
    case = case_of("policy-routing")
    state = json.loads(json.dumps(case.snapshots[SOLE_AGENT]).replace("10.10.40.", "81.2.69."))
    state["hostname"] = "berlin-gw7.customer.example"
    intent = json.loads(json.dumps(case.intents[SOLE_AGENT]).replace("10.10.40.", "81.2.69."))
    intent["site"]["name"] = "customer-berlin"
    case = type(case)("0.1.0", {SOLE_AGENT: intent}, {SOLE_AGENT: state}, case.commands)
    written = write_bundle(tmp_path / "case.tar.gz", case, "strict")
    assert written.map_path is not None
    assert written.map_path.stat().st_mode & 0o777 == 0o600
    kept = json.loads(written.map_path.read_text())
    assert kept["berlin-gw7.customer.example"] == "host-1"
    macs = [link["mac"] for link in state["host"]["links"] if link["mac"] not in (None, "00:00:00:00:00:00")]
    with tarfile.open(tmp_path / "case.tar.gz") as archive:
        assert not [name for name in archive.getnames() if "map" in name]
        everything = b"".join(archive.extractfile(one).read() for one in archive)  # type: ignore[union-attr]
    for name in ("berlin-gw7", "customer", "81.2.69.", *macs):
        assert name.encode() not in everything
    bundle = read_bundle(tmp_path / "case.tar.gz")
    gateway = bundle.intent.uplinks["eth0"].gateway
    assert any(gateway in address.network for address in bundle.snapshot.host.addresses_of("eth0"))


def test_strict_maps_what_the_command_line_and_the_report_say(tmp_path: Path) -> None:
    case = case_of("policy-routing")
    intent = json.loads(json.dumps(case.intents[SOLE_AGENT]).replace("/run/netns/agent", "/run/netns/acme-space"))
    intent["site"]["name"] = "policy-routing"
    assert "target" not in intent.get("probe", {}), "the default target must be mapped in the drawing too"
    state = {**case.snapshots[SOLE_AGENT], "hostname": "vm"}
    typed = "/srv/cust ACME/lab.toml"
    wanted = f"needs 'allow_disruptive = true' in {typed}"
    outcome = RunResult(
        run=Run(
            id="1", started="2026-01-01T00:00:00+00:00", finished="2026-01-01T00:00:01+00:00", versions={},
            command=shlex.join(["./viacheck", "--local", "--site", typed, "--report-dir=/srv/ACME", "--group", "acme"]),
        ),
        targets=[
            TargetRecord(id="local:policy-routing:acme-1", kind="local", agent="acme-1", verdict="pass",
                         intent=intent, snapshot=state)
        ],
        results=[
            CheckResult(check="FLAP-01", target="local:policy-routing:acme-1", title="The egress recovers",
                        verdict=Verdict.NOT_RUN, expected="", observed=wanted)
        ],
    )  # fmt: skip
    commands = [command.model_copy(update={"place": "agent acme-1"}) for command in case.commands]
    whole = Case("0.1.0", {"acme-1": intent}, {"acme-1": state}, commands, outcome, render)
    write_bundle(tmp_path / "case.tar.gz", whole, "strict")
    with tarfile.open(tmp_path / "case.tar.gz") as archive:
        contents = {one.name: archive.extractfile(one).read().decode() for one in archive}  # type: ignore[union-attr]
    assert {"report.html", "result.json", "agents/agent-1/snapshot.json"} <= contents.keys()
    leaks = re.compile(r"(?i)acme|198\.51\.100\.1\b|/srv|\bvm\b")
    assert {name: leaks.findall(text) for name, text in contents.items() if leaks.search(name + text)} == {}
    saved = json.loads(contents["result.json"])
    assert saved["run"]["command"] == "./viacheck --local --site 'path-1' --report-dir=path-2 --group path-3"
    assert saved["results"][0]["observed"] == "needs 'allow_disruptive = true' in path-1"
    (bundle,) = read_bundles(tmp_path / "case.tar.gz")
    assert (bundle.agent, bundle.intent.agent.netns) == ("agent-1", "/run/netns/namespace-1")


def test_an_interface_named_like_the_host_stays_whole() -> None:
    redactor = Redactor("strict", {"web": "host-1", "web-br0": "web-br0"})
    assert redactor.plain("web: web-br0, web.") == "host-1: web-br0, host-1."


ADDRESS = re.compile(rb"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)|(?<![\w:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![\w:])")
FILES_OF_CHECKS = tuple(map(str, sorted(CHECKS.glob("test_*.py"))))


def judged(path: Path) -> dict[tuple[str, str | None], tuple[Verdict, str | None]]:
    """The verdict and the diagnosis of every check on a bundle."""
    runner = CheckRunner(FILES_OF_CHECKS, frozenset(check.id for check in all_checks()))
    return {
        (result.check, result.case): (result.verdict, result.diagnosis.code if result.diagnosis else None)
        for result in runner(BundleTarget("bundle:case", read_bundle(path)), path.parent / "captures")
    }


@pytest.mark.parametrize("lab", ["nat", "policy-routing-hardened", "macvlan", "policy-routing+rule-shadowed"])
def test_strict_leaves_no_address_and_the_verdicts_are_the_same(lab: str, tmp_path: Path) -> None:
    case = case_of(*lab.split("+"))
    for mode in ("default", "strict"):
        write_bundle(tmp_path / f"{mode}.tar.gz", case, mode)
    assert judged(tmp_path / "strict.tar.gz") == judged(tmp_path / "default.tar.gz")
    with tarfile.open(tmp_path / "strict.tar.gz") as archive:
        everything = b"".join(archive.extractfile(one).read() for one in archive)  # type: ignore[union-attr]
    known = set(ADDRESS.findall(json.dumps(case.snapshots).encode()))
    same = {text for text in known if not text.startswith((b"127.", b"0.0.0.0", b"00:00:00:00:00:00"))}
    assert len(same) > 5
    assert not same & set(ADDRESS.findall(everything))
