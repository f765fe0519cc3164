"""An explanation says what the kernel does, over the random rules and routes of the routing model's own test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.kernel.test_routing_model import CLEAN, Generator, Host
from viacheck.analysis.explain import Agreement, explain
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.host.kernel_route import ask_kernel
from viacheck.model.address_family import Family
from viacheck.model.intent import Intent
from viacheck.model.intent_file import parse_intent
from viacheck.model.snapshot import Snapshot

SETS, PACKETS = 25, 8
"""Sets of rules and routes for each family, and packets for each set."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("explain"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def intent() -> Intent:
    """An agent behind v0, which is to leave by v1."""
    document = {
        "schema": 1,
        "site": {"name": "random"},
        "agent": {"netns": "/run/netns/agent", "attach": {"mode": "nat", "bridge": "v0"}},
        "uplinks": {"v1": {"gateway": "10.1.0.9"}, "v2": {"gateway": "10.2.1.9"}},
        "egress": {"uplink": "v1"},
        "probe": {"target": "198.51.100.1"},
    }
    return parse_intent(document, source="random")


@pytest.mark.parametrize("family", [4, 6])
def test_an_explanation_agrees_with_the_kernel_over_random_tables(host: Host, intent: Intent, family: Family) -> None:
    for seed in range(5000, 5000 + SETS):
        generator = Generator(seed, family)
        for path, value in generator.settings().items():
            host.sysctl(path, value)
        script = [generator.route() for _ in range(20)] + [generator.rule() for _ in range(8)]
        host.batch([*CLEAN, *generator.neighbours(), *script], family)
        state = host.state(family)
        resolved = ResolvedIntent(intent, Snapshot(taken="", hostname="", kernel="", host=state))
        for _ in range(PACKETS):
            asked = generator.packet()
            sender = asked.source if asked.iif and asked.source else "host"
            question = (asked.destination, asked.protocol, asked.dport, sender)
            explanation = explain(resolved, *question)
            decision, answer = explanation.decision, ask_kernel(host.namespace, explanation.packet)
            outcome = f"explained as {decision.outcome} by {explanation.uplink}; kernel: {answer.text}"
            difference = f"{generator.name}: {explanation.packet}: {outcome}"
            agreement = replace(explanation, kernel=answer).agreement
            assert agreement is Agreement.AGREE or decision.refused_exits, difference
            if answer.type == "unicast" and len(decision.interfaces) == 1:
                assert (explanation.uplink, decision.table) == (answer.interface, answer.table), difference
