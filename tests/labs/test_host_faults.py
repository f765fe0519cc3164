"""Faults that only the events of a whole host show: each fails alone, and its fix, typed as it is printed, mends it.

Run with ``--releases`` only: each of them takes two hosts, and some wait for what a boot waits for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from netns_lab.faults import FAULTS
from netns_lab.lab_specs import parse_labs
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from tests.helpers.front_door import by_check, severity, viacheck
from tests.helpers.side_event import assert_named_and_mended
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

JUDGED = {
    "host:macvlan-ifupdown+docker-before-parent": ("FLAP-08",),
    "host:macvlan-ifupdown@forky+docker-before-parent": ("FLAP-08",),
    # At a boot Docker attaches one network after the other, and a packet or two leave by the second one all the same.
    "host:policy-routing-networkd@forky+default-set-by-hand": ("FLAP-04", "FLAP-05"),
    "host:pipework-rc-local+guide-recipe-at-boot": ("FLAP-08", "FLAP-03"),
}
"""By lab with a fault, the checks that are judged: the first of those that fail has the fix."""
ON_THE_SIDE = {
    "reload-purges-rules": ("networkd-reload", ""),
    "new-bridge-purges-rules": ("other-network", ""),
    "watch-of-any-container": ("other-container", (
        "sed -i 's/--filter type=container/& --filter container=te-agent/' /usr/local/sbin/agent-watch\n"
        "systemctl restart agent-watch.service\n"
    )),
    "local-rule-for-all": ("vpn", ""),
}  # fmt: skip
"""By fault, the event of others that shows it, and what a person types where the cause has no remedy."""
_MISSING = missing_for(BaseRoot(DEFAULT_RELEASE))
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def worse(folder: Path, lab: str, checks: tuple[str, ...], script: str = "") -> dict[str, CheckResult]:
    """The results that are a reason to act, of a lab where a script was run first."""
    folder.mkdir()
    (folder / "typed.sh").write_text(script)
    options = ("--apply", str(folder / "typed.sh")) if script else ()
    selected = " or ".join((*checks, "EGRESS-01", "PERSIST", "PIPEWORK-05"))
    run = viacheck("--lab", lab, *options, "-k", selected, report_dir=folder / "report")
    results = by_check(run.outcome, f"lab:{lab}")
    assert results, run.said
    return {check: case for check, cases in results.items() for case in cases if severity([case])}


@pytest.mark.parametrize("lab", JUDGED)
def test_a_fault_is_named_after_the_event_and_its_fix_mends(lab: str, tmp_path: Path) -> None:
    (spec,), checks = parse_labs(lab), JUDGED[lab]
    (fault,) = (FAULTS[name] for name in spec.faults)
    broken = worse(tmp_path / "broken", lab, checks)
    assert broken.keys() == fault.breaks & {*checks, "PIPEWORK-05", "PERSIST-01", "PERSIST-02"}
    assert broken[checks[0]].verdict is Verdict.FAIL, broken
    for check, case in broken.items():
        assert case.diagnosis is not None, case
        assert check in fault.diagnoses[case.diagnosis.code], case
    cause = broken[checks[0]].diagnosis
    assert cause is not None
    assert cause.code == fault.diagnosis
    remedy = cause.remedy
    mended = worse(tmp_path / "mended", lab, checks, "".join(f"{line}\n" for line in remedy))
    assert mended == {}


@pytest.mark.parametrize("fault", ON_THE_SIDE)
def test_what_others_do_on_the_side_is_named_and_its_fix_mends(fault: str, tmp_path: Path) -> None:
    event, typed = ON_THE_SIDE[fault]
    assert_named_and_mended(tmp_path, f"host:policy-routing-networkd+{fault}", event, typed)
