"""Nothing but addressing and routing is kept of a manager's files: canaries stand wherever people keep secrets."""

from __future__ import annotations

import pytest

from tests.helpers.persistence_hosts import RECORDED_HOSTS, recorded
from viacheck.persistence.allowlist import redact_to_allowlist

INTERFACES = """# CANARY
auto wlan0
iface wlan0 inet dhcp
    address 10.0.0.2/24
    wpa-psk CANARY
    wpa-ssid CANARY\\
CANARY
    wireless-key CANARY
    description CANARY
    pre-up echo CANARY | wpa_passphrase CANARY > /tmp/x # CANARY
    up PASSWORD=CANARY ip route add default via 10.10.50.1 table 200
    up curl -u CANARY:CANARY https://CANARY/ && ip route replace default via 10.10.50.1 dev wlan0 table 200
    up ip route add default via $(curl -u CANARY https://x) table 200
    up ip route add default via `get CANARY` dev wlan0 table 200 || mail -s "CANARY; ip rule add CANARY" root
    up ip xfrm state add src 1.2.3.4 auth CANARY
    up ip macsec add m0 tx sa 0 key 00 CANARY
    up ip rule add from 172.17.0.0/16 lookup 200; export CANARY=CANARY
    up pipework eth0 te-agent 10.0.0.200/24@10.0.0.1
    up ip rule add from 'CANARY
CANARY' CANARY
"""
SCRIPT = """#!/bin/sh
# CANARY
CANARY=CANARY
TABLE=200; GW="10.10.50.1"
GW2='CANARY with spaces'
cat <<EOT
CANARY
password CANARY ip
EOT
CANARY && ip rule add from 172.17.0.0/16 table $TABLE
ip route replace default via ${GW} dev "$1" table $TABLE \\
   2>/dev/null || logger "CANARY"
ip route add default via $GW2
exit 0
"""
NETWORK = """[Match]
Name=wlan0
SSID=CANARY
[Network]
# CANARY
; CANARY
Description=CANARY
DHCP=yes
[MACsec]
Key=CANARY
[WireGuardPeer]
PresharedKey=CANARY
[Route]
Gateway=10.10.50.1
Foo=CANARY \\
Gateway=CANARY
[RoutingPolicyRule]
From=172.17.0.0/16
"""
NETPLAN = """# CANARY
network:
  version: 2
  CANARY: CANARY
  openvswitch: {ssl: {private-key: CANARY}}
  modems:
    wwan0: {apn: CANARY, password: CANARY, dhcp4: true}
  tunnels:
    wg0:
      key: CANARY
      peers: [{keys: {shared: CANARY}}]
      addresses: ["10.0.0.1/24", {"10.0.0.2/24": {label: CANARY}}]
  wifis:
    wlan0:
      access-points: {"CANARY": {password: "CANARY"}}
      networkmanager: {passthrough: {wifi-security.psk: CANARY}}
      nameservers:
        search: [CANARY]
      routes:
        - to: default   # CANARY
          via: 10.10.50.1
          CANARY: CANARY
        - CANARY
      routing-policy: [{from: 172.17.0.0/16, CANARY: CANARY, table: 200}, CANARY]
      dhcp4: &CANARY true
"""
CRONTAB = """# CANARY
TOKEN=CANARY
MAILTO=CANARY@example.org
@reboot CANARY curl CANARY; ip rule add from 172.17.0.0/16 table 200 # CANARY
@reboot root curl CANARY
* * * * * root CANARY
@reboot root /opt/x CANARY%CANARY
"""
PROFILE = "/etc/NetworkManager/system-connections/x"
FILES = {
    "/etc/network/interfaces": INTERFACES,
    "/etc/rc.local": SCRIPT,
    "/etc/network/if-up.d/agent": SCRIPT,
    "/etc/cron.d/agent": CRONTAB,
    "/var/spool/cron/crontabs/root": "@reboot TOKEN=CANARY x\n@reboot ip rule add table 200 && CANARY\n",
    "/etc/NetworkManager/dispatcher.d/agent": SCRIPT,
    "/etc/systemd/network/x.network": NETWORK,
    "/etc/systemd/network/x.network.d/y.conf": NETWORK,
    "/etc/systemd/networkd.conf": NETWORK,
    "/etc/netplan/x.yaml": NETPLAN,
    PROFILE: "[connection]\nid=CANARY\npermissions=CANARY\n#CANARY\n[vpn-secrets]\npassword=CANARY\n[ipv4]\n"
    "dns-search=CANARY\nmethod=auto\ndhcp-client-id=CANARY\n[gsm]\npin=CANARY\nroute1=CANARY\n",
    "/run/NetworkManager/devices/3": "[device]\nmanaged=true\nconnection-uuid=1-2\nCANARY=CANARY\n",
    "/run/systemd/netif/links/3": "ADMIN_STATE=configured\nDNS=CANARY\nDHCP_LEASE=CANARY\n",
    "/run/network/ifstate": "wlan0=wlan0\nCANARY CANARY\n",
}


