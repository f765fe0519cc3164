"""Remedies are data: whatever a name holds, a shell gets exactly the arguments, and an edit is undone byte for byte."""

from __future__ import annotations

import dataclasses
import shlex
import string
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.helpers.persistence_hosts import recorded, resolved
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis import causes
from viacheck.diagnosis.remedy import (
    CommandOutput,
    Step,
    command,
    container_pid,
    execution_of,
    iptables_rule_commands,
    remedy_of,
    shell_text,
)
from viacheck.diagnosis.remedy import systemd_exec_shell as exec_shell
from viacheck.model.check_evidence import PacketsEvidence, PacketSighting, TimelineEvidence
from viacheck.model.docker_state import Attachment, DockerContainer, DockerEngine, DockerNetwork, IPAMPool
from viacheck.model.egress_changes import EgressState
from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule, PacketFilter
from viacheck.model.intent_file import parse_intent
from viacheck.model.measurements import DisruptionResult, Measurements, Offer, TrafficMeasurements
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import HostFile, Problem, Snapshot
from viacheck.persistence.file_edit import (
    CommentLine,
    PatchFile,
    ReversibleEdit,
    UncommentLine,
    WriteFile,
    comment_out,
    delete_line,
    in_diffs,
    insert_lines,
    new_file,
    replace_line,
)
from viacheck.persistence.unified_diff import LineChange

T = TypeVar("T")
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ARGUMENTS = st.lists(ANY, min_size=1, max_size=6)
HOSTILE = ("$(touch /tmp/x)", "a;b", "it's", '"', "-rf", "`id`", "a b", "new\nline", "*", "\\", "&& true", "#", "a|b")
DEVICE_HOSTILE = tuple(name for name in HOSTILE if not any(char.isspace() or char == "/" for char in name))
"""The kernel takes no white space and no slash in the name of an interface."""


def arguments_of_shell(text: str) -> list[str]:
    """Return the arguments that a real shell makes of a line."""
    script = f"set -- {text}\nprintf '%s\\0' \"$@\""
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    return done.stdout.decode(errors="surrogateescape").split("\0")[:-1]


def words_of(step: tuple[str | CommandOutput, ...]) -> list[str]:
    """Return the words of a step's line; a command substitution is unquoted, so it is several words."""
    words: list[str] = []
    for argument in step:
        words += [argument] if isinstance(argument, str) else _substitution(argument)
    return words


def _substitution(argument: CommandOutput) -> list[str]:
    first, *middle, last = argument.command
    return [f"$({first}", *middle, f"{last})"]


# --- the text of one step ---------------------------------------------------------------------------------------------


@given(ARGUMENTS)
@settings(max_examples=25)
def test_a_shell_gets_exactly_the_arguments(arguments: list[str]) -> None:
    text = shell_text(command(*arguments))
    assert arguments_of_shell(text) == arguments
    if all(argument.replace("\n", "").isprintable() for argument in arguments):
        assert shlex.split(text) == arguments


@pytest.mark.parametrize(
    "name", ["esc\x1b[2J", "\x9bm", "rtl\u202eab", "tab\tb", "\x7f%s-\\'\"!$(id)`id`", "-\u200b", "a\u2028b\nc"]
)
def test_a_name_that_does_not_print_is_typed_in_characters_that_do(name: str) -> None:
    text = shell_text(("ip", "link", "set", "dev", name, "up"))
    assert text.replace("\n", "").isprintable()
    assert "!" not in text
    for program in ("/bin/sh", "/bin/bash"):
        done = subprocess.run([program, "-c", f"printf '%s|' {text}"], capture_output=True, check=True)
        assert done.stdout.decode() == f"ip|link|set|dev|{name}|up|"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_substitution_keeps_its_own_arguments_apart(name: str) -> None:
    step = command("nsenter", "--target", container_pid(name), "ip", "link", "set", "dev", name)
    assert shlex.split(shell_text(step)) == words_of(step)
    own = shell_text(("printf", "%s", CommandOutput(("printf", "%s", name)), name))
    said = subprocess.run(["/bin/sh", "-f", "-c", own], capture_output=True, text=True, check=True).stdout
    # White space parts an unquoted substitution; nothing in it is run.
    assert said.replace(" ", "").replace("\n", "") == (name * 2).replace(" ", "").replace("\n", "")


LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
LINES = st.lists(
    LINE
    | st.sampled_from(
        ["EOF", "EOF_", "E\xa0", "Eé", "a$b", "\\", "'", "# x", "-- a/x", "++ b/x", "@@ -1 +1 @@", "1d", "x\r", "\t"]
    ),
    min_size=1,
    max_size=5,
)
NAMES = st.text(st.sampled_from([*string.ascii_letters, *" $;'\"`-*&|\\#(){}!~"]), min_size=1, max_size=12)


def run_by_shell(step: Step) -> None:
    subprocess.run(["/bin/sh", "-ec", shell_text(step)], check=True, capture_output=True)


def run_without_shell(step: Step) -> None:
    execution = execution_of(step)
    argv = [argument for argument in execution.argv if isinstance(argument, str)]
    subprocess.run(argv, input=(execution.stdin or "").encode(), check=True, capture_output=True)


RUNNERS = pytest.mark.parametrize("run", [run_by_shell, run_without_shell])


def content(path: str) -> list[str]:
    return Path(path).read_bytes().decode().split("\n")


@st.composite
def changes_of(draw: st.DrawFn, path: str, count: int) -> list[LineChange]:
    """Changes of a file of so many lines that do not overlap, in any order."""
    changes: list[LineChange] = []
    at = 1
    while at <= count + 1:
        at += draw(st.integers(0, 8))
        kind = draw(st.sampled_from(["insert", "replace", "delete", "comment", "none"]))
        new = tuple(draw(LINES))
        if kind == "insert" and at <= count + 1:
            changes.append(insert_lines(path, at - 1, "".join(f"{line}\n" for line in new)))
        elif kind != "none" and at <= count:
            change = {"replace": replace_line(path, at, "\n".join(new)), "comment": comment_out(path, at)}
            changes.append(change.get(kind, delete_line(path, at)))
        at += 1
    return draw(st.permutations(changes))


def changed(old: list[str], changes: list[LineChange], unknown: set[int]) -> list[str]:
    """Return the lines after the changes; a line that is not known is commented out instead of removed."""
    new: list[str] = []
    for number in range(1, len(old) + 2):
        behind: list[str] = []
        kept = [old[number - 1]] if number <= len(old) else []
        for change in changes:
            if change.first == number and change.last < number:
                new += change.new
            elif change.first == number:
                as_comment = change.comments_out or number in unknown
                kept, behind = ([f"# {old[number - 1]}"] if as_comment else []), list(change.new)
        new += [*kept, *behind]
    return new


