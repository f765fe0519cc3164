"""A bundle with hostile names is judged, and its remedies are verified, without executing any of its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netns_lab.lab_specs import ReplicaSpec, replica_of
from tests.helpers.bundles import members_of, packed, signed
from tests.helpers.front_door import Finished, viacheck
from viacheck.bundle.manifest import INTENT, SNAPSHOT
from viacheck.model.result import TargetRecord

MARK = "hD"
"""The names of the files that the hostile names would create begin with this."""
LAB = "policy-routing"
RENAMED = {
    "wlan0": f"$(>{MARK}a)",
    "docker0": f"`>{MARK}b`",
    "eth0": f"a;>{MARK}c;",
    "viacheck-lab": f"$(>{MARK}d)",
    "postrouting": f"x;>{MARK}e",
    "forward": f"|>{MARK}f|",
    "/run/netns/agent": f"/run/netns/$(>{MARK}g)",
}


def renamed(value: Any) -> Any:
    """Return a JSON document with every name of the lab replaced by a hostile name."""
    if isinstance(value, dict):
        return {RENAMED.get(key, key): renamed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [renamed(entry) for entry in value]
    return RENAMED.get(value, value) if isinstance(value, str) else value


def hostile_members(*faults: str) -> dict[str, bytes]:
    members = members_of(LAB, *faults)
    return signed({name: json.dumps(renamed(json.loads(members[name]))).encode() for name in (INTENT, SNAPSHOT)})


def traces(*folders: Path) -> list[Path]:
    return [path for folder in (*folders, Path("/"), Path("/tmp"), Path.cwd()) for path in folder.glob(f"{MARK}?*")]


def verified(folder: Path, members: dict[str, bytes]) -> Finished:
    bundle = folder / "case.tar.gz"
    bundle.write_bytes(packed(members))
    run = viacheck(
        "--twin",
        str(bundle),
        "--mend-in-lab",
        "-q",
        "-k",
        "HOST or ROUTE or EGRESS-01",
        report_dir=folder / "report",
        cwd=folder,
    )
    assert run.exit_code == 1, run.said
    return run


@pytest.mark.parametrize("fault", ["rule-missing", "uplink-down"])
def test_the_remedies_of_a_hostile_bundle_execute_none_of_its_names(tmp_path: Path, fault: str) -> None:
    run = verified(tmp_path, hostile_members(fault))
    assert not traces(tmp_path)
    checks = [
        result.diagnosis.remedy_check
        for result in run.outcome.results
        if result.diagnosis is not None and result.diagnosis.remedy and result.diagnosis.reported_by is None
    ]
    assert checks
    assert all(check is not None for check in checks)
    verdicts = [(check.verified, check.rollback_verified) for check in checks if check is not None]
    if fault == "rule-missing":
        assert (True, True) in verdicts, run.said


def test_a_replica_sees_no_file_of_the_machine_for_writing(tmp_path: Path) -> None:
    members = hostile_members()
    record = TargetRecord(
        id="bundle:case", kind="bundle", verdict="pass", title="case",
        intent=json.loads(members[INTENT]), snapshot=json.loads(members[SNAPSHOT]),
    )  # fmt: skip
    spec = replica_of(record, "case")
    assert isinstance(spec, ReplicaSpec)
    lab = spec.build()
    try:
        for path in (tmp_path / "own", Path("/root/own"), Path("/var/lib/own"), Path("/usr/own"), Path("/own")):
            result = lab.host.namespace.run(["touch", str(path)])
            assert not result.ok, path
            assert not path.exists()
        for path in (Path("/tmp/viacheck-own"), Path("/etc/viacheck-own"), Path("/run/viacheck-own")):
            assert lab.host.namespace.run(["touch", str(path)]).ok, path
            assert not path.exists()
        assert not lab.host.namespace.run(["sysctl", "-w", "kernel.core_pattern=core"]).ok
        assert lab.host.namespace.run(["sysctl", "-w", "net.ipv4.ip_forward=1"]).ok
    finally:
        lab.close()
