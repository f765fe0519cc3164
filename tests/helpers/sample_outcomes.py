"""Sample outcomes for the tests of the report: what real runs look like, and what hostile, huge and cut-short ones do.

Every builder returns a fresh RunResult of plain data; nothing here touches a kernel.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Literal

from viacheck.model.check_evidence import (
    CommandEvidence,
    CounterEvidence,
    DecisionEvidence,
    DecisionStep,
    Evidence,
    FarEndEvidence,
    FarEndRecord,
    FileEvidence,
    PacketsEvidence,
    PacketSighting,
    StateEvidence,
    TimelineEvent,
    TimelineEvidence,
    WatchedInterface,
)
from viacheck.model.diagnosis_record import Diagnosis
from viacheck.model.docker_state import Attachment, DockerContainer, DockerEngine, DockerNetwork, IPAMPool
from viacheck.model.filter_chains import FilterChain, FilterRule, PacketFilter
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.result import CheckResult, Run, RunResult, TargetRecord
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import HostFile, Problem, Snapshot
from viacheck.model.verdict import Verdict

PROTOCOLS = ("icmp", "udp", "tcp")
GATEWAYS = {"eth0": "10.10.40.1", "wlan0": "10.10.50.1"}
HOST_ADDRESSES = {"eth0": "10.10.40.9", "wlan0": "10.10.50.9"}
AGENT = "172.17.0.2"
TARGET = "198.51.100.1"

TITLES = {
    "HOST-02": "Every uplink exists, is up, has carrier and an address",
    "HOST-03": "Every uplink's gateway answers ARP on that uplink",
    "HOST-04": "The host forwards IPv4 between the agent's bridge and the uplink",
    "HOST-05": "The agent's subnet overlaps no uplink's subnet and no other route",
    "HOST-06": "The default exit is known, and is what the intent says",
    "HOST-07": "The agent exists and runs, and its network namespace can be opened",
    "NAT-01": "The agent's bridge has no uplink enslaved",
    "NAT-02": "Source NAT covers the agent's subnet on the intended uplink",
    "ROUTE-01": "The routing table's number and name are registered, and clash with none",
    "ROUTE-02": "Exactly one rule sends the agent's subnet to the table",
    "ROUTE-03": "No earlier rule takes the agent's packets first",
    "ROUTE-04": "The table has a default route by the intended gateway and uplink",
    "ROUTE-05": "The kernel's own decision for the agent's packet is that table and uplink",
    "EGRESS-02": "The packets carry the right source address",
    "EGRESS-03": "Answers reach the agent",
    "EGRESS-04": "The host's own packets still leave by the default exit",
    "EGRESS-05": "The agent's DNS queries leave by the intended uplink",
    "EGRESS-06": "Full-size packets get through",
    "EGRESS-07": "The agent's IPv6 packets leave by the intended uplink or not at all",
    "PERSIST-01": "The files of the uplink's manager hold the agent's rule and route",
    "PERSIST-02": "The agent's rule and route can be set up twice from those files",
}
NOT_APPLICABLE = {
    "MACVLAN": "belongs to macvlan; this intent connects the agent by nat",
    "PIPEWORK": "belongs to pipework; this intent connects the agent by nat",
}


def intent(name: str = "berlin-7") -> dict[str, Any]:
    return {
        "schema": 1,
        "site": {"name": name},
        "agent": {"container": "te-agent", "attach": {"mode": "nat", "network": "bridge"}},
        "uplinks": {uplink: {"gateway": gateway} for uplink, gateway in GATEWAYS.items()},
        "egress": {"uplink": "wlan0", "table": 200, "table_name": "wlan0rt"},
        "host": {"default_exit": "eth0"},
        "probe": {"target": TARGET},
    }


def snapshot(*, rule: bool = True, engine: bool = False) -> dict[str, Any]:
    host = NetworkState(
        links=(
            Link(index=1, name="lo", kind=None, flags=("LOOPBACK", "UP", "LOWER_UP"), mtu=65536),
            Link(index=2, name="eth0", flags=("UP", "LOWER_UP"), operstate="UP", mac="02:00:00:00:40:09", kind="veth"),
            Link(index=3, name="wlan0", flags=("UP", "LOWER_UP"), operstate="UP", mac="02:00:00:00:50:09", kind="veth"),
            Link(
                index=4,
                name="docker0",
                flags=("UP", "LOWER_UP"),
                operstate="UP",
                mac="02:42:64:92:ee:32",
                kind="bridge",
            ),
            Link(
                index=6,
                name="veth3f1c",
                flags=("UP", "LOWER_UP"),
                operstate="UP",
                mac="5a:11:0e:8c:77:01",
                kind="veth",
                master="docker0",
            ),
        ),
        addresses=(
            Address(interface="lo", family=4, address="127.0.0.1", prefixlen=8, scope="host"),
            Address(interface="eth0", family=4, address=HOST_ADDRESSES["eth0"], prefixlen=24),
            Address(
                interface="wlan0",
                family=4,
                address=HOST_ADDRESSES["wlan0"],
                prefixlen=24,
                flags=("dynamic",),
                valid_lifetime=3421,
            ),
            Address(interface="docker0", family=4, address="172.17.0.1", prefixlen=16),
        ),
        rules=(
            Rule(family=4, priority=0, table=255),
            *((Rule(family=4, priority=1000, source="172.17.0.0/16", table=200),) if rule else ()),
            Rule(family=4, priority=32766, table=254),
            Rule(family=4, priority=32767, table=253),
            Rule(family=6, priority=0, table=255),
            Rule(family=6, priority=32766, table=254),
        ),
        routes=(
            Route(
                family=4,
                table=254,
                destination="0.0.0.0/0",
                nexthops=(Nexthop(gateway=GATEWAYS["eth0"], interface="eth0"),),
            ),
            Route(
                family=4, table=254, destination="10.10.40.0/24", nexthops=(Nexthop(interface="eth0"),), scope="link"
            ),
            Route(
                family=4, table=254, destination="10.10.50.0/24", nexthops=(Nexthop(interface="wlan0"),), scope="link"
            ),
            Route(
                family=4, table=254, destination="172.17.0.0/16", nexthops=(Nexthop(interface="docker0"),), scope="link"
            ),
            Route(
                family=4,
                table=200,
                destination="0.0.0.0/0",
                nexthops=(Nexthop(gateway=GATEWAYS["wlan0"], interface="wlan0"),),
            ),
        ),
        sysctls={
            "net/ipv4/ip_forward": "1",
            "net/ipv4/conf/all/rp_filter": "0",
            "net/ipv4/conf/wlan0/rp_filter": "2",
            "net/ipv4/conf/wlan0/forwarding": "1",
        },
        packet_filter=PacketFilter(
            read_with=("netlink",),
            chains=(
                FilterChain(
                    backend="nft",
                    family="ip",
                    table="nat",
                    name="POSTROUTING",
                    type="nat",
                    hook="postrouting",
                    priority=100,
                    policy="accept",
                    rules=(
                        FilterRule(
                            verdict="masquerade",
                            packets=9,
                            text='ip saddr 172.17.0.0/16 oifname != "docker0" masquerade',
                        ),
                    ),
                ),
            ),
        ),
    )
    agent = NetworkState(
        links=(Link(index=5, name="eth0", flags=("UP", "LOWER_UP"), operstate="UP", mac="02:42:ac:11:00:02"),),
        addresses=(Address(interface="eth0", family=4, address=AGENT, prefixlen=16),),
        routes=(
            Route(
                family=4,
                table=254,
                destination="0.0.0.0/0",
                nexthops=(Nexthop(gateway="172.17.0.1", interface="eth0"),),
            ),
        ),
    )
    docker = DockerEngine(
        version="20.10.24",
        api_version="1.41",
        networks=(
            DockerNetwork(
                name="bridge",
                id="9f",
                driver="bridge",
                bridge="docker0",
                pools=(IPAMPool(subnet="172.17.0.0/16", gateway="172.17.0.1"),),
            ),
            DockerNetwork(name="none", id="aa", driver="null"),
        ),
        container=DockerContainer(
            name="te-agent",
            id="09cdc2734260",
            running=True,
            pid=4711,
            image="agent:latest",
            network_mode="default",
            restart_policy="unless-stopped",
            attachments=(Attachment(network="bridge", address=AGENT, prefixlen=16, gateway="172.17.0.1"),),
        ),
    )
    files = (
        HostFile(
            path="/etc/iproute2/rt_tables", exists=True, text="255\tlocal\n254\tmain\n253\tdefault\n200\twlan0rt\n"
        ),
        HostFile(
            path="/etc/network/interfaces",
            exists=True,
            text="auto wlan0\niface wlan0 inet dhcp\n    post-up ip rule add from 172.17.0.0/16 lookup wlan0rt\n",
        ),
        HostFile(path="/etc/netplan", exists=False),
    )
    taken = Snapshot(
        taken="2025-03-04T02:11:08+01:00",
        hostname="berlin-7",
        kernel="6.18.0",
        host=host,
        agent=agent,
        engine=docker if engine else None,
        files=files,
        problems=(Problem(what="engine", reason="no Docker engine was asked for", missing="docker"),)
        if not engine
        else (),
    )
    loaded: dict[str, Any] = json.loads(json.dumps(asdict(taken)))
    return loaded


def packets(protocol: str, uplink: str, *, count: int = 3, answered: int | None = None) -> PacketsEvidence:
    sightings = []
    for probe in range(1, count + 1):
        sent = (probe - 1) * 0.0021
        sightings += [
            _sighting(sent + 0.000031, "docker0", "in", probe, "probe", protocol, AGENT, TARGET),
            _sighting(sent + 0.000052, uplink, "out", probe, "probe", protocol, HOST_ADDRESSES[uplink], TARGET),
            _sighting(sent + 0.000411, uplink, "in", probe, "answer", protocol, TARGET, HOST_ADDRESSES[uplink]),
        ]
    return PacketsEvidence(
        title=protocol,
        sent=count,
        answered=count if answered is None else answered,
        watched=[
            WatchedInterface(
                interface=name,
                state="up",
                fence_seen=True,
                frames_lost=0,
                frames=sum(one.interface == name for one in sightings),
            )
            for name in ("docker0", "eth0", "wlan0")
        ],
        sightings=sightings,
        capture=f"captures/lab_EGRESS-01_{protocol}.pcapng",
    )


def _sighting(
    time: float,
    interface: str,
    direction: Literal["in", "out"],
    probe: int,
    role: Literal["probe", "answer"],
    protocol: str,
    source: str,
    destination: str,
) -> PacketSighting:
    return PacketSighting(
        time=time,
        interface=interface,
        direction=direction,
        probe=probe,
        role=role,
        protocol=protocol,
        source=source,
        destination=destination,
        source_mac="02:42:ac:11:00:02",
        destination_mac="02:00:00:00:50:01",
        length=74,
    )


def decision(chosen_table: int) -> DecisionEvidence:
    exits = {200: "default via 10.10.50.1 dev wlan0", 254: "default via 10.10.40.1 dev eth0"}
    steps = [DecisionStep(rule="priority 0 from all lookup local", outcome="table 255: no route to 198.51.100.1")]
    if chosen_table == 200:
        rule = "priority 1000 from 172.17.0.0/16 lookup 200"
    else:
        rule = "priority 32766 from all lookup main"
    steps.append(DecisionStep(rule=rule, outcome=f"table {chosen_table}: {exits[chosen_table]}", chosen=True))
    return DecisionEvidence(
        question=f"Where does a packet from {AGENT} to {TARGET} that came in by docker0 go?",
        steps=steps,
        model=f"table {chosen_table}, {exits[chosen_table]}",
        kernel=f"table {chosen_table}, {exits[chosen_table]}",
        agree=True,
    )


def _result(
    target: str,
    check: str,
    verdict: Verdict = Verdict.PASS,
    *,
    case: str | None = None,
    title: str = "",
    expected: str = "",
    observed: str = "",
    diagnosis: Diagnosis | None = None,
    evidence: list[Evidence] | None = None,
) -> CheckResult:
    return CheckResult(
        check=check,
        target=target,
        case=case,
        title=title or TITLES.get(check, check),
        verdict=verdict,
        expected=expected,
        observed=observed or "as expected",
        seconds=0.004,
        diagnosis=diagnosis,
        evidence=evidence or [],
    )


def egress(
    target: str, uplink: str = "wlan0", verdict: Verdict = Verdict.PASS, reported_by: str | None = None
) -> list[CheckResult]:
    diagnosis = (
        Diagnosis(code="RULE_MISSING", cause="No rule sends the agent's subnet to table 200.", reported_by=reported_by)
        if reported_by
        else None
    )
    return [
        _result(
            target,
            "EGRESS-01",
            verdict,
            case=protocol,
            title="The agent's packets leave by the intended uplink, and by no other",
            expected="3 of 3 probes leave by wlan0, none elsewhere",
            observed=f"3 of 3 probes left by {uplink}",
            diagnosis=diagnosis,
            evidence=[
                packets(protocol, uplink),
                FarEndEvidence(
                    records=[
                        FarEndRecord(
                            gateway=GATEWAYS[uplink], protocol=protocol, source=HOST_ADDRESSES[uplink], probe=number
                        )
                        for number in (1, 2, 3)
                    ]
                ),
            ],
        )
        for protocol in PROTOCOLS
    ]


def advisories(target: str) -> list[CheckResult]:
    return [
        _result(
            target,
            "ROUTE-06",
            Verdict.ADVISORY,
            title="The agent still reaches its bridge's gateway and the uplinks' own networks",
            expected="172.17.0.1 and 10.10.40.0/24 are reached directly",
            observed="both go to 10.10.50.1 by wlan0: table 200 has a default route only",
            diagnosis=Diagnosis(
                code="LOCAL_NETS_LOST",
                cause="Table 200 holds nothing but a default route, so packets to local networks leave by wlan0 too.",
                remedy=["ip rule add priority 990 from 172.17.0.0/16 lookup main suppress_prefixlength 0"],
                undo=["ip rule del priority 990"],
            ),
            evidence=[decision(200)],
        ),
        _result(
            target,
            "ROUTE-07",
            Verdict.ADVISORY,
            title="While the uplink is down, the agent's packets have no other route out (it fails closed)",
            expected="without wlan0 no route is found",
            observed="without wlan0 the main table's default by eth0 is found",
            diagnosis=Diagnosis(
                code="FAIL_OPEN",
                cause="With wlan0 away, table 200 is empty and the agent's packets go out of eth0.",
                remedy=["ip route replace unreachable default metric 4278198272 table 200"],
                undo=["ip route del unreachable default metric 4278198272 table 200"],
            ),
        ),
    ]


def unlooked(target: str) -> list[CheckResult]:
    flap = [
        _result(target, f"FLAP-0{n}", Verdict.NOT_RUN, observed="it changes the target: --allow-disruptive")
        for n in range(1, 9)
    ]
    docker = [_result(target, "HOST-01", Verdict.NOT_RUN, observed="it needs a Docker engine")]
    other = [
        _result(target, f"{chapter}-0{n}", Verdict.NOT_APPLICABLE, observed=why)
        for chapter, why in NOT_APPLICABLE.items()
        for n in range(1, 6)
    ]
    return docker + flap + other


def _healthy_results(target: str) -> list[CheckResult]:
    plain = [_result(target, check, observed="shown by the snapshot") for check in TITLES if check != "ROUTE-05"]
    kernel = _result(
        target,
        "ROUTE-05",
        expected="table 200, wlan0",
        observed="table 200: default via 10.10.50.1 dev wlan0",
        evidence=[
            decision(200),
            CommandEvidence(
                command="ip -j route get 198.51.100.1 from 172.17.0.2 iif docker0",
                exit_code=0,
                stdout='[{"dst":"198.51.100.1","from":"172.17.0.2","gateway":"10.10.50.1","dev":"wlan0"}]',
            ),
        ],
    )
    return [*plain, kernel, *egress(target), *advisories(target), *unlooked(target)]


def _target(name: str, verdict: Literal["pass", "fail", "inconclusive"] = "pass", **more: Any) -> TargetRecord:
    values: dict[str, Any] = {
        "kind": "lab",
        "flavour": "netns",
        "title": "NAT, host with multiple physical interfaces",
        "intent": intent(),
        "snapshot": snapshot(),
    } | more
    return TargetRecord(id=name, verdict=verdict, **values)


def _outcome(targets: list[TargetRecord], results: list[CheckResult], **more: Any) -> RunResult:
    run = Run(
        id="2025-03-04T021107-5b1e",
        started="2025-03-04T02:11:07+01:00",
        finished="2025-03-04T02:11:09.250000+01:00",
        command="./viacheck " + " ".join(f"--lab {target.id.removeprefix('lab:')}" for target in targets[:1]),
        versions={"viacheck": "0.1.0", "python": "3.11.7", "kernel": "6.18.0"},
        **more,
    )
    return RunResult(run=run, targets=targets, results=results)


def healthy() -> RunResult:
    """The guide's own recipe: its packets go right, and two things will hurt."""
    name = "lab:policy-routing"
    return _outcome([_target(name)], _healthy_results(name))


