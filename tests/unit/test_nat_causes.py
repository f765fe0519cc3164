"""Causes behind NAT that a snapshot alone shows."""

from __future__ import annotations

from tests.unit.test_remedy import CONTAINER, nat
from viacheck.diagnosis.priority import diagnose
from viacheck.model.docker_state import DockerEngine, DockerNetwork
from viacheck.model.measurements import Measurements


def test_an_internal_network_is_the_cause_and_no_packet_filter_rule_is_offered() -> None:
    network = DockerNetwork(name="bridge", id="1", driver="bridge", internal=True)
    engine = DockerEngine(version="28.0", api_version="1.48", networks=(network,), container=CONTAINER)
    case = nat(engine=engine)
    for check in ("HOST-04", "NAT-02", "EGRESS-01", "EGRESS-05"):
        cause = diagnose(check, case, Measurements())
        assert cause is not None
        assert (cause.code, bool(cause.remedy)) == ("NETWORK_INTERNAL", False)
