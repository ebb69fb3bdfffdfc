"""How far chains of drafts get."""

from __future__ import annotations

import numpy as np
import pytest

from edge.distillation.chains import LENGTH, Chains, by_position, count_chains

RANKS = np.array([0, 0, 1, 0, 3, 0, 0, 5, 0, 0])


def counted(is_answer: list[bool] | None = None) -> Chains:
    answers = np.array(is_answer or [True] * len(RANKS))
    return count_chains(RANKS, np.full(len(RANKS), 0.5), answers)


def test_chains_are_counted_from_every_start_that_has_room() -> None:
    found = counted()
    # Starts 0, 1, 2: the likeliest tokens are right for 2, 1 and no places; two of them for 4, 3 and 2; four for all up to the
    # rank of 5 at place 7, that is for 7, 6 and 5.
    assert found.num_starts == 3
    assert found.reached == (
        (2, 1, 0, 0, 0, 0, 0, 0),
        (3, 3, 2, 1, 0, 0, 0, 0),
        (3, 3, 3, 3, 3, 2, 1, 0),
    )
    assert found.tokens_per_round(8) == pytest.approx(1 + 3 / 3)
    assert found.tokens_per_round(1) == pytest.approx(1 + 2 / 3)
    assert found.tokens_per_round(4, width=2) == pytest.approx(1 + 9 / 3)
    assert found.coupled_shares() == pytest.approx(tuple(0.5 ** (n + 1) for n in range(LENGTH)))


def test_a_place_is_judged_only_where_chains_get_to_it() -> None:
    assert by_position(counted().shares()) == [2 / 3, 1 / 2, 0.0, *[None] * 5]
    assert by_position((0.8, 0.4, 0.4)) == pytest.approx([0.8, 0.5, 1.0])
    assert by_position((0.0, 0.0)) == [0.0, None]


def test_a_chain_leaves_no_answer() -> None:
    assert counted([False] + [True] * 9).num_starts == 2
    assert counted([True] * 5 + [False] + [True] * 4) == Chains()
    assert count_chains(RANKS[:7], np.ones(7), np.ones(7, np.bool_)) == Chains()


def test_parts_add_up() -> None:
    both = counted() + counted()
    assert both.num_starts == 6
    assert both.shares(2) == counted().shares(2)
    assert both.coupled == pytest.approx([2 * value for value in counted().coupled])
    assert counted() + Chains() == counted()
    assert Chains().shares() == (0.0,) * LENGTH