def rule_missing() -> RunResult:
    """The rule is gone: one cause, and every check that it takes along."""
    name = "lab:policy-routing+rule-missing"
    followers = {
        "ROUTE-05": "table 254: default via 10.10.40.1 dev eth0",
        "EGRESS-02": "source 10.10.40.9, which is eth0's address",
    }
    cause = "No rule sends the agent's subnet 172.17.0.0/16 to table 200, so the main table decides."
    results = [result for result in _healthy_results(name) if result.check not in ("EGRESS-01", "ROUTE-02", *followers)]
    results += [
        _result(
            name,
            "ROUTE-02",
            Verdict.FAIL,
            expected="one rule: from 172.17.0.0/16 lookup 200",
            observed="no rule of 4 looks up table 200",
            diagnosis=Diagnosis(
                code="RULE_MISSING",
                cause=cause,
                remedy=["ip rule add priority 1000 from 172.17.0.0/16 lookup 200", "ip route flush cache"],
                undo=["ip rule del priority 1000 from 172.17.0.0/16 lookup 200"],
            ),
            evidence=[
                StateEvidence(
                    title="Rules of the host",
                    lines=["0: from all lookup local", "32766: from all lookup main", "32767: from all lookup default"],
                ),
                FileEvidence(
                    path="/etc/network/interfaces",
                    line=3,
                    text="    post-up ip rule add from 172.17.0.0/16 lookup wlan0rt",
                ),
                CounterEvidence(name="IpForwDatagrams", before=120, after=129),
            ],
        ),
        *(
            _result(
                name,
                check,
                Verdict.FAIL,
                expected="table 200, wlan0",
                observed=observed,
                diagnosis=Diagnosis(code="RULE_MISSING", cause=cause, reported_by="ROUTE-02"),
                evidence=[decision(254)] if check == "ROUTE-05" else [],
            )
            for check, observed in followers.items()
        ),
        *egress(name, "eth0", Verdict.FAIL, reported_by="ROUTE-02"),
    ]
    return _outcome([_target(name, "fail", snapshot=snapshot(rule=False))], results)


