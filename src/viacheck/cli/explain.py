"""``viacheck explain``: shows where a packet of the agent goes and why, with the kernel's answer beside the model's."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from reports.text import escape_unprintable
from viacheck.analysis.explain import Agreement, Explanation, explain
from viacheck.analysis.explanation_text import explanation_json, explanation_lines
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.bundle.reader import read_bundles
from viacheck.cli.command import opened
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.model.site_agents import agent_chosen, load_agents

if TYPE_CHECKING:
    from netns_lab.lab_specs import LabSpec
    from viacheck.targets.local import LocalSpec

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
LARGEST_PORT = 65535


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--lab", metavar="LAB", help="in this lab")
    where.add_argument("--bundle", metavar="FILE", help="on the host of this bundle")
    where.add_argument("--local", action="store_true", help="on this host; needs --site")
    parser.add_argument("--site", metavar="FILE", help="the site file, with --local, --lab blank, or a bundle without")
    parser.add_argument("--agent", metavar="NAME", help="of several agents in the site file, this one")
    parser.add_argument("--from", dest="sender", default="agent", help="agent (default), host, or an address")
    parser.add_argument("--to", required=True, metavar="ADDRESS", help="the destination")
    parser.add_argument("--proto", choices=PROTOCOLS, help="the protocol (default: any)")
    parser.add_argument("--dport", type=int, metavar="PORT", help="the destination port, with --proto tcp or udp")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> ExitStatus:
    """Explain one packet; return FAILED when the model and the kernel disagree.

    Raises:
        UsageError: when options do not go together, or an input is wrong.
        CommandFailed: when a lab cannot be built.
    """
    _check(options)
    explanation = _of_bundle(options) if options.bundle else _of_target(options)
    if options.json:
        sys.stdout.write(json.dumps(explanation_json(explanation), indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(f"{escape_unprintable(line)}\n" for line in explanation_lines(explanation))
    return ExitStatus.FAILED if explanation.agreement is Agreement.DIFFER else ExitStatus.OK


def _check(options: argparse.Namespace) -> None:
    """Check options that depend on each other.

    Raises:
        UsageError: when they do not go together.
    """
    to = _address("--to", options.to, "")
    if options.sender not in ("agent", "host"):
        sender = _address("--from", options.sender, ", agent, host")
        if sender.version != to.version:
            raise UsageError(f"--from {sender} and --to {to} are of different families")
    if options.dport is not None and options.proto not in ("tcp", "udp"):
        raise UsageError("--dport goes with --proto tcp or --proto udp")
    if options.dport is not None and not 1 <= options.dport <= LARGEST_PORT:
        raise UsageError(f"--dport: invalid port {options.dport}; allowed: 1 to {LARGEST_PORT}")


def _address(option: str, text: str, others: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise UsageError(f"{option}: invalid IP address {text!r}; allowed: an address{others}") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise UsageError(f"{option}: {text!r} names an interface; allowed: an address alone{others}")
    return address


def _of_bundle(options: argparse.Namespace) -> Explanation:
    bundles = read_bundles(Path(options.bundle), load_agents(Path(options.site)) if options.site else None)
    chosen = agent_chosen([bundle.agent for bundle in bundles], options.agent, options.bundle)
    bundle = next(bundle for bundle in bundles if bundle.agent == chosen)
    return _explain(ResolvedIntent(bundle.intent, bundle.snapshot), options)


def _of_target(options: argparse.Namespace) -> Explanation:
    """Explain the packet on a lab or on this host, with the kernel's own answer beside the model's."""
    from viacheck.host.kernel_route import ask_kernel

    with opened(_spec(options)) as target:
        explanation = _explain(target.resolved, options)
        namespace = target.agent if explanation.decided_in == "agent" else target.host
        if namespace is None:
            return explanation
        return replace(explanation, kernel=ask_kernel(namespace, explanation.packet))


def _explain(resolved: ResolvedIntent, options: argparse.Namespace) -> Explanation:
    return explain(resolved, options.to, PROTOCOLS.get(options.proto), options.dport, options.sender)


def _spec(options: argparse.Namespace) -> LabSpec | LocalSpec:
    from netns_lab.lab_specs import parse_labs
    from viacheck.host.outer_host import require_access
    from viacheck.host.user_namespace import enter_user_namespace_if_needed
    from viacheck.targets.local import LocalSpec

    if options.lab:
        labs = parse_labs(options.lab, Path(options.site) if options.site else None, options.agent)
        if len(labs) != 1:
            raise UsageError(f"--lab: explain takes one lab, not {len(labs)}")
        enter_user_namespace_if_needed()
        return labs[0]
    if not options.site:
        raise UsageError("--local needs --site FILE")
    require_access(Path(options.site))
    intents = load_agents(Path(options.site))
    chosen = agent_chosen(intents, options.agent, options.site)
    return LocalSpec(intents[chosen], options.site, agent=chosen)