@RUNNERS
@given(
    name=NAMES, old=st.lists(LINE | LINES.map("".join), min_size=1, max_size=20), ended=st.booleans(), data=st.data()
)
@settings(max_examples=40)
def test_changed_lines_are_one_diff_that_fits_and_is_undone(
    run: Callable[[Step], None], name: str, old: list[str], ended: bool, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/{name}"
        ended = ended or not old[-1]
        text = "\n".join(old) + ("\n" if ended else "")
        Path(path).write_bytes(text.encode())
        partial = range(1, len(old) + (1 if ended else 0))
        unknown = data.draw(st.sets(st.sampled_from(partial))) if partial else set()
        kept = "\n".join("" if number in unknown else line for number, line in enumerate(text.split("\n"), 1))
        file = HostFile(path=path, exists=True, text=kept, incomplete_lines=tuple(unknown))
        changes = data.draw(changes_of(path, len(old)))
        edits = in_diffs(with_files(file), changes)
        assert sum(isinstance(edit.edit, PatchFile) for edit in edits) <= 1
        for edit in edits:
            run(edit.edit)
        after = changed(old, changes, unknown)
        ended = ended or any(change.last >= len(old) or change.first > len(old) for change in changes)
        assert content(path) == ([*after, ""] if ended else after)
        for edit in reversed(edits):
            run(edit.rollback)
        assert Path(path).read_bytes().decode() == text


def with_files(*files: HostFile) -> Snapshot:
    return Snapshot(taken="2026-01-01T00:00:00+00:00", hostname="t", kernel="6", host=HOST, agent=None, files=files)


STANZA = "auto eth0\niface eth0 inet static\n    address 10.0.0.2/24\n\n# x\nauto lo\niface lo inet loopback\n"


def test_a_diff_shows_known_lines_alone_and_changes_nothing_the_second_time(tmp_path: Path) -> None:
    path = str(tmp_path / "interfaces")
    Path(path).write_text(STANZA)
    kept = HostFile.kept(path, STANZA, STANZA.replace("# x", ""))
    (edit,) = in_diffs(
        with_files(kept), [insert_lines(path, 3, "    mtu 1400\n"), insert_lines(path, 7, "    up true\n")]
    )
    assert isinstance(edit.edit, PatchFile)
    assert edit.edit.diff == (
        f"--- a{path}\n+++ b{path}\n"
        "@@ -3,2 +3,3 @@\n     address 10.0.0.2/24\n+    mtu 1400\n \n"
        "@@ -6,2 +7,3 @@\n auto lo\n iface lo inet loopback\n+    up true\n"
    )
    run_by_shell(edit.edit)
    once = Path(path).read_text()
    with pytest.raises(subprocess.CalledProcessError):
        run_by_shell(edit.edit)
    assert Path(path).read_text() == once
    assert [file.name for file in tmp_path.iterdir()] == ["interfaces"], "patch leaves no other file"
    # The operator has changed the file since: the diff does not fit, and the file stays as it is.
    Path(path).write_text(STANZA.replace("address 10.0.0.2/24", "address 10.0.0.3/24").replace("auto lo", "auto l"))
    with pytest.raises(subprocess.CalledProcessError):
        run_by_shell(edit.edit)
    assert "mtu" not in Path(path).read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["interfaces"]


def test_a_snapshot_without_a_record_of_left_out_lines_shows_none_of_them() -> None:
    file = HostFile(path="/etc/x", exists=True, text="a\n\nb\n")
    insertion, comment = in_diffs(with_files(file), [insert_lines("/etc/x", 1, "new\n"), delete_line("/etc/x", 3)])
    assert isinstance(insertion.edit, PatchFile)
    assert insertion.edit.diff.splitlines()[2:] == ["@@ -1,0 +2 @@", "+new"]
    assert comment == ReversibleEdit(CommentLine("/etc/x", 4), UncommentLine("/etc/x", 4))


@RUNNERS
@given(name=NAMES, lines=LINES)
@settings(max_examples=15)
def test_a_file_is_written_and_removed(run: Callable[[Step], None], name: str, lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, text = f"{folder}/new/{name}", "".join(f"{line}\n" for line in lines)
        edit = new_file(with_files(), path, text)
        run(edit.edit)
        assert Path(path).read_bytes().decode() == text
        run(edit.rollback)
        assert not Path(path).exists()


def test_a_file_that_is_there_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "viacheck.conf"
    path.write_text("old\n")
    path.chmod(0o600)
    edit = new_file(with_files(HostFile.kept(str(path), "old\n", "old\n", 0o600)), str(path), "new\n")
    run_by_shell(edit.edit)
    assert path.read_text() == "new\n"
    run_by_shell(edit.rollback)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("old\n", 0o600)


def test_a_file_that_is_known_in_part_stays_as_it_is() -> None:
    files = with_files(*(HostFile.kept(path, "secret\n", "…\n") for path in ("/x/a.conf", "/x/a-more.conf")))
    edit = new_file(files, "/x/a.conf", "new\n").edit
    assert isinstance(edit, WriteFile)
    assert edit.path == "/x/a-more-more.conf"


@pytest.mark.parametrize("option", ["--modprobe=/etc/x", "--modprobe /etc/x", "--mod /etc/x", "-M /etc/x", "-nM/etc/x"])
def test_a_rule_that_names_a_program_has_no_remedy(option: str) -> None:
    plain = FilterRule(text="-A FORWARD -m mark -j DROP")
    hostile_rule = FilterRule(text=f"-A FORWARD {option} -m missing -j DROP")
    chain = FilterChain(backend="iptables", family="ip", table="filter", name="FORWARD", rules=(plain, hostile_rule))
    assert iptables_rule_commands(chain, plain)
    assert not iptables_rule_commands(chain, hostile_rule)


def test_edits_are_rolled_back_in_reverse() -> None:
    first, second = new_file(with_files(), "/a", "a\n"), new_file(with_files(), "/b", "b\n")
    remedy = remedy_of([first, second], [("reload",)])
    assert remedy.steps == (first.edit, second.edit, ("reload",))
    assert remedy.rollback == (second.rollback, first.rollback, ("reload",))


def test_systemd_expands_nothing_of_a_line_of_shell() -> None:
    line = """test "$(id -u)" = '0' || echo 100%h \\n"""
    quoted = exec_shell(line).removeprefix("/bin/sh -c ")
    assert "$(" not in quoted.replace("$$", "")
    assert quoted.replace("$$", "$").replace("%%", "%") == '"' + line.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- the remedies of the causes ---------------------------------------------------------------------------------------


def renamed(value: T, names: dict[str, str]) -> T:
    """Return the same value with names exchanged where a name is the whole text; nothing is validated again."""
    if isinstance(value, str):
        return names.get(value, value)  # type: ignore[return-value]
    if isinstance(value, BaseModel):
        fields = {name: renamed(getattr(value, name), names) for name in type(value).model_fields}
        return value.model_copy(update=fields)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: renamed(getattr(value, field.name), names) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, tuple | list):
        return type(value)(renamed(item, names) for item in value)
    if isinstance(value, dict):
        return {renamed(key, names): renamed(item, names) for key, item in value.items()}  # type: ignore[return-value]
    return value


SUBNET = "172.17.0.0/16"
RULE = Rule(family=4, priority=1000, source=SUBNET, table=200)
EARLIER = Rule(family=4, priority=5, source=SUBNET, table=254)
MAIN = Rule(family=4, priority=32766, table=254)


def link(index: int, name: str, **more: Any) -> Link:
    return Link(index=index, name=name, flags=("UP", "LOWER_UP"), mac=f"02:00:00:00:00:{index:02x}", **more)


def down(up: Link) -> Link:
    return dataclasses.replace(up, flags=())


def with_agent_links(*links: Link) -> NetworkState:
    return dataclasses.replace(macvlan_agent(), links=links)


def address(interface: str, text: str, length: int = 24, family: Any = 4) -> Address:
    return Address(interface=interface, family=family, address=text, prefixlen=length)


def default(gateway: str, interface: str, table: int = 254, **more: Any) -> Route:
    hops = (Nexthop(gateway=gateway, interface=interface),)
    return Route(family=4, table=table, destination="0.0.0.0/0", nexthops=hops, **more)


LINKS = (link(11, "eth0"), link(12, "wlan0"), link(13, "docker0", kind="bridge"))
ADDRESSES = (address("eth0", "10.10.40.9"), address("wlan0", "10.10.50.9"), address("docker0", "172.17.0.1", 16))
AGENT = NetworkState(
    links=(link(2, "eth9", kind="veth", peer_index=13, peer_netnsid=0, mtu=9000),),
    addresses=(address("eth9", "172.17.0.2", 16),), routes=(default("172.17.0.1", "eth9"),),
)  # fmt: skip
AGENT6 = dataclasses.replace(AGENT, addresses=(*AGENT.addresses, address("eth9", "2001:db8::2", 64, 6)))
HOST = NetworkState(
    links=LINKS, addresses=ADDRESSES, rules=(RULE, MAIN),
    routes=(default("10.10.40.1", "eth0"), default("10.10.50.1", "wlan0", 200)),
)  # fmt: skip


def with_rules(*rules: Rule) -> NetworkState:
    return dataclasses.replace(HOST, rules=(*rules, MAIN))


def with_routes(*routes: Route) -> NetworkState:
    return dataclasses.replace(HOST, routes=routes)


def with_links(*links: Link) -> NetworkState:
    return dataclasses.replace(HOST, links=(*links, *LINKS[len(links) :]))


def with_sysctl(path: str, value: str) -> NetworkState:
    return dataclasses.replace(HOST, sysctls={path: value})


def nat(host: NetworkState = HOST, agent: NetworkState | None = AGENT, **more: Any) -> ResolvedIntent:
    document = {
        "schema": 1, "site": {"name": "test"},
        "agent": {"container": "te-agent", "attach": {"mode": "nat", "bridge": "docker0", "subnet": SUBNET}},
        "uplinks": {"eth0": {"gateway": "10.10.40.1"}, "wlan0": {"gateway": "10.10.50.1"}},
        "egress": {"uplink": "wlan0", "table": 200, "table_name": "wlan0rt"}, "host": {"default_exit": "eth0"},
    }  # fmt: skip
    snapshot = Snapshot(taken="2026-01-01T00:00:00+00:00", hostname="t", kernel="6", host=host, agent=agent, **more)
    return ResolvedIntent(parse_intent(document, source="test"), snapshot)


CONTAINER = DockerContainer(name="te-agent", id="1", running=True, pid=9, attachments=(Attachment(network="bridge"),))


def bridged(mode: str, agent: NetworkState | None, network: DockerNetwork | None = None, **more: Any) -> ResolvedIntent:
    attach = {
        "macvlan": {"network": "mac0", "parent": "eth0", "subnet": "10.10.40.0/24", "gateway": "10.10.40.1",
                    "ip_range": "10.10.40.192/27"},
        "pipework-static": {"parent": "eth0", "address": "10.10.40.200/24", "gateway": "10.10.40.1"},
        "pipework-dhcp": {"parent": "eth0"},
    }[mode]  # fmt: skip
    document = {
        "schema": 1, "site": {"name": "test"}, "agent": {"container": "te-agent", "attach": {"mode": mode, **attach}},
        "uplinks": {"eth0": {"gateway": "10.10.40.1"}}, "egress": {"uplink": "eth0"},
    }  # fmt: skip
    more.setdefault("host", NetworkState(links=LINKS, addresses=ADDRESSES, routes=(default("10.10.40.1", "eth0"),)))
    networks = (network,) if network is not None else ()
    more.setdefault("engine", DockerEngine(version="20.10", api_version="1.41", networks=networks, container=CONTAINER))
    snapshot = Snapshot(taken="2026-01-01T00:00:00+00:00", hostname="t", kernel="6", agent=agent, **more)
    return ResolvedIntent(parse_intent(document, source="test"), snapshot)


def macvlan_agent(
    name: str = "eth9", text: str = "10.10.40.200", gateway: str = "10.10.40.1", **more: Any
) -> NetworkState:
    more = {"peer_index": 11, "peer_netnsid": 0, "mode": "bridge", **more}
    return NetworkState(
        links=(link(2, name, kind="macvlan", **more),), addresses=(address(name, text),),
        routes=(default(gateway, name),),
    )  # fmt: skip


def chain(backend: Any, hook: str, kind: str, *rules: FilterRule, policy: str = "accept") -> PacketFilter:
    table, name = ("nat", "POSTROUTING") if kind == "nat" else ("filter", "FORWARD")
    return PacketFilter(
        chains=(
            FilterChain(
                backend=backend, family="ip", table=table, name=name, type=kind, hook=hook, priority=0, policy=policy,
                rules=rules,
            ),
        )
    )  # fmt: skip


def filtered(packet_filter: PacketFilter, **more: Any) -> ResolvedIntent:
    return nat(dataclasses.replace(HOST, packet_filter=packet_filter, **more))


def traffic(**packets: PacketsEvidence) -> Measurements:
    renamed_keys = {name.replace("_", "-"): evidence for name, evidence in packets.items()}
    return Measurements(traffic=TrafficMeasurements(packets=renamed_keys))


def seen(interface: str, direction: Any, role: Any, source: str = "1.1.1.1") -> PacketsEvidence:
    sighting = PacketSighting(
        time=0.0, interface=interface, direction=direction, probe=1, role=role, protocol="icmp", source=source,
        destination="2.2.2.2",
    )  # fmt: skip
    return PacketsEvidence(sent=1, answered=0, watched=[], sightings=[sighting])


def disrupted(event: str, before: EgressState, after: EgressState, **more: Any) -> Measurements:
    result = DisruptionResult(
        event=event, title=event, ended=1.0, watched=5.0, flow_results=(), states=(before, after),
        timeline=TimelineEvidence(events=[]), unproven={}, **more,
    )  # fmt: skip
    return Measurements(disruptions={event: result})


SNAT = FilterRule(
    verdict="snat", argument="10.9.9.9", handle=7,
    text="""-A POSTROUTING -o wlan0 -m comment --comment "it's; $(x)" -j SNAT --to-source 10.9.9.9""",
)  # fmt: skip
NFT_SNAT = dataclasses.replace(SNAT, text="""oifname "wlan0" snat to 10.9.9.9 comment "it's; $(touch /tmp/x)\"""")
DROP = FilterRule(verdict="drop", handle=3, matches=(FilterMatch(field="source", values=(SUBNET,)),), text="drop")
GUIDE = {"/etc/network/interfaces": "auto wlan0\niface wlan0 inet dhcp\n"
         "    up ip rule add from 172.17.0.0/16 lookup 200\n"
         "    up ip route add default via 10.10.50.1 dev wlan0 table 200\n"
         "    post-down ip route add default via 10.10.40.1 dev eth0 table 200\n"}  # fmt: skip
STATE = EgressState(time=0.0, moment="before", rules=(RULE,), routes=(default("10.10.50.1", "wlan0", 200),))
BY_OBJECT = EgressState(time=0.0, moment="before", routes=(default("10.10.50.1", "wlan0", 200, nexthop_id=5),))
EMPTY = EgressState(time=1.0, moment="after")
RC_LOCAL = HostFile(path="/etc/rc.local", exists=True, text="#!/bin/sh\nexit 0\n", mode=0o644, incomplete_lines=(1,))
HOOKS = HostFile(
    path="/etc/network/interfaces", exists=True,
    text="auto eth0\niface eth0 inet dhcp\n    post-up pipework eth0 te-agent 10.10.40.200/24@10.10.40.1\n",
)  # fmt: skip
NETWORK = DockerNetwork(
    name="mac0", id="1", driver="macvlan", parent="eth0",
    pools=(IPAMPool(subnet="10.10.40.0/24", gateway="10.10.40.1"),), options={"parent": "eth0"},
    containers=("te-agent",),
)  # fmt: skip
TWO_NETWORKS = DockerEngine(
    version="28.5.2", api_version="1.51", networks=(NETWORK,),
    container=dataclasses.replace(
        CONTAINER,
        attachments=(
            Attachment(network="mac0", address="10.10.40.200", fixed_address="10.10.40.200", aliases=("probe",)),
            Attachment(network="backend", address="172.18.0.2"),
        ),
    ),
)  # fmt: skip


def on_two_networks() -> NetworkState:
    agent = macvlan_agent()
    return dataclasses.replace(
        agent, links=(*agent.links, link(3, "eth1", kind="veth")),
        addresses=(*agent.addresses, address("eth1", "172.18.0.2")),
        rules=(Rule(family=4, priority=32766, table=254),), routes=(default("172.18.0.1", "eth1"),),
    )  # fmt: skip


OFFER = Offer(address="10.10.40.195", server="10.10.40.2", server_mac="02:00:00:00:00:99")

CASES: dict[str, Callable[[], ResolvedIntent]] = {
    "no rule": lambda: nat(with_rules()),
    "two rules": lambda: nat(with_rules(RULE, dataclasses.replace(RULE, priority=9))),
    "shadowed": lambda: nat(with_rules(EARLIER, RULE)),
    "other subnet": lambda: nat(with_rules(dataclasses.replace(RULE, source="10.8.0.0/16"))),
    "one address": lambda: nat(with_rules(dataclasses.replace(RULE, source="172.17.0.2/32"))),
    "detached": lambda: nat(with_rules(dataclasses.replace(RULE, iif="gone0", iif_detached=True))),
    "no table": lambda: nat(with_routes(HOST.routes[0])),
    "wrong uplink": lambda: nat(with_routes(HOST.routes[0], default("10.10.40.1", "eth0", 200))),
    "wrong gateway": lambda: nat(with_routes(HOST.routes[0], default("10.10.50.7", "wlan0", 200))),
    "name clash": lambda: nat(files=(HostFile(path="/etc/iproute2/rt_tables", exists=True, text="200 other\n"),)),
    "iptables snat": lambda: filtered(chain("iptables", "postrouting", "nat", SNAT)),
    "nft snat": lambda: filtered(chain("nft", "postrouting", "nat", NFT_SNAT)),
    "no forwarding": lambda: nat(with_sysctl("net/ipv4/conf/wlan0/forwarding", "0")),
    "iptables drop": lambda: filtered(chain("iptables", "forward", "filter", DROP)),
    "nft drop": lambda: filtered(chain("nft", "forward", "filter", DROP)),
    "nft policy": lambda: filtered(chain("nft", "forward", "filter", policy="drop")),
    "enslaved": lambda: nat(with_links(LINKS[0], dataclasses.replace(LINKS[1], master="docker0"))),
    "uplinks down": lambda: nat(with_links(*map(down, LINKS[:2]))),
    "no default": lambda: nat(with_routes()),
    "wrong default": lambda: nat(with_routes(default("10.10.50.1", "wlan0"), HOST.routes[1])),
    "reverse path": lambda: nat(with_sysctl("net/ipv4/conf/all/rp_filter", "1")),
    "mtu": lambda: nat(),
    "ipv6": lambda: nat(agent=AGENT6),
    "engine": lambda: nat(agent=None, problems=(Problem(what="engine", reason="refused"),)),
    "agent": lambda: nat(agent=None),
    "old engine": lambda: bridged("macvlan", None, engine=DockerEngine(version="1.11", api_version="1.20")),
    "no network": lambda: bridged("macvlan", AGENT),
    "wrong driver": lambda: bridged("macvlan", macvlan_agent(), dataclasses.replace(NETWORK, driver="bridge")),
    "other network": lambda: bridged("macvlan", on_two_networks(), NETWORK, engine=TWO_NETWORKS),
    "no route": lambda: bridged("macvlan", dataclasses.replace(macvlan_agent(), routes=()), NETWORK),
    "wrong parent": lambda: bridged("macvlan", macvlan_agent(), dataclasses.replace(NETWORK, parent="wlan0")),
    "wrong parent by hand": lambda: bridged("macvlan", macvlan_agent(peer_index=12), engine=None),
    "wrong subnet by hand": lambda: bridged("macvlan", macvlan_agent(text="10.10.99.7"), engine=None),
    "wrong gateway by hand": lambda: bridged("macvlan", macvlan_agent(gateway="10.10.40.3"), engine=None),
    "parent down": lambda: bridged("macvlan", macvlan_agent(), NETWORK, host=NetworkState(links=(down(LINKS[0]),))),
    "parent in bridge": lambda: bridged(
        "macvlan",
        AGENT,
        NETWORK,
        host=NetworkState(
            links=(dataclasses.replace(LINKS[0], master="br0"), link(19, "br0")),
            addresses=(address("br0", "10.10.40.9"),),
            routes=(default("10.10.40.1", "br0"),),
        ),
    ),
    "offers": lambda: bridged("macvlan", macvlan_agent(), NETWORK),
    "pipework mode": lambda: bridged(
        "pipework-static", AGENT, files=(HostFile(path="/opt/x/pipework", exists=True, mode=0o644),)
    ),
    "pipework parent": lambda: bridged("pipework-static", macvlan_agent(peer_index=12)),
    "pipework address": lambda: bridged("pipework-static", macvlan_agent(text="10.10.40.7")),
    "pipework gateway": lambda: bridged("pipework-static", macvlan_agent(gateway="10.10.40.3")),
    "pipework down": lambda: bridged("pipework-static", with_agent_links(down(macvlan_agent().links[0]))),
    "pipework leftover": lambda: bridged(
        "pipework-static", with_agent_links(*macvlan_agent().links, down(link(8, "ph7eth1", kind="macvlan")))
    ),
    "pipework lease": lambda: bridged("pipework-dhcp", macvlan_agent(), dhcp_clients=()),
    "pipework files": lambda: bridged("pipework-static", macvlan_agent(), files=(RC_LOCAL, HOOKS)),
    "guide's files": lambda: resolved(GUIDE),
    "nothing written": lambda: resolved({"/etc/network/interfaces": "auto wlan0\niface wlan0 inet dhcp\n"}),
    "networkd lacks it": lambda: resolved(
        recorded("networkd-healthy") | {"/etc/systemd/network/20-wlan0.network": "[Match]\nName=wlan0\n"}
    ),
    "networkd purges": lambda: resolved(
        recorded("ifupdown-healthy") | {"/run/systemd/netif/links/11": "ADMIN_STATE=configured\n"}
    ),
    "networkmanager": lambda: resolved({}, persist="networkmanager"),
    "netplan": lambda: resolved({}, persist="netplan"),
    "lease hook": lambda: resolved(GUIDE),
    "no lease": lambda: resolved(GUIDE),
    "nexthop object": lambda: nat(),
    "no restart": lambda: nat(engine=DockerEngine(version="20", api_version="1", container=CONTAINER)),
}
"""Hosts whose causes have a remedy."""
MEASURED: dict[str, Measurements] = {
    "reverse path": Measurements(
        traffic=dataclasses.replace(traffic(icmp=seen("wlan0", "in", "answer")).traffic, reverse_path_drops=(0, 3))
    ),
    "mtu": traffic(full_size=seen("wlan0", "out", "probe")),
    "ipv6": traffic(ipv6=seen("eth0", "out", "probe", source="2001:db8::2")),
    "offers": Measurements(traffic=TrafficMeasurements(offers=(OFFER,))),
    "networkd purges": disrupted("networkd-restart", STATE, EMPTY),
    "lease hook": disrupted("dhcp-renew", STATE, STATE, moved_router=("10.10.50.1", "10.10.50.3")),
    "no lease": disrupted("dhcp-renew", STATE, STATE, failure="no answer"),
    "nexthop object": disrupted("carrier-loss", BY_OBJECT, EMPTY),
    "no restart": disrupted("engine-restart", STATE, STATE, failure="gone"),
}
"""By case, the measurements that the cause needs."""
DEVICES = ("eth0", "wlan0", "docker0", "eth9", "gone0", "br0")
OTHERS = ("te-agent", "mac0", "bridge", "/run/netns/agent")
COVERED = {
    "RULE_MISSING", "RULE_DUPLICATED", "RULE_SHADOWED", "RULE_WRONG_SUBNET", "RULE_DETACHED", "TABLE_EMPTY",
    "RULE_FOR_ONE_ADDRESS", "DEFAULT_BY_OTHER_NETWORK", "AGENT_NO_ROUTE",
    "TABLE_WRONG_UPLINK", "TABLE_WRONG_GATEWAY", "TABLE_NAME_MISSING", "TABLE_ID_CLASH", "LOCAL_NETS_LOST", "FAIL_OPEN",
    "MASQUERADE_MISSING", "SOURCE_NOT_UPLINK", "FORWARDING_OFF", "FORWARD_DROPPED", "BRIDGED_UPLINK", "RP_FILTER_DROP",
    "MTU_TRAP", "IPV6_ESCAPES", "DEFAULT_EXIT_WRONG", "DEFAULT_EXIT_MISSING", "UPLINK_DOWN", "ENGINE_UNREACHABLE",
    "ENGINE_TOO_OLD", "AGENT_NOT_RUNNING", "AGENT_NOT_ATTACHED", "NETWORK_WRONG_DRIVER", "PARENT_WRONG",
    "SUBNET_MISMATCH", "GATEWAY_MISMATCH", "PARENT_DOWN", "DHCP_COLLISION", "PIPEWORK_MISSING", "PIPEWORK_NOT_APPLIED",
    "PIPEWORK_WRONG_ADDRESS", "DEFAULT_NETWORK_PRESENT", "PIPEWORK_LEFTOVER", "LEASE_WITHOUT_CLIENT",
    "PIPEWORK_NOT_PERSISTENT", "NOT_PERSISTENT", "NOT_IDEMPOTENT", "RULES_ACCUMULATE", "FOREIGN_RULES_PURGED",
    "ROUTE_NOT_RESTORED",
}  # fmt: skip
"""Every code whose cause has a remedy."""


NAMES_FOR_EACH_CASE = 3
"""Hostile names that each case is given; over all cases each name comes many times."""


def hostile(case: ResolvedIntent, device: str, other: str) -> ResolvedIntent:
    names = {name: f"{device}{number}" for number, name in enumerate(DEVICES)}
    names |= {name: f"{other}{number}" for number, name in enumerate(OTHERS)}
    return ResolvedIntent(renamed(case.intent, names), renamed(case.snapshot, names))


def measurements_of(name: str) -> Measurements:
    return MEASURED.get(name, Measurements())


def steps_of(case: ResolvedIntent, measurements: Measurements) -> Iterator[tuple[str, Step]]:
    for cause in causes(case, measurements):
        for step in (*cause.remedy.steps, *cause.remedy.rollback):
            yield cause.code, step


def test_every_code_with_a_remedy_is_among_the_cases() -> None:
    assert {code for name in CASES for code, _step in steps_of(CASES[name](), measurements_of(name))} >= COVERED


@pytest.mark.parametrize("name", CASES)
def test_no_name_reaches_a_shell_unquoted(name: str) -> None:
    plain, measurements = CASES[name](), measurements_of(name)
    start = list(CASES).index(name)
    for number in range(start, start + 4 * NAMES_FOR_EACH_CASE, 4):
        other, device = HOSTILE[number % len(HOSTILE)], DEVICE_HOSTILE[number % len(DEVICE_HOSTILE)]
        names = {known: f"{device}{place}" for place, known in enumerate(DEVICES)}
        changed = hostile(plain, device, other)
        for code, step in steps_of(changed, renamed(measurements, names)):
            if isinstance(step, tuple):
                assert shlex.split(shell_text(step)) == words_of(step), code
            else:
                first = shell_text(step).partition(" <<'")[0]
                assert step.path in shlex.split(first), code
                assert subprocess.run(["/bin/sh", "-n", "-c", shell_text(step)], check=False).returncode == 0, code