def unproven() -> RunResult:
    """The watching lost frames: nothing is proven, whatever was seen."""
    name = "local"
    results = [result for result in _healthy_results(name) if result.check != "EGRESS-01"]
    for result in egress(name, verdict=Verdict.INCONCLUSIVE):
        result.observed = "the capture on eth0 lost 41 frames, so it cannot be said that no probe left there"
        evidence = result.evidence[0]
        assert isinstance(evidence, PacketsEvidence)
        evidence.watched[1].frames_lost = 41
        evidence.watched[1].fence_seen = False
        results.append(result)
    record = _target(name, "inconclusive", kind="local", flavour=None, title="", snapshot=snapshot(engine=True))
    return _outcome([record], results)


def timeline(target: str) -> CheckResult:
    events = [
        TimelineEvent(time=0.0, lane="probes", what="probe 1 left by wlan0", mark="probe"),
        TimelineEvent(time=0.1, lane="wlan0", what="set down", mark="event"),
        TimelineEvent(time=0.1009, lane="eth0", what="probe 2 left by eth0", mark="leak"),
        TimelineEvent(time=0.6, lane="wlan0", what="set up", mark="event"),
        TimelineEvent(time=0.61, lane="rules", what="rule from 172.17.0.0/16 still there", mark="state"),
    ]
    return _result(
        target,
        "FLAP-06",
        Verdict.ADVISORY,
        title="While the uplink is down, none of the agent's packets leaks by another interface",
        expected="no probe on eth0 while wlan0 is away",
        observed="1 probe leaked by eth0 for 0.5 s",
        diagnosis=Diagnosis(
            code="LEAK_WHILE_DOWN", cause="With wlan0 down the agent's packets left by eth0 for 0.5 s."
        ),
        evidence=[TimelineEvidence(title="wlan0 down and up", events=events)],
    )


