"""Persistence: the files of the uplink's manager hold the rule and the route, and can be run twice."""

from __future__ import annotations

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.check import Applies
from viacheck.model.check_evidence import CommandEvidence, FileEvidence
from viacheck.persistence.assess import assess_persistence, must_persist
from viacheck.persistence.idempotence import assess_idempotence
from viacheck.persistence.lint import findings_of
from viacheck.persistence.manager_answers import answers_about
from viacheck.persistence.manager_config import OWN_NAMES
from viacheck.persistence.replay_result import Replay

MOST_NAMED = 3
"""Lines that resemble the rule or route, and do not count."""
MUST_PERSIST = Applies(
    must_persist,
    'the intent has no policy routing (egress.table), or does not want it to persist (egress.persist = "none")',
)


@check(
    "PERSIST-01",
    "The files of the uplink's manager hold the agent's rule and route",
    guide="NAT, step 6",
    applies=MUST_PERSIST,
)
def test_the_managers_files_hold_rule_and_route(resolved: ResolvedIntent, expect: Expect) -> None:
    if resolved.agent_source is None:
        expect.not_run("the agent's subnet is not known (HOST-07)")
    persistence = assess_persistence(resolved)
    name = OWN_NAMES[persistence.manager] if persistence.manager else "its manager"
    by = "other files of the host" if persistence.elsewhere else name
    observed = "; ".join(persistence.missing) or f"{by}: {', '.join(map(str, persistence.places))}"
    if persistence.missing:
        observed += "".join(f"; {place}: {reason}" for place, reason in persistence.ineffective[:MOST_NAMED])
    unread = [str(problem) for problem in persistence.problems]
    expected = f"rule and route of table {resolved.table} are in the files of the manager of {resolved.uplink}"
    at_boot = ", ".join(map(str, persistence.at_boot_only))
    late = (f"{at_boot} sets the route at boot, and not when {resolved.uplink} comes up again",) if at_boot else ()
    record = expect.advises if persistence.holds else expect.holds
    record(
        persistence.holds and not at_boot,
        expected=expected,
        observed="; ".join((observed, *late, *unread, *persistence.differences)),
        evidence=[
            *(FileEvidence(path=place.path, line=place.line, text=place.text) for place in persistence.places),
            *(
                CommandEvidence(command=answer.command, exit_code=answer.exit_code, stdout=answer.said)
                for answer in answers_about(resolved.snapshot, persistence.manager, resolved.uplink)
            ),
        ],
    )


@check(
    "PERSIST-02",
    "The agent's rule and route can be set up twice from those files: no duplicate rules, no failed ifup",
    guide="NAT, step 6",
    applies=MUST_PERSIST,
)
def test_the_managers_files_can_run_twice(resolved: ResolvedIntent, replay: Replay, expect: Expect) -> None:
    if resolved.agent_source is None:
        expect.not_run("the agent's subnet is not known (HOST-07)")
    persistence = assess_persistence(resolved)
    if not persistence.rules and not persistence.routes:
        expect.not_applicable("no file of the uplink's manager holds a rule or a route (PERSIST-01)")
    idempotence = assess_idempotence(findings_of(resolved, persistence), replay())
    expected = "each line can run again with the same result, in the order of a boot"
    if idempotence.holds and idempotence.advice:
        expect.advises(False, expected=expected, observed=idempotence.observed, evidence=idempotence.evidence)
    else:
        expect.holds(idempotence.holds, expected=expected, observed=idempotence.observed, evidence=idempotence.evidence)
