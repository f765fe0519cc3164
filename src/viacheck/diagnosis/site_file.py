"""Lines of the site file that a diagnosis asks to correct."""

from __future__ import annotations

from viacheck.model.toml_text import toml_key, toml_text

CORRECT_GATEWAY = (
    "correct the gateway in the site file; if the file is right, set the route by hand once its gateway answers"
)
"""The decision where the host's route and the site file name two gateways, and only that of the route answers."""


def gateway_line(uplink: str, gateway: str) -> tuple[str, ...]:
    """Return the lines of the site file that name the gateway of an uplink."""
    return f"[uplinks.{toml_key(uplink)}]", f"gateway = {toml_text(gateway)}"