def many(count: int = 4) -> RunResult:
    """Several healthy labs, one of them with an engine in it."""
    names = [f"lab:policy-routing-{number}" for number in range(1, count)] + ["lab:engine:policy-routing"]
    targets = [_target(name) for name in names[:-1]]
    targets.append(_target(names[-1], flavour="engine", snapshot=snapshot(engine=True)))
    return _outcome(targets, [result for name in names for result in _healthy_results(name)])


def mixed() -> RunResult:
    """Several labs, one failing, one unproven, one that leaked through a flap."""
    parts = [healthy(), rule_missing(), unproven()]
    targets = [target for part in parts for target in part.targets]
    results = [result for part in parts for result in part.results]
    flap = [result for result in results if (result.check, result.target) == ("FLAP-06", targets[0].id)]
    results[results.index(flap[0])] = timeline(targets[0].id)
    return _outcome(targets, results)


HOSTILE = "<b>\x1b[2J\u202eevil\x07"
"""Markup, a terminal escape, a bidi override and a bell, in the form of a name."""


def hostile() -> RunResult:
    """Names from outside that would like to be obeyed."""
    outcome = rule_missing()
    target = outcome.targets[0]
    target.id = f"lab:{HOSTILE}</title><script>alert(1)</script>"
    target.title = HOSTILE
    target.notes = [f"\x1b]0;owned\x07 {HOSTILE}"]
    target.intent["agent"]["container"] = HOSTILE
    target.intent["uplinks"][HOSTILE] = {"gateway": '"><img src=x onerror=alert(1)>'}
    assert target.snapshot is not None
    target.snapshot["hostname"] = '"><svg onload=alert(1)>'
    target.snapshot["host"]["links"][1]["name"] = HOSTILE
    target.snapshot["host"]["sysctls"][HOSTILE] = "{{ 7 * 7 }}\x9b31m"
    target.snapshot["files"][1]["text"] += "</pre><script>alert(2)</script>\u2066\u200b"
    for result in outcome.results:
        result.target = target.id
        result.observed += f" {HOSTILE}"
        if result.diagnosis:
            result.diagnosis.cause += f" {HOSTILE}"
            result.diagnosis.remedy = [f"ip link set dev '{HOSTILE}' up" for _ in result.diagnosis.remedy]
        for evidence in result.evidence:
            if isinstance(evidence, PacketsEvidence):
                evidence.capture = "javascript:alert(3)"
                for one in evidence.sightings:
                    one.note = HOSTILE
    return outcome


