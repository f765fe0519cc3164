"""Rules and routes that no network manager's own file holds: who sets them, and on which occasion."""

from __future__ import annotations

import pytest

from tests.helpers.persistence_hosts import host_file, resolved
from viacheck.diagnosis import diagnose
from viacheck.model.measurements import Measurements
from viacheck.model.snapshot import HostFile
from viacheck.persistence.allowlist import redact_script, redact_to_allowlist
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.hook_scripts import called_scripts

RULE = "ip rule add priority 1000 from 172.17.0.0/16 lookup 200"
ROUTE = "ip route replace default via 10.10.50.1 dev wlan0 table 200"
SCRIPT = f"#!/bin/sh\n{RULE}\n{ROUTE}\n"
STATIC = "auto wlan0\niface wlan0 inet static\n    address 10.10.50.9/24\n"
INTERFACES = {"/etc/network/interfaces": STATIC}
UNIT = (
    f"[Service]\nType=oneshot\nExecStart=/sbin/{RULE}\nExecStart=/sbin/{ROUTE}\n[Install]\nWantedBy=multi-user.target\n"
)
UNIT_BY_SHELL = f"[Service]\nType=oneshot\nExecStart=-/bin/sh -c '{RULE}; {ROUTE}'\n"
BY_SCRIPT = "[Service]\nExecStart=/usr/local/sbin/wlan-rt.sh wlan0\n"
BEFORE = "[Unit]\nBefore={}\n"
PRE = "[Unit]\nWants=network-pre.target\nBefore=network-pre.target shutdown.target\n"
CRON_D, ROOTS = "/etc/cron.d/agent", "/var/spool/cron/crontabs/root"
CRON_UNIT = ("/lib/systemd/system/cron.service", "", 0o644)
CRON_WANTS = ("/etc/systemd/system/multi-user.target.wants/cron.service", "", 0o644)
CRON_MASKED = ("/etc/systemd/system/cron.service", "", 0o644)
WANTS = "/etc/systemd/system/multi-user.target.wants/wlan-rt.service"
DEVICE_WANTS = "/etc/systemd/system/sys-subsystem-net-devices-wlan0.device.wants/wlan-rt.service"


def place(path: str, text: str, mode: int = 0o644) -> HostFile:
    """A file as a snapshot holds it; a called script lies where no manager's files are."""
    if path.startswith("/usr/local/sbin"):
        return HostFile(path=path, exists=True, text=redact_script(text), mode=mode)
    return host_file(path, text, mode)


def files(**by_name: tuple[str, str, int]) -> tuple[HostFile, ...]:
    return tuple(place(*one) for one in by_name.values())


MANAGED = ("/etc/network/interfaces", STATIC, 0o644)


