"""The import of scapy: late, without side effects, and only what is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.paths import ROOT

PACKETS = sorted(
    path.stem for path in (ROOT / "src" / "viacheck" / "packets").glob("*.py") if path.stem != "scapy_socket"
)


def test_importing_scapy_reads_no_cache_no_routes_and_no_tables(tmp_path: Path) -> None:
    script = (
        "import os; before = dict(os.environ)\n"
        "from viacheck.packets import scapy_import\n"
        "scapy_import.IP\n"
        "from scapy.config import conf\n"
        "import scapy.data, scapy.main, sys\n"
        "assert dict(os.environ) == before, 'the environment is as it was'\n"
        "assert conf.route.routes == [] and conf.route6.routes == []\n"
        "assert scapy.main.SCAPY_CACHE_FOLDER is None and scapy.main.SCAPY_CONFIG_FOLDER is None\n"
        "assert 'scapy.all' not in sys.modules\n"
        "assert len(scapy.data.MANUFDB) == len(scapy.data.TCP_SERVICES) == len(scapy.data.UDP_SERVICES) == 0\n"
        "assert len(scapy.data.IP_PROTOS) == 4\n"
        "assert list(conf.ifaces) == [], 'no interface was looked up'\n"
        "assert 'scapy.libs.manuf' not in sys.modules, 'no stand-in stays behind'\n"
        "from scapy.libs.manuf import DATA\n"
        "assert len(DATA) > 100_000, 'the real table can still be imported'\n"
        "assert scapy.interfaces.resolve_iface('lo').name == 'lo', 'scapy finds an interface when it is asked'\n"
    )
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "SHELL": "/bin/bash"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, cwd=ROOT)
    assert list(tmp_path.iterdir()) == []


def test_packets_show_the_names_of_their_protocols() -> None:
    script = (
        "from viacheck.packets import scapy_import as scapy\n"
        "packet = scapy.Ether(type=0x800) / scapy.IP(src='192.0.2.1', dst='192.0.2.2', proto=17) / scapy.UDP(dport=9)\n"
        "print(packet.show(dump=True))\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert "type      = IPv4" in shown
    assert "proto     = udp" in shown


def test_scapy_imported_by_another_module_first_is_used_as_it_is() -> None:
    script = (
        "import scapy.all\n"
        "from viacheck.packets import scapy_import\n"
        "assert scapy_import.IP is scapy.all.IP\n"
        "assert len(scapy.data.MANUFDB) > 1000\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_only_scapy_import_and_scapy_socket_import_scapy() -> None:
    imports = "".join(f"import viacheck.packets.{name}\n" for name in PACKETS)
    script = f"{imports}import sys\nassert not any(name.split('.')[0] == 'scapy' for name in sys.modules)\n"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_list_of_labs_does_not_import_scapy() -> None:
    command = [str(Path(sys.executable).parent / "viacheck"), "--lab", "list"]
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    listed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=ROOT)
    assert "policy-routing" in listed.stdout
    assert "import time:" in listed.stderr
    assert not [line for line in listed.stderr.splitlines() if line.split("|")[-1].strip().startswith("scapy")]