def huge(rules: int = 10_000, routes: int = 100_000) -> RunResult:
    """A host with very many rules and routes, and checks with very much evidence."""
    outcome = rule_missing()
    state = outcome.targets[0].snapshot
    assert state is not None
    state["host"]["rules"] += [
        {"family": 4, "priority": 2000 + number, "source": f"10.{number >> 8}.{number & 255}.0/24", "table": 300}
        for number in range(rules)
    ]
    state["host"]["routes"] += [
        {
            "family": 4,
            "table": 254,
            "destination": f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32",
            "nexthops": [{"gateway": "10.10.40.1", "interface": "eth0"}],
        }
        for number in range(routes)
    ]
    # Every result has the same evidence: it is not built for each.
    evidence: list[Evidence] = [
        CommandEvidence(command="ip rule", exit_code=0, stdout="0: from all lookup local\n" * 40_000),
        packets("udp", "eth0", count=2_000),
    ]
    for result in outcome.results:
        result.evidence += evidence
    return outcome


def interrupted() -> RunResult:
    """A run that was cut short between two labs."""
    outcome = healthy()
    outcome.run.interrupted = "SIGINT"
    outcome.targets.append(
        TargetRecord(
            id="lab:macvlan",
            kind="lab",
            flavour="netns",
            verdict="inconclusive",
            intent={},
            notes=["the run was cut short before this lab was built"],
        )
    )
    return outcome


def nothing_decided() -> RunResult:
    """A target where no check could be judged."""
    name = "bundle:case.tar.gz"
    results = [
        _result(name, check, Verdict.NOT_RUN, observed="a saved snapshot cannot be probed")
        for check in ("EGRESS-01", "HOST-03")
    ]
    return _outcome([_target(name, "inconclusive", kind="bundle", flavour=None)], results)


SAMPLES = {
    "healthy": healthy,
    "rule-missing": rule_missing,
    "unproven": unproven,
    "many": many,
    "mixed": mixed,
    "hostile": hostile,
    "huge": huge,
    "interrupted": interrupted,
    "nothing-decided": nothing_decided,
}
