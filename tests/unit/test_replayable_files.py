"""The copy of ifupdown's files that is run in a lab has the harmless lines in their places, and names all others."""

from __future__ import annotations

import pytest

from viacheck.model.snapshot import HostFile
from viacheck.persistence.replayable_files import ReplayableFiles, replayable_files

INTERFACES = "/etc/network/interfaces"
HEAD = "auto lo\niface lo inet loopback\n"
WLAN0 = "auto wlan0\niface wlan0 inet static\n    address 10.10.50.9/24\n"


def copied(text: str, *more: HostFile, leasable: frozenset[str] = frozenset()) -> ReplayableFiles:
    files = (HostFile(path=INTERFACES, exists=True, text=text), *more)
    return replayable_files(files, {"lo", "eth0", "wlan0"}, leasable)


def text_of(copy: ReplayableFiles, path: str = INTERFACES) -> str:
    return next(file.text for file in copy.files if file.path == path)


def left_out_lines(copy: ReplayableFiles) -> list[str]:
    return [str(part) for part in copy.left_out]


def test_harmless_lines_stay_in_their_places() -> None:
    rule = "    post-up ip rule add \\\n        from 172.17.0.0/16 lookup 200\n"
    text = f"# comment\n{HEAD}\n{WLAN0}{rule}    up ip route\n"
    lines = text_of(copied(text)).split("\n")
    assert lines[5] == "iface wlan0 inet static"
    assert lines[7].split() == ["post-up", "ip", "rule", "add", "from", "172.17.0.0/16", "lookup", "200"]
    assert lines[9] == "    up ip route"
    assert not copied(text).left_out


def test_what_is_left_out_is_named_and_nothing_of_it_is_copied_or_reported() -> None:
    text = f"{HEAD}{WLAN0}    wpa-psk CANARY\n    post-up touch /tmp/CANARY\n    down ip rule del prio 9\n"
    copy = copied(text)
    assert left_out_lines(copy) == [f"{INTERFACES}:7: not run: it runs a program other than ip"]
    assert "CANARY" not in repr(copy)
    assert "down ip rule del prio 9" in text_of(copy)


@pytest.mark.parametrize(
    ("stanza", "reason"),
    [
        ("iface ppp0 inet ppp\n    provider dsl\n", "the effect of 'inet ppp'"),
        ("iface wlan0 inet6 auto\n", "the effect of 'inet6 auto'"),
        ("iface eth7 inet static\n    address 10.0.0.1/24\n", "eth7 does not exist"),
        ("iface eth0 inet dhcp\n", "no address or no gateway"),
        ("iface $(touch) inet static\n", "its name is not plain text"),
        ("mapping eth0\n    script /usr/local/sbin/where\n    map home wlan0\n", "'mapping' is left out"),
        ("source /home/x/interfaces\n", "'source' is left out"),
        ("source ../../home/x\n", "'source' is left out"),
        ("source $(touch)\n", "'source' is left out"),
    ],
)
def test_stanzas_that_would_reach_out_are_left_out(stanza: str, reason: str) -> None:
    copy = copied(f"{HEAD}{WLAN0}auto {stanza.split()[1]}\n{stanza}auto lo\n")
    assert any(reason in words for words in left_out_lines(copy)), left_out_lines(copy)
    assert "/home" not in text_of(copy)
    assert "touch" not in text_of(copy)
    assert text_of(copy).count("auto lo") == 2


@pytest.mark.parametrize("value", ["10.0.0.1; touch /tmp/x", "$(touch)", "`touch`", "a|touch", "a&touch"])
def test_no_option_reaches_a_shell(value: str) -> None:
    assert "touch" not in text_of(copied(f"{HEAD}iface wlan0 inet static\n    address {value}\n    mtu 1400\n"))


def test_an_option_stays_when_a_hook_asks_for_it() -> None:
    copy = copied(
        f"{HEAD}{WLAN0}    agent-table 200\n    other 5\n    up ip rule add from 1.2.3.4 lookup $IF_AGENT_TABLE\n"
    )
    assert "agent-table 200" in text_of(copy)
    assert "other" not in text_of(copy)


def test_leases_hotplug_and_labels() -> None:
    copy = copied(
        f"{HEAD}allow-hotplug wlan0 usb7\niface wlan0 inet dhcp\niface eth0:1 inet static\n    address 10.0.0.1/24\n",
        leasable=frozenset({"wlan0"}),
    )
    assert copy.leased == ("wlan0",)
    assert copy.hotplugged
    assert copy.interfaces == {"lo", "wlan0", "eth0"}
    assert "allow-hotplug wlan0\n" in text_of(copy)


@pytest.mark.parametrize("mistake", ["junk here\n", "iface\n", "iface wlan0\n", f"{HEAD}    up\n"])
def test_a_mistake_stays_one(mistake: str) -> None:
    """Since ifupdown refuses the host's file, it must refuse the copy."""
    line = mistake.count("\n") - 1
    assert text_of(copied(mistake + WLAN0)).split("\n")[line].split()


def test_scripts_run_whole_or_not_at_all() -> None:
    def script(name: str, text: str, mode: int = 0o755) -> HostFile:
        return HostFile(path=f"/etc/network/if-up.d/{name}", exists=True, text=text, mode=mode)

    copy = copied(
        HEAD + WLAN0,
        script("agent", '#!/bin/bash -e\n[ "$IFACE" = wlan0 ] || exit 0\nip rule add from 1.2.3.4 lookup 200\n'),
        script("ntp", "#!/bin/sh\nip rule\nsystemctl restart ntp\n"),
        script("python", "#!/usr/bin/python3\n"),
        script("off", "#!/bin/sh\nrm -rf /\n", mode=0o644),
    )
    assert [file.path for file in copy.files] == [INTERFACES, "/etc/network/if-up.d/agent"]
    assert text_of(copy, "/etc/network/if-up.d/agent").startswith("#!/bin/sh -e\n[")
    assert left_out_lines(copy) == [
        "/etc/network/if-up.d/ntp:3: the script is not run: it runs a program other than ip",
        "/etc/network/if-up.d/python:1: the script is not run: it is not a shell script",
    ]
