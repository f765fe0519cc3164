"""Nothing that a bundle holds is run while its twin is judged: whoever made it may have written anything."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.bundles import case_of
from tests.helpers.front_door import viacheck
from viacheck.bundle.writer import write_bundle
from viacheck.model.site_agents import SOLE_AGENT
from viacheck.model.verdict import Verdict

CHECKS = "EGRESS-01 or PERSIST or PIPEWORK-05 or FLAP-03"
PROGRAMS = ("ip", "nft", "nsenter", "ifquery", "ifup", "mkdir", "env", "conntrack", "nothing-has-this-name")


def _file(path: str, text: str, mode: int = 0o755) -> dict[str, Any]:
    return {"path": path, "exists": True, "text": text, "mode": mode, "error": None}


@pytest.mark.parametrize("lab", ["policy-routing", "pipework-static"])
def test_no_program_and_no_hook_of_a_bundle_is_run(lab: str, tmp_path: Path) -> None:
    canary = tmp_path / "was-run"
    script = f"\n#!/bin/sh\ntouch {canary}\n"
    places = [f"/usr/local/{folder}/{name}" for folder in ("bin", "sbin") for name in PROGRAMS]
    places += ["/usr/local/lib/python3.11/sitecustomize.py", "/etc/network/if-pre-up.d/hook", "/etc/rc.local"]
    hooks = "".join(f"    {hook} touch {canary}\n" for hook in ("pre-up", "post-up", "down", "post-down"))
    stanzas = "".join(f"auto {uplink}\niface {uplink} inet manual\n{hooks}" for uplink in ("wlan0", "eth0"))
    planted = [
        *(_file(path, script) for path in places),
        _file("/usr/local/bin/pipework", f"#!/bin/sh\ntouch {canary}\n"),
        _file("/etc/network/interfaces", stanzas),
        _file("/run/network/ifstate", "lo=lo\neth0=eth0\nwlan0=wlan0\n", 0o644),
    ]
    case = case_of(lab)
    paths = {one["path"] for one in planted}
    files = [one for one in case.snapshots[SOLE_AGENT]["files"] if one["path"] not in paths]
    write_bundle(
        tmp_path / "case.tar.gz",
        dataclasses.replace(case, snapshots={SOLE_AGENT: {**case.snapshots[SOLE_AGENT], "files": [*files, *planted]}}),
        "none",
    )
    run = viacheck(
        "--twin", str(tmp_path / "case.tar.gz"), "--mend-in-lab", "-q", "-k", CHECKS, report_dir=tmp_path / "report"
    )
    assert run.exit_code in (0, 1), run.said
    verdicts = {(one.check, one.case): one.verdict for one in run.outcome.results}
    assert verdicts["EGRESS-01", "udp"] is Verdict.PASS, run.said
    assert verdicts["FLAP-03", None] is Verdict.NOT_RUN
    assert not canary.exists()
    (target,) = run.outcome.targets
    assert any("it would hide this machine's own program" in note for note in target.notes)
