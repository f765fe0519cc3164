"""The runner that judges a lab again knows every check, and every fixture that a check has."""

from __future__ import annotations

import inspect

import fixtures.checks
from fixtures.check_runner import ARGUMENTS, CheckRunner
from viacheck.cli.docs import all_checks
from viacheck.installation import CHECKS

FILES = tuple(str(path) for path in sorted(CHECKS.glob("test_*.py")))
SESSION = {"target_tests", "expect"}
"""Fixtures that the runner makes itself for each check."""


def test_every_fixture_of_a_check_is_known() -> None:
    fixture_type = type(fixtures.checks.intent)
    names = {name for name, value in inspect.getmembers(fixtures.checks) if isinstance(value, fixture_type)}
    assert names - SESSION == set(ARGUMENTS)


def test_no_check_is_left_out() -> None:
    ids = [check.id for check in all_checks()]
    functions = CheckRunner(FILES, frozenset(ids))._functions()
    assert sorted(check.id for _function, check in functions) == ids
