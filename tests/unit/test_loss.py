"""Loss and latency: Wilson's interval, the comparison with the allowed share, quantiles of round trips."""

from __future__ import annotations

import pytest

from viacheck.analysis.loss import latency_figures, latency_text, loss_figure, loss_text, loss_verdict
from viacheck.model.check_evidence import LossVerdict, PacketsEvidence


def packets(lost: int, sent: int) -> PacketsEvidence:
    loss = loss_figure(lost, sent) if lost else None
    return PacketsEvidence(sent=sent, answered=sent - lost, watched=[], sightings=[], loss=loss)


@pytest.mark.parametrize(
    ("lost", "sent", "low", "high"),
    [
        # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_the_interval_is_wilsons(lost: int, sent: int, low: float, high: float) -> None:
    figure = loss_figure(lost, sent)
    assert figure.low == pytest.approx(low, abs=6e-5)
    assert figure.high == pytest.approx(high, abs=6e-5)


@pytest.mark.parametrize(
    ("lost", "sent", "allowed", "verdict"),
    [
        (0, 3, 0.0, LossVerdict.ALLOWED),
        (1, 50, 0.02, LossVerdict.ALLOWED),
        (2, 50, 0.02, LossVerdict.UNDECIDED),
        (17, 50, 0.02, LossVerdict.TOO_MUCH),
        (3, 3, 0.02, LossVerdict.TOO_MUCH),
        (1, 50, 0.0, LossVerdict.TOO_MUCH),
        (50, 50, 1.0, LossVerdict.ALLOWED),
    ],
)
def test_the_interval_decides(lost: int, sent: int, allowed: float, verdict: LossVerdict) -> None:
    assert loss_verdict(packets(lost, sent), allowed) is verdict


def test_a_loss_is_a_figure_with_its_interval() -> None:
    assert loss_text(loss_figure(17, 50)) == "17 of 50 lost: 34 % (95 % interval: 22.4 to 47.8 %)"


def test_latency_is_median_and_95th_percentile() -> None:
    figures = latency_figures([0.004, 0.001, 0.002, 0.003, 0.005])
    assert figures is not None
    assert figures.median == pytest.approx(0.003)
    assert figures.p95 == pytest.approx(0.0048)
    assert latency_text(figures) == "round trip: median 3 ms, 95th percentile 4.8 ms"
    assert latency_figures([]) is None