@pytest.mark.parametrize(
    ("host", "holds", "at_boot_only"),
    [
        (files(a=MANAGED), False, False),
        (files(a=MANAGED, b=("/etc/rc.local", f"{SCRIPT}exit 0\n", 0o755)), True, True),
        (files(a=MANAGED, b=("/etc/rc.local", f"{SCRIPT}exit 0\n", 0o644)), False, False),
        (files(a=MANAGED, b=("/etc/rc.local", f"#!/bin/sh\nexit 0\n{SCRIPT}", 0o755)), False, False),
        (files(b=("/etc/rc.local", SCRIPT, 0o755)), True, True),
        (files(a=MANAGED, b=("/etc/systemd/system/wlan-rt.service", UNIT, 0o644)), False, False),
        (files(a=MANAGED, b=("/etc/systemd/system/wlan-rt.service", UNIT, 0o644), c=(WANTS, "", 0o644)), True, True),
        (
            files(
                a=MANAGED, b=("/etc/rc.local", "#!/bin/sh\n/usr/local/sbin/wlan-rt.sh\n", 0o644),
                c=("/usr/local/sbin/wlan-rt.sh", SCRIPT, 0o755),
            ),
            False, False,
        ),
        (
            files(
                a=MANAGED, b=("/etc/systemd/system/wlan-rt.service", BEFORE.format("networking.service") + UNIT, 0o644),
                c=(WANTS, "", 0o644),
            ),
            False, False,
        ),
        (
            files(
                a=MANAGED, b=("/etc/systemd/system/rt@.service", UNIT, 0o644),
                c=("/etc/systemd/system/multi-user.target.wants/rt@wlan0.service", "", 0o644),
            ),
            True, True,
        ),
        (files(a=MANAGED, b=("/etc/systemd/system/rt@.service", UNIT, 0o644), c=(WANTS, "", 0o644)), False, False),
        (
            files(
                a=MANAGED, c=(WANTS, "", 0o644), d=("/usr/local/sbin/wlan-rt.sh", SCRIPT, 0o755),
                b=("/etc/systemd/system/wlan-rt.service", PRE + BY_SCRIPT, 0o644),
            ),
            False, False,
        ),
        (
            files(
                a=MANAGED, b=("/etc/systemd/system/wlan-rt.service", BEFORE.format("docker.service") + UNIT, 0o644),
                c=(WANTS, "", 0o644),
            ),
            True, True,
        ),
        (
            files(
                a=MANAGED, b=("/etc/systemd/system/wlan-rt.service", UNIT_BY_SHELL, 0o644), c=(WANTS, "", 0o644)
            ),
            True, True,
        ),
        (
            files(
                a=MANAGED, b=("/etc/systemd/system/wlan-rt.service", BY_SCRIPT, 0o644), c=(DEVICE_WANTS, "", 0o644),
                d=("/usr/local/sbin/wlan-rt.sh", SCRIPT, 0o755),
            ),
            True, False,
        ),
        (
            files(
                a=MANAGED, b=("/etc/network/if-up.d/wlan", "#!/bin/sh\n. /usr/local/sbin/wlan-rt.sh\n", 0o755),
                c=("/usr/local/sbin/wlan-rt.sh", SCRIPT, 0o755),
            ),
            True, False,
        ),
        (files(a=MANAGED, b=("/etc/networkd-dispatcher/routable.d/50-wlan", SCRIPT, 0o755)), True, False),
        (files(a=MANAGED, b=("/etc/networkd-dispatcher/routable.d/50-wlan", SCRIPT, 0o644)), False, False),
        (files(a=MANAGED, b=("/etc/networkd-dispatcher/off.d/50-wlan", SCRIPT, 0o755)), False, False),
        (files(a=MANAGED, b=(CRON_D, f"@reboot root sleep 9; {RULE}; {ROUTE}\n", 0o644)), True, True),
        (files(a=MANAGED, b=("/etc/crontab", f"@reboot root {RULE}\n@reboot root {ROUTE}\n", 0o644)), True, True),
        (files(a=MANAGED, b=(ROOTS, f"SHELL=/bin/sh\n@reboot {RULE} && {ROUTE}\n", 0o600)), True, True),
        (
            files(
                a=MANAGED, b=(CRON_D, "@reboot root /usr/local/sbin/wlan-rt.sh >/dev/null\n", 0o644),
                c=("/usr/local/sbin/wlan-rt.sh", SCRIPT, 0o755),
            ),
            True, True,
        ),
        (files(a=MANAGED, b=(CRON_D, f"@reboot root {RULE}; {ROUTE}\n", 0o644), c=CRON_UNIT, d=CRON_WANTS), True, True),
        (files(a=MANAGED, b=(CRON_D, f"@reboot root {RULE}; {ROUTE}\n", 0o644), c=CRON_UNIT), False, False),
        (files(a=MANAGED, b=(CRON_D, f"@reboot root {RULE}; {ROUTE}\n", 0o644), c=CRON_MASKED), False, False),
        (files(a=MANAGED, b=(CRON_D, f"@reboot root {RULE}; {ROUTE}\n", 0o666)), False, False),
        (files(a=MANAGED, b=(f"{CRON_D}.cron", f"@reboot root {RULE}; {ROUTE}\n", 0o644)), False, False),
        (files(a=MANAGED, b=(CRON_D, f"@reboot root {RULE}; {ROUTE}", 0o644)), False, False),
        (files(a=MANAGED, b=(CRON_D, f"@reboot nobody {RULE}; {ROUTE}\n", 0o644)), False, False),
        (files(a=MANAGED, b=(CRON_D, f"@daily root {RULE}; {ROUTE}\n", 0o644)), False, False),
        (
            files(
                b=("/etc/sysconfig/network-scripts/rule-wlan0", RULE.removeprefix("ip rule add "), 0o644),
                c=("/etc/sysconfig/network-scripts/route-wlan0", "default via 10.10.50.1 table 200", 0o644),
            ),
            True, False,
        ),
        (
            files(
                a=("/etc/network/interfaces", f"{STATIC}    post-up /usr/local/sbin/wlan-rt.sh wlan0\n", 0o644),
                d=("/usr/local/sbin/wlan-rt.sh", SCRIPT, 0o755),
            ),
            True, False,
        ),
    ],
)  # fmt: skip
def test_who_sets_rule_and_route_again(host: tuple[HostFile, ...], holds: bool, at_boot_only: bool) -> None:
    case = resolved(host, wireless=False)
    persistence = assess_persistence(case)
    assert (persistence.holds, bool(persistence.at_boot_only)) == (holds, at_boot_only), persistence
    cause = diagnose("PERSIST-01", case, Measurements())
    assert (cause is None) == (holds and not at_boot_only)
    if cause is not None:
        assert ("a reboot keeps it" in cause.sentence) == at_boot_only


def test_a_route_that_a_unit_sets_too_early_is_named() -> None:
    """The kernel refuses it, as no interface has an address yet; a rule or an unreachable route needs none."""
    backstop = "ExecStart=/sbin/ip route add unreachable default metric 4278198272 table 200\n"
    unit = UNIT.replace("[Install]", f"{backstop}[Install]")
    persistence = assess_persistence(resolved(
        files(
            a=MANAGED, b=("/etc/systemd/system/wlan-rt.service", BEFORE.format("networking.service") + unit, 0o644),
            c=(WANTS, "", 0o644),
        ), wireless=False,
    ))  # fmt: skip
    assert persistence.missing == (
        "a route default via 10.10.50.1 dev wlan0 in table 200 is not in the files of ifupdown",
    )
    ((place, reason),) = persistence.ineffective
    assert place.path == "/etc/systemd/system/wlan-rt.service"
    assert reason.startswith("its unit runs before networking.service, when no interface has an address")


