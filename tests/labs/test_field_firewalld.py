"""A real firewalld with a bus of its own: what it drops is named, and its own commands, typed as printed, mend it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.whole_host.base_root import BaseRoot
from tests.helpers.front_door import Finished
from tests.helpers.hand_made import HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.judgements import PASS, assert_bundle_and_replica_agree, judgements
from viacheck.model.verdict import Verdict

pytestmark = pytest.mark.skipif(shutil.which("firewalld") is None, reason="needs the package firewalld")
CHECKS = ("HOST-04", "EGRESS-01", "EGRESS-03")
# The host's own copies of what firewalld and its bus write.
PRIVATE = """
mkdir -p /run/dbus /run/firewalld
cp -a /etc/firewalld /run/firewalld/etc && mount --bind /run/firewalld/etc /etc/firewalld
"""
BLOCKING_POLICY = (
    ("--new-policy=closed",),
    ("--policy=closed", "--add-ingress-zone=ANY"),
    ("--policy=closed", "--add-egress-zone=ANY"),
    ("--policy=closed", "--set-target=REJECT"),
)
UNTIL_RUNNING = "for _ in $(seq 300); do firewall-cmd --state >/dev/null 2>&1 && exit; sleep 0.1; done; exit 1"


FORKY = BaseRoot("forky")
IN_FORKY = ("chroot", "/run/forky")
# Debian forky's firewalld, which has other chains, in a copy of that release's root; the host's network is the same.
FORKY_ROOT = """
mkdir -p /run/forky /run/forky-changed /run/forky-work
mount -t overlay overlay -o "lowerdir=$1,upperdir=/run/forky-changed,workdir=/run/forky-work" /run/forky
mount -t proc proc /run/forky/proc && mount --rbind /sys /run/forky/sys && mount --rbind /dev /run/forky/dev
mount -t tmpfs none /run/forky/run && mkdir -p /run/forky/run/dbus
"""


@contextlib.contextmanager
def running_firewalld(within: tuple[str, ...]) -> Iterator[HandMadeHost]:
    """The guide's host with firewalld in its default zone, as Debian installs it."""
    with hand_made_host() as host, contextlib.ExitStack() as ending:
        apply_the_guides_recipe(host)
        if within:
            host.run("sh", "-ec", FORKY_ROOT, "sh", str(FORKY.path))
        else:
            host.run("sh", "-ec", PRIVATE)
        for program in (("dbus-daemon", "--system", "--nofork", "--nopidfile"), ("firewalld", "--nofork", "--nopid")):
            process = subprocess.Popen(
                host.inside(*within, *program), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            ending.callback(process.wait)
            ending.callback(process.terminate)
        host.run(*within, "sh", "-c", UNTIL_RUNNING)
        yield host


def judged(host: HandMadeHost, folder: Path) -> Finished:
    folder.mkdir(exist_ok=True)
    return host.viacheck("-q", "-k", " or ".join(CHECKS), site=write_site(folder), report_dir=folder / "report")


def rules(host: HandMadeHost) -> str:
    return host.run("nft", "list", "table", "inet", "firewalld")


@pytest.mark.parametrize(
    ("within", "dropping"),
    [
        pytest.param((), "filter_FWD_public", id="bookworm"),
        pytest.param(
            IN_FORKY, "filter_FWD_public_to_public", id="forky",
            marks=pytest.mark.skipif(not FORKY.path.exists(), reason="the base root of forky is not built"),
        ),
    ],
)  # fmt: skip
def test_firewallds_own_commands_mend_what_it_drops(within: tuple[str, ...], dropping: str, tmp_path: Path) -> None:
    with running_firewalld(within) as host:
        before = rules(host)
        done = judged(host, tmp_path / "dropped")
        expected = {"HOST-04": (Verdict.FAIL, "FORWARD_DROPPED"), "EGRESS-01": (Verdict.FAIL, "FORWARD_DROPPED")}
        assert judgements(done).items() >= expected.items(), done.said
        assert_bundle_and_replica_agree(done, expected, tmp_path / "saved")
        (cause,) = (r.diagnosis for r in done.outcome.results if r.diagnosis and r.diagnosis.reported_by is None)
        assert f"'reject with icmpx admin-prohibited' of chain {dropping} of table firewalld" in cause.cause
        for line in (*cause.remedy, *cause.remedy):
            host.run(*within, "sh", "-ec", line)
        mended = judged(host, tmp_path / "mended")
        assert judgements(mended) == dict.fromkeys(CHECKS, PASS), mended.said
        host.run(*within, "firewall-cmd", "--reload")
        reloaded = judged(host, tmp_path / "reloaded")
        assert judgements(reloaded) == dict.fromkeys(CHECKS, PASS), reloaded.said
        for line in cause.undo:
            host.run(*within, "sh", "-ec", line)
        assert "172.17.0.0/16" not in rules(host)
        host.run(*within, "firewall-cmd", "--reload")
        assert rules(host) == before
        for words in BLOCKING_POLICY:
            host.run(*within, "firewall-cmd", "--permanent", *words)
        host.run(*within, "firewall-cmd", "--reload")
        by_policy = judged(host, tmp_path / "policy")
    (cause,) = (r.diagnosis for r in by_policy.outcome.results if r.diagnosis and r.diagnosis.reported_by is None)
    assert "of chain filter_FWD_policy_closed of table firewalld" in cause.cause
    assert not cause.remedy, "no zone accepts what a policy drops"
    assert cause.decision == "accept 172.17.0.0/16 before what drops it there"


def test_the_table_of_a_firewalld_that_has_ended_is_named(tmp_path: Path) -> None:
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        chain = "type filter hook forward priority filter + 10; reject with icmpx admin-prohibited"
        host.run("nft", f"add table inet firewalld {{ chain filter_FORWARD {{ {chain}; }}; }}")
        done = judged(host, tmp_path)
        (cause,) = (r.diagnosis for r in done.outcome.results if r.diagnosis and r.diagnosis.reported_by is None)
        assert not cause.remedy, "firewall-cmd needs a firewalld that runs"
        assert cause.decision is not None
        assert cause.decision.startswith("firewalld does not run, and its table is still in the kernel")
        host.run("nft", "delete", "table", "inet", "firewalld")
        assert judgements(judged(host, tmp_path / "deleted")) == dict.fromkeys(CHECKS, PASS)
