"""Simulated radios (mac80211_hwsim) with the real programs: hostapd offers a network, wpa_supplicant joins it.

The kernel's mac80211 makes, encrypts and checks the frames as for a card. Only the air between the radios is simulated.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from pathlib import Path

from netns_lab.lab import Lab, LabMachine
from netns_lab.plan import Radio

MODULE, RADIOS = "mac80211_hwsim", 6
"""Radios of the kernel: a lab takes two, and one that is built beside it for a remedy two more."""
PHYS = Path("/sys/class/ieee80211")
PASSPHRASE = "only-frames-of-a-lab"
"""Of a network that no other radio can hear."""
ACCESS_POINT = """\
interface={interface}
driver=nl80211
ssid={ssid}
hw_mode=g
channel=1
wpa=2
wpa_key_mgmt=WPA-PSK
rsn_pairwise=CCMP
wpa_passphrase={passphrase}
"""
STATION = """\
network={{
    ssid="{ssid}"
    psk="{passphrase}"
}}
"""
OFFERED, JOINED = b"AP-ENABLED", b"CTRL-EVENT-CONNECTED"
"""What hostapd and wpa_supplicant print when the network is there, and when its keys are set."""
READY_WITHIN = 60.0
"""Seconds. A station scans all channels first, which an emulated processor does slowly."""


class WirelessFailed(Exception):
    """A radio is missing, or its program did not get ready; the message is one line."""


def join_networks(lab: Lab) -> None:
    """Give machines their radios, and return when every station has joined its network.

    The programs end with the lab.

    Raises:
        WirelessFailed: no radio is left, or a program fails, or is not ready in time.
        netns_lab.lab.LabCommandError: the kernel refuses an interface.
    """
    for radio in lab.plan.radios:
        machine = lab.machines[radio.machine]
        _give_radio(machine, radio)
        _run_until_ready(lab, machine, radio)


def _give_radio(machine: LabMachine, radio: Radio) -> None:
    if not PHYS.exists():
        loaded = subprocess.run(["modprobe", MODULE, f"radios={RADIOS}"], capture_output=True, text=True)
        if loaded.returncode != 0:
            raise WirelessFailed(f"{MODULE}: {loaded.stderr.strip()}")
    # A radio comes back to this namespace when its lab has ended.
    for phy in sorted(PHYS.iterdir()):
        with contextlib.suppress(OSError):
            (interface,) = os.listdir(phy / "device" / "net")
            _move(machine, phy.name)
            machine.ip("link", "set", "dev", interface, "name", radio.interface)
            return
    raise WirelessFailed(f"none of the {RADIOS} radios is free for {radio.machine}")


def _move(machine: LabMachine, phy: str) -> None:
    """Move a radio to a machine's namespace, which iw(8) takes by the number of a process in it."""
    waiting = machine.namespace.call(lambda: subprocess.Popen(["cat"], stdin=subprocess.PIPE))
    try:
        moved = subprocess.run(["iw", "phy", phy, "set", "netns", str(waiting.pid)], capture_output=True, text=True)
    finally:
        waiting.communicate()
    if moved.returncode != 0:
        raise WirelessFailed(f"iw phy {phy} set netns: {moved.stderr.strip()}")


def _run_until_ready(lab: Lab, machine: LabMachine, radio: Radio) -> None:
    settings = Path(f"/run/{machine.plan.name}-{radio.interface}.conf")
    form = ACCESS_POINT if radio.access_point else STATION
    text = form.format(interface=radio.interface, ssid=radio.ssid, passphrase=PASSPHRASE)
    if radio.access_point:
        argv, sign = ["hostapd", str(settings)], OFFERED
    else:
        argv, sign = ["wpa_supplicant", "-i", radio.interface, "-c", str(settings)], JOINED

    def start() -> subprocess.Popen[bytes]:
        settings.write_text(text)
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
        )

    process = machine.namespace.call(start)
    lab.on_close(lambda: _end(process))
    printed = _printed_until(process, sign, READY_WITHIN)
    if sign not in printed:
        lines = printed.decode(errors="replace").strip().splitlines()[-3:]
        raise WirelessFailed(f"{' '.join(argv)} did not get ready within {READY_WITHIN:g} s: {' / '.join(lines)}")


def _printed_until(process: subprocess.Popen[bytes], sign: bytes, within: float) -> bytes:
    """Return what a process prints until it prints the sign, ends, or the time is over."""
    assert process.stdout is not None
    printed, deadline = b"", time.monotonic() + within
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while sign not in printed and (remaining := deadline - time.monotonic()) > 0:
            if selector.select(remaining):
                part = os.read(process.stdout.fileno(), 4096)
                if not part:
                    break
                printed += part
    return printed


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
