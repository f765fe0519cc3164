"""Exchanges of probes, watched on the host's interfaces and at a lab's far ends, each with a file of its frames."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.host.namespace import Namespace
from viacheck.packets.capture import Watch
from viacheck.packets.evidence import numbers_of
from viacheck.packets.observation import Observation
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Exchange, Prober
from viacheck.packets.tokens import TokenSpace

FAR_END_INTERFACE = "lan0"
LOSS_PROBES = 50
"""Probes of each protocol from which a loss is measured, once an answer is missing."""
LOSS_SPREAD = 0.25
"""The share of the probes' timeout over which the further probes are spread: a burst may be lost by itself."""
_UNSAFE_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9.+-]+")


class WatchedSubject(Protocol):
    """The part of a target that is watched."""

    @property
    def id(self) -> str:
        """The target's id in result.json; capture files are named after it."""

    @property
    def resolved(self) -> ResolvedIntent:
        """The intent, resolved against the snapshot."""

    @property
    def host(self) -> Namespace:
        """The host's network namespace."""

    @property
    def gateways(self) -> Mapping[str, Namespace]:
        """The gateways' network namespaces by uplink; labs only."""


@dataclass(frozen=True, slots=True)
class WatchedExchange:
    """The exchanges of one test, and what was seen of them."""

    exchanges: list[Exchange]
    observation: Observation
    far: Mapping[str, Observation]
    """What each gateway saw."""
    capture: str
    """The path of the frames' file in the report, or why there is no such file."""


class ExchangeWatches:
    """The watches of exchanges that come one after another, from one thread at a time."""

    def __init__(self, subject: WatchedSubject, captures: Path, tokens: TokenSpace) -> None:
        """Open a watch over the host's interfaces, and one over each far end. ``captures`` is the folder for files.

        Raises:
            OSError: EPERM without CAP_NET_RAW.
        """
        self._id, self._captures = subject.id, captures
        self._here = Watch(subject.host, subject.resolved.watchable, tokens)
        self._far: dict[str, Watch] = {}
        try:
            for name, namespace in subject.gateways.items():
                self._far[name] = Watch(namespace, [FAR_END_INTERFACE], tokens)
        except BaseException:
            self.close()
            raise

    def observe(
        self, name: str, requests: Sequence[ProbeRequest], prober: Prober, timeout: float, *, measure_loss: bool = False
    ) -> WatchedExchange:
        """Send and watch, here and at the far ends, and write the frames to a file of their own."""
        with contextlib.ExitStack() as watching:
            far = {gateway: watching.enter_context(watch()) for gateway, watch in self._far.items()}
            with self._here() as here:
                exchanges = prober.send_many(requests, timeout)
                if measure_loss:
                    _measure_loss(exchanges, prober, timeout)
        file = f"{_UNSAFE_IN_FILE_NAMES.sub('-', self._id)}-{name}.pcapng"
        seen_far = {gateway: period.observation for gateway, period in far.items()}
        capture = f"{self._captures.name}/{file}"
        try:
            here.observation.write_capture(str(self._captures / file), numbers_of(exchanges))
        except OSError as error:
            # The frames have been judged from memory: a full disk costs their file, and no verdict.
            capture = f"not written: {error.strerror}"
        return WatchedExchange(exchanges, here.observation, seen_far, capture)

    def close(self) -> None:
        """Close all captures."""
        for watch in (self._here, *self._far.values()):
            watch.close()


def _measure_loss(exchanges: Sequence[Exchange], prober: Prober, timeout: float) -> None:
    """Send further probes where some answers are missing.

    A destination that answers no probe shows no loss, and neither does a missing ICMP error: machines limit their rate.
    """
    answering = {exchange.request.destination for exchange in exchanges if exchange.answered}
    lossy = [
        exchange
        for exchange in exchanges
        if exchange.missing and not exchange.rate_limited and exchange.sent < LOSS_PROBES
        if exchange.request.destination in answering
    ]
    if not lossy:
        return
    requests = [replace(exchange.request, count=LOSS_PROBES - exchange.sent) for exchange in lossy]
    further = prober.send_many(requests, timeout, spread=timeout * LOSS_SPREAD)
    for exchange, more in zip(lossy, further, strict=True):
        exchange.add(more)
