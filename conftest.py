"""Makes viacheck's options and fixtures known to pytest, for the checks as for the harness's own tests."""

import pytest

pytest.register_assert_rewrite("fixtures.expect")
pytest_plugins = ["fixtures.checks", "fixtures.plugin"]
