"""Random conditions and marks: what a rule draws for a packet (nft ``numgen``, ``jhash``; iptables statistic, HMARK).

The model cannot know what is drawn. It traces the packet once for each outcome, one after the other: ``Draws`` answers
as the outcome at hand says, and splits it at each question that it leaves open.
"""

from __future__ import annotations

from collections.abc import Hashable

MOST_OUTCOMES = 64
"""Outcomes that are traced: a host with more is not evaluated."""
MOST_DRAWS = 32
"""Draws for one packet: the outcomes of more are not traced beyond the first."""
MOST_NUMBERS = 4096
"""The largest modulus of a draw that is followed."""


class Draws:
    """The numbers that are drawn for one packet, in the outcome at hand."""

    def __init__(self) -> None:
        """Begin with the first outcome."""
        self._answers: list[bool] = []
        self._asked = 0
        self._possible: dict[Hashable, frozenset[int]] = {}
        self._most_draws = 0
        self.rules: dict[str, None] = {}
        """The rules that drew, as their tool prints them, in any of the outcomes."""

    def is_drawn(self, draw: Hashable, numbers: frozenset[int], modulus: int, rule: str) -> bool:
        """Return whether one of some numbers is drawn, from 0 up to a modulus.

        Args:
            draw: the draw; questions about the same draw agree.
            numbers: those that are asked for.
            modulus: how many numbers the draw is among.
            rule: the rule that draws, for people.
        """
        possible = self._possible.get(draw, frozenset(range(modulus)))
        if possible <= numbers or not possible & numbers:
            return possible <= numbers
        if self._asked == len(self._answers):
            self._answers.append(True)
        answer = self._answers[self._asked]
        self._asked += 1
        self._most_draws = max(self._most_draws, self._asked)
        self._possible[draw] = possible & numbers if answer else possible - numbers
        self.rules[rule] = None
        return answer

    @property
    def most_outcomes(self) -> int:
        """How many outcomes are traced at most."""
        return MOST_OUTCOMES if self._most_draws <= MOST_DRAWS else 1

    def next_outcome(self) -> bool:
        """Go on to the next outcome; return False when there is no other."""
        while self._answers and not self._answers[-1]:
            self._answers.pop()
        if not self._answers:
            return False
        self._answers[-1] = False
        self._asked, self._possible = 0, {}
        return True
