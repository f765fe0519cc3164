"""No small bundle costs more than bounded time and memory: each is read in a process of its own with hard limits."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.bundles import members_of, packed, signed
from tests.helpers.paths import ROOT
from viacheck.bundle.manifest import INTENT, SNAPSHOT
from viacheck.bundle.redaction.patterns import without_secrets
from viacheck.parsers.glob import LONGEST_PATTERN, glob_matches

SECONDS, OCTETS = 5, 1 << 30
READ = """
import sys
import time
from pathlib import Path
from viacheck.bundle.reader import BundleUnreadable, read_bundle
try:
    read_bundle(Path(sys.argv[1]))
except BundleUnreadable as error:
    print(error)
"""


def snapshot() -> dict[str, Any]:
    saved: dict[str, Any] = json.loads(members_of("policy-routing")[SNAPSHOT])
    return saved


def many_rules() -> bytes:
    saved = snapshot()
    saved["host"]["rules"] = [{**saved["host"]["rules"][0], "priority": number} for number in range(300_000)]
    return json.dumps(saved).encode()


def many_routes() -> bytes:
    saved = snapshot()
    saved["host"]["routes"] = saved["host"]["routes"][:1] * 200_000
    return json.dumps(saved).encode()


def many_next_hops() -> bytes:
    saved = snapshot()
    route = saved["host"]["routes"][0]
    saved["host"]["routes"] = [{**route, "nexthops": route["nexthops"] * 100_000}]
    return json.dumps(saved).encode()


def stacked_links(kind: str) -> bytes:
    saved = snapshot()
    first = saved["host"]["links"][0]
    saved["host"]["links"] += [
        {
            **first,
            "index": number,
            "name": f"e{number}",
            "kind": kind,
            "peer_index": number + 1,
            "master": f"e{number + 1}",
        }
        for number in range(1_000, 9_500)
    ]
    return json.dumps(saved).encode()


def condition(field: str, values: list[str]) -> bytes:
    saved = snapshot()
    rule = saved["host"]["packet_filter"]["chains"][0]["rules"][0]
    rule["matches"] = [{"field": field, "values": values}]
    return json.dumps(saved).encode()


def many_draws() -> bytes:
    saved = snapshot()
    chain = saved["host"]["packet_filter"]["chains"][0]
    marks = "drawn 0x1/0xffffffff 0x2/0xffffffff"
    first = {**chain["rules"][0], "verdict": None}
    one_of_many = "drawn " + " ".join(f"0x{n:x}/0xffffffff" for n in range(4_000))
    chain["rules"] = [{**first, "handle": n, "set_mark": marks} for n in range(300)]
    chain["rules"] += [{**first, "handle": 300, "set_mark": one_of_many}]
    return json.dumps(saved).encode()


def rules_of_the_filter(field: str, value: Callable[[int], str]) -> bytes:
    saved = snapshot()
    chain = next(one for one in saved["host"]["packet_filter"]["chains"] if one["hook"] == "postrouting")
    chain["rules"] += [
        {"matches": [{"field": field, "values": [value(number)]}], "text": "one of many"} for number in range(50_000)
    ]
    return json.dumps(saved).encode()


def no_free_priority() -> bytes:
    saved = snapshot()
    saved["host"]["rules"] = [{**saved["host"]["rules"][0], "priority": number} for number in range(2_000)]
    return json.dumps(saved).encode()


def patterns(path: str, line: str) -> bytes:
    saved = snapshot()
    saved["files"] = [{"path": path, "exists": True, "text": line.format("[" * 500_000), "mode": 0o644}]
    return json.dumps(saved).encode()


def files_of(*texts: tuple[str, str]) -> bytes:
    saved = snapshot()
    saved["files"] = [{"path": path, "exists": True, "text": text[:65_000], "mode": 0o755} for path, text in texts]
    return json.dumps(saved).encode()


def many_neighbours() -> bytes:
    saved = snapshot()
    one = {"interface": "eth0", "family": 4, "address": "10.10.40.7", "mac": "02:00:00:00:00:01", "state": "STALE"}
    saved["host"]["neighbours"] = [one] * 300_000
    return json.dumps(saved).encode()


def many_resolvers() -> bytes:
    return json.dumps(snapshot() | {"resolvers": ["192.0.2.1"] * 100_000, "host_resolvers": []}).encode()


def rules_for_ports() -> bytes:
    saved = snapshot()
    first = {**saved["host"]["rules"][0], "source": None, "ipproto": 6}
    saved["host"]["rules"] += [
        {
            **first,
            "priority": n + 1,
            "destination": f"10.{n >> 8}.{n & 255}.0/24",
            "dport": {"first": n + 1, "last": n + 8},
        }
        for n in range(3_000)
    ]
    return json.dumps(saved).encode()


def on_many_links(*texts: tuple[str, str]) -> bytes:
    saved = json.loads(files_of(*texts))
    first = saved["host"]["links"][0]
    saved["host"]["links"] += [{**first, "index": number, "name": f"e{number}"} for number in range(1_000, 10_000)]
    for file in saved["files"]:
        file["mode"] = 0o600
    return json.dumps(saved).encode()


def netplan_devices(count: int, match: str) -> tuple[tuple[str, str], ...]:
    devices = "".join(f"    d{number}: {{{match.format(number)}}}\n" for number in range(2_000))
    return tuple((f"/etc/netplan/{n:02}.yaml", f"network:\n  ethernets:\n{devices}") for n in range(count))


INTERFACES = "/etc/network/interfaces"
RULE = "up ip rule add from 172.17.0.0/16 lookup 200\n"


INPUTS: dict[str, tuple[Any, str]] = {
    "deep list": (lambda: b"[" * 500_000, "Invalid JSON: recursion limit exceeded"),
    "deep object": (lambda: b'{"host":' * 100_000, "Invalid JSON: recursion limit exceeded"),
    "300,000 rules": (many_rules, "the host has 300000 rules; the limit is 20000"),
    "200,000 routes": (many_routes, "the host has 200000 routes; the limit is 150000"),
    "100,000 next hops": (many_next_hops, "the host has 100000 next hops of one route; the limit is 4096"),
    "bridges on bridges": (lambda: stacked_links("bridge"), ""),
    "macvlans on macvlans": (lambda: stacked_links("macvlan"), ""),
    "a set of addresses": (
        lambda: condition("source", [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(40_000)]),
        "",
    ),
    "a draw of many numbers": (lambda: condition("random", ["0-99999999999/2"]), ""),
    "many draws": (many_draws, ""),
    "filter rules for networks": (
        lambda: rules_of_the_filter("destination", lambda n: f"10.{n >> 8 & 255}.{n & 255}.{n >> 16}/32"),
        "",
    ),
    "filter rules for ports": (lambda: rules_of_the_filter("dport", lambda n: str(n % 60_000 + 1)), ""),
    "no free priority": (no_free_priority, ""),
    "networkd pattern": (lambda: patterns("/etc/systemd/network/10-a.network", "[Match]\nName={}\n"), ""),
    "files that source one another": (
        lambda: files_of(
            (INTERFACES, "source /etc/network/interfaces.d/a0\n" * 1_800),
            *((f"{INTERFACES}.d/a{number}", f"source a{number + 1}\n" * 4_000) for number in range(8)),
        ),
        "",
    ),
    "a file that sources itself": (lambda: files_of((INTERFACES, f"source {INTERFACES}\n" * 2_000)), ""),
    "stanzas that inherit": (
        lambda: files_of((INTERFACES, "".join(f"iface a{n} inherits a{n + 1}\n {RULE}" for n in range(1_000)))),
        "",
    ),
    "patterns to start": (
        lambda: files_of((INTERFACES, "auto" + " /a*b" * 6_000 + "\n" + "iface x inet manual\n" * 1_700)),
        "",
    ),
    "a script that calls itself": (lambda: files_of(("/etc/rc.local", "#!/bin/sh\n" + "/etc/rc.local\n" * 4_600)), ""),
    "a script that every hook runs": (
        lambda: files_of(
            (INTERFACES, "auto x\niface x inet manual\n" + " up /usr/local/bin/a\n" * 2_900),
            ("/usr/local/bin/a", "#!/bin/sh\nip rule add from 172.17.0.0/16 lookup 200\n" * 1_100),
        ),
        "",
    ),
    "netplan's files": (lambda: files_of(*netplan_devices(40, "dhcp4: true")), ""),
    "netplan's devices": (lambda: on_many_links(*netplan_devices(2, "match: {{name: q*{}}}")), ""),
    "profiles with patterns": (
        lambda: on_many_links(
            *(
                (f"/etc/NetworkManager/system-connections/p{n}", f"[match]\ninterface-name={f'q*{n};' * 200}\n")
                for n in range(300)
            )
        ),
        "",
    ),
    "crontabs": (lambda: files_of(*((f"/etc/cron.d/a{n}", f"@reboot root {RULE[3:]}" * 1_000) for n in range(8))), ""),
    "rules for ports": (rules_for_ports, ""),
    "300,000 neighbours": (many_neighbours, "the host has 300000 neighbours; the limit is 50000"),
    "100,000 resolvers": (many_resolvers, "the snapshot has 100000 resolvers; the limit is 256"),
    "ifupdown pattern": (lambda: patterns("/etc/network/interfaces", "auto lo\nsource {}\n"), ""),
}


def that_must_persist() -> bytes:
    """The lab's intent, without the word that rule and route are not in the managers' files on purpose."""
    intent = json.loads(members_of("policy-routing")[INTENT])
    del intent["egress"]["persist"]
    return json.dumps(intent).encode()


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (OCTETS, OCTETS))


@pytest.mark.parametrize("name", INPUTS)
def test_a_small_bundle_costs_bounded_time_and_memory(tmp_path: Path, name: str) -> None:
    make, said = INPUTS[name]
    bundle = tmp_path / "case.tar.gz"
    bundle.write_bytes(packed(signed({INTENT: that_must_persist(), SNAPSHOT: make()})))
    assert bundle.stat().st_size < 1 << 20
    done = subprocess.run(
        [sys.executable, "-P", "-c", READ, str(bundle)],
        capture_output=True, text=True, check=False, preexec_fn=limited, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
    assert done.stdout.count("\n") <= 1


def test_a_pattern_of_open_brackets_is_matched_at_once() -> None:
    assert glob_matches("[[", "[[")
    assert glob_matches("eth0", "eth[0-9]")
    assert not glob_matches("eth0", "[" * LONGEST_PATTERN)
    assert glob_matches("a[", "[ab][")
    assert not glob_matches("eth0", "*" * (LONGEST_PATTERN + 1))


@pytest.mark.parametrize("word", ["password-", "token ", "--key", "authorization:", 'password="', "key", "-e ", "a.-_"])
def test_a_megabyte_of_words_is_redacted_in_bounded_time(word: str) -> None:
    before = time.process_time()
    without_secrets(word * ((1 << 20) // len(word)))
    assert time.process_time() - before < SECONDS
