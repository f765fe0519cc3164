"""A fix as the console, the page and the Markdown export print it does what it says when it is pasted into a shell."""

from __future__ import annotations

import html
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.console import summary
from reports.export.markdown import write
from reports.report_page import render
from tests.helpers.sample_outcomes import rule_missing
from viacheck.diagnosis.remedy import Remedy, remedy_of
from viacheck.model.namespace_state import NetworkState
from viacheck.model.result import RunResult
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.persistence.file_edit import in_diffs, insert_lines, new_file, replace_line

BEFORE = "auto eth0\niface eth0 inet dhcp\n\tpost-up echo 'a' $b\n\nauto lo\niface lo inet loopback\n"
AFTER = BEFORE.replace("'a' $b", "`id` <&> EOF").replace("lo inet loopback\n", "lo inet loopback\n    up true\n")


def with_remedy(remedy: Remedy) -> RunResult:
    outcome = rule_missing()
    diagnosis = next(result.diagnosis for result in outcome.results if result.check == "ROUTE-02")
    assert diagnosis is not None
    diagnosis.remedy, diagnosis.undo = remedy.lines, remedy.rollback_lines
    return outcome


def on_console(outcome: RunResult, fix: bool) -> str:
    text = summary(outcome, None, colour=False, width=40)
    return re.split(r"\n   [a-z ]+:", text.split("\n   fix:\n" if fix else "\n   roll back:\n")[1])[0]


def on_page(outcome: RunResult, fix: bool) -> str:
    title = "Fix" if fix else "Roll back"
    block = re.search(rf'<pre class="commands"[^>]*aria-label="{title}[^>]*>(.*?)</pre>', render(outcome), re.DOTALL)
    assert block is not None
    return html.unescape(re.sub(r"<[^>]*>", "", block[1]))


def in_markdown(outcome: RunResult, fix: bool) -> str:
    return write(outcome).split("Fix:\n" if fix else "Roll back:\n")[1].split("```")[1].removeprefix("sh\n")


PRINTED = pytest.mark.parametrize("printed", [on_console, on_page, in_markdown])


@PRINTED
def test_a_fix_is_pasted_as_it_is_printed(printed: Callable[[RunResult, bool], str], tmp_path: Path) -> None:
    path, new = tmp_path / "interfaces", tmp_path / "new file"
    path.write_text(BEFORE)
    files = (HostFile.kept(str(path), BEFORE, BEFORE),)
    snapshot = Snapshot(
        taken="2026-01-01T00:00:00+00:00", hostname="t", kernel="6", host=NetworkState(), agent=None, files=files
    )
    edits = in_diffs(
        snapshot,
        [
            replace_line(str(path), 3, "\tpost-up echo `id` <&> EOF"),
            new_file(snapshot, str(new), "EOF\nx\n"),
            insert_lines(str(path), 6, "    up true\n"),
        ],
    )
    outcome = with_remedy(remedy_of(edits, [("true",)]))
    fix, rollback = printed(outcome, True), printed(outcome, False)
    assert "\n-\tpost-up echo 'a' $b\n+\tpost-up echo `id` <&> EOF\n \n auto lo\n" in fix
    subprocess.run(["/bin/sh", "-e"], input=fix, text=True, check=True, capture_output=True)
    assert path.read_text() == AFTER
    assert new.read_text() == "EOF\nx\n"
    # The diff alone, as a reviewer saves it, is one that patch takes for the paths in it.
    diff = fix[fix.index("--- a") : fix.index("\nEOF\n") + 1]
    subprocess.run(["patch", "-R", "-p1", "-d", "/", "-s"], input=diff, text=True, check=True, capture_output=True)
    assert path.read_text() == BEFORE
    subprocess.run(["patch", "-p1", "-d", "/", "-s"], input=diff, text=True, check=True, capture_output=True)
    subprocess.run(["/bin/sh", "-e"], input=rollback, text=True, check=True, capture_output=True)
    assert path.read_text() == BEFORE
    assert not new.exists()


@PRINTED
def test_a_line_that_does_not_print_is_pasted_too(printed: Callable[[RunResult, bool], str], tmp_path: Path) -> None:
    path = tmp_path / "wlan0.nmconnection"
    before = "[ipv4]\r\nid=50% 'a' \\ é\r\nx\x1b[2J\u202e\xa0\n[ipv6]\r\n"
    path.write_bytes(before.encode())
    snapshot = Snapshot(
        taken="2026-01-01T00:00:00+00:00", hostname="t", kernel="6", host=NetworkState(), agent=None,
        files=(HostFile.kept(str(path), before, before),),
    )  # fmt: skip
    outcome = with_remedy(remedy_of(in_diffs(snapshot, [insert_lines(str(path), 2, "route1=\u2028 100%\n")])))
    for program in ("/bin/sh", "/bin/bash"):
        subprocess.run([program, "-e"], input=printed(outcome, True).encode(), check=True, capture_output=True)
        assert path.read_bytes().decode() == before.replace("x\x1b", "route1=\u2028 100%\nx\x1b")
        subprocess.run([program, "-e"], input=printed(outcome, False).encode(), check=True, capture_output=True)
        assert path.read_bytes().decode() == before
