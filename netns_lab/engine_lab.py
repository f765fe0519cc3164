"""The engine flavour of a lab: the same host and uplinks, but a real dockerd makes bridge, NAT and container."""

from __future__ import annotations

from dataclasses import replace

from fixtures.model.intent import Intent, parse_intent
from netns_lab.builder import build
from netns_lab.engine import Engine, EngineFailed
from netns_lab.lab import AGENT_CONTAINER, Lab, LabMachine
from netns_lab.netlink import LabBuildError
from netns_lab.plan import LabPlan, without_agent
from netns_lab.scenarios import AGENT_SUBNET, AGENT_SUBNET6, BRIDGE


def engine_intent(plan: LabPlan) -> Intent:
    """The scenario's intent, with a container in place of the bare namespace."""
    document = plan.intent.as_json()
    document["agent"] = {"container": AGENT_CONTAINER, "attach": {"mode": "nat", "network": "bridge"}}
    return parse_intent(document, source=f"lab engine:{plan.name}")


def build_with_engine(plan: LabPlan) -> Lab:
    """Build a lab, start an engine on its host, and run a container as the agent.

    Raises:
        LabBuildError: when the lab cannot be built or the engine does not start; the message has its last log lines.
    """
    lab = build(replace(without_agent(plan, BRIDGE), intent=engine_intent(plan)))
    settings: dict[str, object] = {}
    if plan.intent.probe.target6 is not None:
        settings = {"ipv6": True, "fixed-cidr-v6": AGENT_SUBNET6}
    try:
        lab.engine = Engine.start(lab.host.namespace, subnet=AGENT_SUBNET, settings=settings)
        lab.engine.run_agent(AGENT_CONTAINER)
        container = lab.engine.agent_namespace(AGENT_CONTAINER)
    except EngineFailed as error:
        lab.close()
        raise LabBuildError(f"lab engine:{plan.name}: {error}") from error
    except BaseException:
        lab.close()
        raise
    lab.agent.namespace.close()
    lab.machines[plan.agent.name] = LabMachine(plan.agent, container)
    return lab
