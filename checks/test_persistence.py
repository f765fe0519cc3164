"""Persistence: rule and route are written down for whatever manages the uplink, and what is written can run twice."""

from __future__ import annotations

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.check import Applies
from viacheck.model.result import CommandEvidence, FileEvidence
from viacheck.persistence.assess import assess_persistence, must_persist
from viacheck.persistence.idempotence import assess_idempotence
from viacheck.persistence.lint import findings_of
from viacheck.persistence.manager_answers import answers_about
from viacheck.persistence.manager_config import OWN_NAMES
from viacheck.persistence.replay_result import Replay

WRITTEN_DOWN = Applies(
    must_persist,
    'no policy routing is intended (egress.table), or it is typed by hand on purpose (egress.persist = "none")',
)


@check(
    "PERSIST-01",
    "Rule and route are written down for whatever manages the uplink",
    guide="NAT, step 6",
    applies=WRITTEN_DOWN,
)
def test_rule_and_route_are_written_down(resolved: ResolvedIntent, expect: Expect) -> None:
    if resolved.agent_source is None:
        expect.not_run("the agent's subnet is not known (HOST-07)")
    persistence = assess_persistence(resolved)
    name = OWN_NAMES[persistence.manager] if persistence.manager else "whatever manages it"
    observed = "; ".join(persistence.missing) or f"{name}: {', '.join(map(str, persistence.places))}"
    unread = [str(problem) for problem in persistence.problems]
    expected = f"rule and route of table {resolved.table} are in the files of what manages {resolved.uplink}"
    expect.holds(
        persistence.holds,
        expected=expected,
        observed="; ".join((observed, *unread, *persistence.differences)),
        evidence=[
            *(FileEvidence(path=place.path, line=place.line, text=place.text) for place in persistence.places),
            *(
                CommandEvidence(command=word.command, exit_code=word.exit_code, stdout=word.said)
                for word in answers_about(resolved.snapshot, persistence.manager, resolved.uplink)
            ),
        ],
    )


@check(
    "PERSIST-02",
    "What is written down can run twice: no duplicate rules, no failed ifup",
    guide="NAT, step 6",
    applies=WRITTEN_DOWN,
)
def test_what_is_written_can_run_twice(resolved: ResolvedIntent, replay: Replay, expect: Expect) -> None:
    if resolved.agent_source is None:
        expect.not_run("the agent's subnet is not known (HOST-07)")
    persistence = assess_persistence(resolved)
    if not persistence.rules and not persistence.routes:
        expect.not_applicable("nothing is written down (PERSIST-01)")
    idempotence = assess_idempotence(findings_of(resolved, persistence), replay())
    expected = "each line can run again with the same result, in the order of a boot"
    if idempotence.holds and idempotence.advice:
        expect.advises(False, expected=expected, observed=idempotence.observed, evidence=idempotence.evidence)
    else:
        expect.holds(idempotence.holds, expected=expected, observed=idempotence.observed, evidence=idempotence.evidence)