@pytest.mark.parametrize("path", FILES)
def test_no_canary_is_kept(path: str) -> None:
    kept = redact_to_allowlist(path, FILES[path])
    assert "CANARY" not in kept.replace("export CANARY", ""), kept
    assert kept.strip()
    assert kept.count("\n") == FILES[path].count("\n")


@pytest.mark.parametrize(
    "script",
    [
        "NOTE=CANARY\nip link set dev wlan0 alias $NOTE\n",
        "X=CANARY\nip route get 10.0.0.1 mark ${X}\n",
        "TOKEN=CANARY\nip route add default via $TOKEN\n",
        "WIFI_PSK=CANARY\nip rule add from $WIFI_PSK table 200\n",
        "DEVICE=CANARY\nip route add default dev $DEVICE\n",
        "ip link set dev wlan0 alias CANARY\n",
        "pipework eth0 te-agent dhclient CANARY\n",
        "pipework eth0 te-agent CANARY -x CANARY && curl CANARY\n",
        "API_KEY=CANARY ip route add default via 10.0.0.1; curl $API_KEY\n",
    ],
)
@pytest.mark.parametrize("path", ["/etc/rc.local", "/etc/network/if-up.d/agent"])
def test_a_variable_that_is_no_value_of_the_network_is_not_kept(path: str, script: str) -> None:
    assert "CANARY" not in redact_to_allowlist(path, script)


def test_a_variable_that_is_a_value_of_the_network_is_kept() -> None:
    script = 'IF=wlan0\nNET=172.17.0.0 BITS=16\nGW="10.0.0.1"\nT=200\n'
    script += 'ip rule add from $NET/$BITS table "$T"\nip route add default via ${GW} dev $IF table $T\n'
    kept = redact_to_allowlist("/etc/rc.local", script)
    assert all(line in kept for line in ("IF=wlan0", 'GW="10.0.0.1"', "T=200"))


def test_a_variable_may_hold_the_name_of_an_interface_or_a_table_of_the_host() -> None:
    script = "T=isp2\nip rule add from 172.17.0.0/16 table $T\n"
    assert redact_to_allowlist("/etc/rc.local", script, lambda: frozenset({"isp2"})) == script
    assert "isp2" not in redact_to_allowlist("/etc/rc.local", script)


@pytest.mark.parametrize(
    "line",
    [
        "pipework eth0 te-agent 10.10.40.200/24@10.10.40.1",
        "pipework eth0 -i eth1 -l pl0 te-agent 10.10.40.200/24@10.10.40.1 02:42:0a:0a:28:c8@9",
        "/usr/local/bin/pipework --wait eth0 te-agent udhcpc",
        'pipework "$1" $AGENT ${ADDRESS}',
        "pipework eth0 te-agent 0/0",
    ],
)
def test_the_documented_arguments_of_pipework_are_kept(line: str) -> None:
    assert redact_to_allowlist("/etc/rc.local", line) == line


@pytest.mark.parametrize("name", sorted(path.name for path in RECORDED_HOSTS.iterdir()))
def test_no_canary_of_a_recorded_host_is_kept(name: str) -> None:
    for path, text in recorded(name).items():
        assert "CANARY" not in redact_to_allowlist(path, text)


@pytest.mark.parametrize(
    ("path", "line", "text"),
    [
        ("/etc/network/interfaces", 12, "    up … && ip route replace default via 10.10.50.1 dev wlan0 table 200"),
        ("/etc/network/interfaces", 13, "    up ip route add default via $(…) table 200"),
        ("/etc/network/interfaces", 18, "    up pipework eth0 te-agent 10.0.0.200/24@10.0.0.1"),
        ("/etc/rc.local", 4, 'TABLE=200; GW="10.10.50.1"'),
        ("/etc/rc.local", 10, "… && ip rule add from 172.17.0.0/16 table $TABLE"),
        ("/etc/systemd/network/x.network", 3, "SSID=…"),
        ("/etc/systemd/network/x.network", 14, "Gateway=10.10.50.1"),
        ("/etc/netplan/x.yaml", 7, "    wwan0: {                               dhcp4: true}"),
        ("/etc/netplan/x.yaml", 21, "          via: 10.10.50.1"),
    ],
)
def test_what_is_kept_stays_in_its_line(path: str, line: int, text: str) -> None:
    assert redact_to_allowlist(path, FILES[path]).split("\n")[line - 1] == text


@pytest.mark.parametrize("path", FILES)
def test_what_is_kept_is_kept_again(path: str) -> None:
    """A snapshot that is read from a bundle went through the same once before."""
    once = redact_to_allowlist(path, FILES[path])
    assert redact_to_allowlist(path, once) == once