DHCP = """\
[Match]
Name=wlan0
[Network]
DHCP=ipv4
[DHCPv4]
RouteTable=200
{}[RoutingPolicyRule]
From=172.17.0.0/16
Table=200
"""
NETPLAN = """\
network:
  ethernets:
    wlan0:
      dhcp4: {}
      dhcp4-overrides:
        route-table: 200
      routing-policy:
        - from: 172.17.0.0/16
          table: 200
"""


@pytest.mark.parametrize(
    ("path", "text", "holds"),
    [
        ("/etc/systemd/network/20-wlan0.network", DHCP.format(""), True),
        ("/etc/systemd/network/20-wlan0.network", DHCP.format("UseRoutes=no\n"), False),
        ("/etc/systemd/network/20-wlan0.network", DHCP.format("").replace("DHCP=ipv4", "DHCP=no"), False),
        ("/etc/systemd/network/20-wlan0.network", DHCP.format("").replace("RouteTable=200", "RouteTable=201"), False),
        ("/etc/netplan/10.yaml", NETPLAN.format("true"), True),
        ("/etc/netplan/10.yaml", NETPLAN.format("false"), False),
    ],
)
def test_the_table_of_a_lease(path: str, text: str, holds: bool) -> None:
    assert assess_persistence(resolved({path: text}, wireless=False)).holds == holds


def test_nothing_but_routing_is_kept_of_units_and_called_scripts() -> None:
    unit = "[Service]\nEnvironment=TOKEN=CANARY\nExecStart=/usr/local/sbin/x.sh --psk CANARY\nExecStop=x CANARY\n"
    kept = redact_to_allowlist("/etc/systemd/system/x.service", unit)
    assert "CANARY" not in kept
    assert "/usr/local/sbin/x.sh" in kept
    assert "CANARY" not in redact_script(f"#!/bin/sh -e\nPSK=CANARY\nwpa_passphrase CANARY\n{RULE}\n")
    assert redact_script(f"#!/bin/sh -e\n{RULE}\n").startswith("set -e\n")
    assert list(called_scripts('if [ "$1" = wlan0 ]; then /opt/y; fi')) == ["/opt/y"]
    assert list(called_scripts("/usr/local/sbin/x.sh a && /bin/true; sh /opt/y")) == ["/usr/local/sbin/x.sh", "/opt/y"]


def test_a_called_script_is_corrected_as_a_script() -> None:
    stops = SCRIPT.replace("#!/bin/sh", "#!/bin/sh -e")
    host = files(
        a=("/etc/network/interfaces", f"{STATIC}    post-up /usr/local/sbin/wlan-rt.sh\n", 0o644),
        d=("/usr/local/sbin/wlan-rt.sh", stops, 0o755),
    )
    cause = diagnose("PERSIST-02", resolved(host, wireless=False), Measurements())
    assert cause is not None
    assert cause.code == "NOT_IDEMPOTENT"
    assert "post-up" not in "\n".join(cause.remedy.lines)


def test_a_route_that_cron_sets_may_come_too_early() -> None:
    """Seen in real boots: cron and ifupdown start beside each other, and either may be first."""
    host = files(a=MANAGED, b=(CRON_D, f"@reboot root {RULE}; {ROUTE}\n", 0o644))
    cause = diagnose("PERSIST-01", resolved(host), Measurements())
    assert cause is not None
    assert cause.sentence.startswith(
        f"{CRON_D}:1 sets the route at boot, and cron waits for no interface: a reboot keeps it only if wlan0 has its "
    )


@pytest.mark.parametrize(
    ("path", "more", "reason"),
    [
        (CRON_D, {"c": CRON_UNIT}, "cron.service is not enabled"),
        (CRON_D, {"c": CRON_MASKED}, "cron.service is masked"),
        (f"{CRON_D}.cron", {}, "cron reads no file of such a name: letters, digits, '_' and '-' alone"),
    ],
)
def test_why_cron_runs_no_line_is_evidence(path: str, more: dict[str, tuple[str, str, int]], reason: str) -> None:
    host = files(a=MANAGED, b=(path, f"@reboot root {RULE}; {ROUTE}\n", 0o644), **more)
    assert [why for place, why in assess_persistence(resolved(host)).ineffective if place.path == path] == [reason]


def test_a_host_without_cron_runs_no_crontab() -> None:
    host = files(a=MANAGED, b=(CRON_D, f"@reboot root {RULE}; {ROUTE}\n", 0o644))
    persistence = assess_persistence(resolved((*host, HostFile(path=CRON_MASKED[0], exists=False))))
    assert not persistence.holds
    assert [why for _place, why in persistence.ineffective] == ["cron is not installed"]
