"""``./viacheck explain``: where a packet of the agent goes and why, with the kernel's own answer beside the model's."""

from __future__ import annotations

import argparse
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NoReturn

from netns_lab.lab import LabCommandError
from netns_lab.rtnetlink_batch import LabBuildError
from reports.text import escape_unprintable
from viacheck.analysis.explain import Explanation, explain, packet_from
from viacheck.analysis.routing.model import RoutingModel
from viacheck.bundle.reader import BundleUnreadable, read_bundle
from viacheck.host.kernel_route import ask_kernel
from viacheck.host.user_namespace import UserNamespacesForbidden, enter_user_namespace_if_needed
from viacheck.model.intent import IntentError, load_intent
from viacheck.model.snapshot import NetworkState
from viacheck.targets.base import Target
from viacheck.targets.bundle import BundleTarget
from viacheck.targets.open_target import LabUnavailable, open_target
from viacheck.targets.specs import BundleSpec, LocalSpec, SelectionError, TargetSpec, parse_labs

USAGE_ERROR, DISAGREEMENT = 4, 1
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
LARGEST_PORT = 65535
RULES_SHOWN = 40
"""Rules of the packet filter that a person is shown of each hook; JSON has all."""


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"viacheck explain: {escape_unprintable(message)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Arguments(prog="./viacheck explain", description="Where a packet goes, and why.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--lab", help="in this lab")
    where.add_argument("--bundle", metavar="FILE", help="on the host that this bundle was made of")
    where.add_argument("--local", action="store_true", help="on the host that this is started on; needs --site")
    parser.add_argument("--site", help="the intent file, with --local")
    parser.add_argument("--from", dest="sender", default="agent", help="agent (default), host, or an address")
    parser.add_argument("--to", required=True, help="the destination's address")
    parser.add_argument("--proto", choices=PROTOCOLS, help="the protocol (default: any)")
    parser.add_argument("--dport", type=int, help="the destination port, with --proto tcp or udp")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str]) -> int:
    """Explain one packet; returns 0, 1 when model and kernel disagree, or 4 for wrong usage."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        _check(options)
        target = open_target(_spec(options))
    except (SelectionError, BundleUnreadable, UserNamespacesForbidden) as error:
        parser.error(str(error))
    except IntentError as error:
        parser.exit(USAGE_ERROR, "".join(f"viacheck explain: {escape_unprintable(one)}\n" for one in error.mistakes))
    except (LabUnavailable, LabBuildError, LabCommandError) as error:
        sys.stderr.write(f"viacheck explain: {escape_unprintable(str(error))}\n")
        return 1
    try:
        found = explained(target, options.to, options.proto, options.dport, options.sender)
    finally:
        target.close()
    sys.stdout.write(found.model_dump_json(indent=1) + "\n" if options.json else in_words(found))
    return DISAGREEMENT if found.agree is False else 0


def _check(options: argparse.Namespace) -> None:
    """Raises SelectionError for words that do not go together."""
    to = _address("--to", options.to, "")
    if options.sender not in ("agent", "host"):
        sender = _address("--from", options.sender, ", agent, host")
        if sender.version != to.version:
            raise SelectionError(f"--from {sender} and --to {to} are of different families")
    if options.dport is not None and options.proto not in ("tcp", "udp"):
        raise SelectionError("--dport goes with --proto tcp or --proto udp")
    if options.dport is not None and not 1 <= options.dport <= LARGEST_PORT:
        raise SelectionError(f"--dport: {options.dport} is no port; allowed: 1 to {LARGEST_PORT}")
    if options.site and not options.local:
        raise SelectionError("--site goes with --local")


def _address(option: str, text: str, others: str) -> IPv4Address | IPv6Address:
    try:
        found = ip_address(text)
    except ValueError:
        raise SelectionError(f"{option}: {text!r} is no IP address; allowed: an address{others}") from None
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        raise SelectionError(f"{option}: {text!r} names an interface; allowed: an address alone{others}")
    return found


def _spec(options: argparse.Namespace) -> TargetSpec:
    if options.lab:
        labs = parse_labs(options.lab)
        if len(labs) != 1:
            raise SelectionError(f"--lab: explain takes one lab, not {len(labs)}")
        enter_user_namespace_if_needed()
        return labs[0]
    if options.bundle:
        return BundleSpec(read_bundle(Path(options.bundle)))
    if not options.site:
        raise SelectionError("--local needs --site FILE")
    return LocalSpec(load_intent(Path(options.site)), options.site)


def explained(target: Target, to: str, protocol: str | None, dport: int | None, sender: str) -> Explanation:
    """The explanation, with the kernel's own answer beside it."""
    number = PROTOCOLS[protocol] if protocol else None
    found = explain(target.resolved, to, number, dport, sender)
    packet = packet_from(target.resolved, to, number, dport, sender)
    if isinstance(target, BundleTarget):
        return found
    asked = target.agent if found.decided_in == "agent" else target.host
    if asked is None:
        return found
    answer = ask_kernel(asked, packet)
    state = target.snapshot.agent if found.decided_in == "agent" else target.snapshot.host
    model = RoutingModel(state or NetworkState()).decide(packet)
    return found.model_copy(update={"kernel": answer.words, "agree": answer.agrees_with(model)})


def in_words(found: Explanation) -> str:
    """The explanation as lines for a person."""
    lines = [f"{found.question}, decided in the {found.decided_in}'s namespace", ""]
    for number, step in enumerate(found.steps, 1):
        mark = "->" if step.chosen else "  "
        lines.append(f"{mark} {number}. {step.rule}: {step.outcome}")
    lines += ["", f"route      {found.route or 'none'}" + (f" (table {found.table})" if found.table else "")]
    lines += [f"           then: {route}" for route in found.runners_up]
    dropped = found.forward is not None and found.forward.startswith("dropped")
    through_filter = [("forward", found.forward, found.forward_rules), ("NAT", found.nat, found.nat_rules)]
    for name, outcome, rules in through_filter[:1] if dropped else through_filter:
        lines += [f"{name:10} {outcome}"] if outcome else []
        lines += [f"           {number}. {rule}" for number, rule in enumerate(rules[:RULES_SHOWN], 1)]
        lines += [f"           and {len(rules) - RULES_SHOWN} more"] if len(rules) > RULES_SHOWN else []
    if dropped:
        lines.append("on wire    nothing: it is dropped inside the host")
    elif found.outcome == "unicast":
        via = f" via {found.gateway}" if found.gateway else ""
        lines.append(f"on wire    by {found.uplink}{via}, source {found.source_on_wire}")
    else:
        lines.append(f"outcome    {found.outcome}")
    lines += [f"without {name}: {words}" for name, words in found.without.items()]
    if found.kernel is not None:
        verdict = "agrees" if found.agree else "DISAGREES: this is an error of viacheck, please report it"
        lines.append(f"kernel     {found.kernel} ({verdict})")
    return "\n".join(escape_unprintable(line) for line in lines) + "\n"
