"""Builds a lab on the kernel of a virtual machine: what the builder makes, then radios, then the plan's commands."""

from __future__ import annotations

from dataclasses import replace

from netns_lab import rtnetlink_batch
from netns_lab.builder import build
from netns_lab.lab import Lab, LabCommandError, closed_on_failure
from netns_lab.plan import LabPlan
from netns_lab.virtual_machine.guest_kernel import kernel_note
from netns_lab.virtual_machine.wireless import WirelessFailed, join_networks


def build_on_own_kernel(plan: LabPlan) -> Lab:
    """Build a lab that has radios and commands.

    Raises:
        LabBuildError: the kernel refuses a part of it, or a station does not join its network.
    """
    lab = build(replace(plan, notes=(*plan.notes, kernel_note())))
    with closed_on_failure(lab, f"lab vm:{plan.name}", WirelessFailed, LabCommandError):
        join_networks(lab)
        for name, argv in plan.commands:
            lab.machines[name].run(*argv)
        for machine in lab.machines.values():
            rtnetlink_batch.settle(machine.namespace, machine.plan.state.links)
    return lab
