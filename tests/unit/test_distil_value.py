"""What a draft is worth: rounds and rates."""

from __future__ import annotations

import pytest

from edge.distillation.speedup import best_rate, tokens_per_round


def test_a_round_yields_what_leviathan_says() -> None:
    assert tokens_per_round(0.5, 3) == 1 + 0.5 + 0.25 + 0.125
    assert tokens_per_round(0.0, 8) == 1.0
    assert tokens_per_round(1.0, 8) == 9.0


def test_drafts_that_never_hit_are_not_made() -> None:
    assert best_rate(0.0, draft_s=0.001, target_s=0.05, rtt_s=0.1).length == 0


def test_the_farther_the_cloud_the_longer_the_chain() -> None:
    lengths = [
        best_rate(0.7, draft_s=0.01, target_s=0.05, rtt_s=rtt_s).length
        for rtt_s in (0.0, 0.05, 0.2, 0.8)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_the_rate_is_tokens_over_time() -> None:
    best = best_rate(0.6, draft_s=0.004, target_s=0.057, rtt_s=0.06)
    round_s = best.length * 0.004 + 0.057 + 0.06
    assert best.tokens_per_s == pytest.approx(best.tokens_per_round / round_s)
