"""In virtual time: what a bad network does in seconds is tested in a fraction of one, the same in every run."""

from collections.abc import Callable

import pytest

from simulator.testing import VirtualWorld

PROMPT = "Why do riders draft?"


@pytest.mark.network("lte", loss="2%", seed=range(3))  # three networks, three tests
def test_the_text_survives_a_cut(pair: VirtualWorld) -> None:
    asking = pair.edge.submit(PROMPT, max_tokens=64)
    asking.wait_for_tokens(20)
    pair.link.cut()
    pair.wait("2s")
    pair.link.heal()
    answer = asking.answer()
    assert answer.text == pair.target_text(PROMPT, max_tokens=64)
    assert answer.statistics.reconnects == 1
    assert answer.statistics.duration_s > 2.0


@pytest.mark.network(rtt="60ms", jitter="10ms")
def test_another_verifier_takes_over(world: Callable[..., VirtualWorld]) -> None:
    fleet = world(edges=3, verifiers=2)
    asked = [edge.submit(PROMPT) for edge in fleet.edges]
    fleet.after("500ms", fleet.verifier.kill)
    for asking in asked:
        assert asking.answer().text == fleet.target_text(PROMPT)
    assert fleet.now_s < 10.0


@pytest.mark.network("wan")
def test_drafting_further_ahead_pays_on_a_long_way(world: Callable[..., VirtualWorld]) -> None:
    short, long = (world(draft_length=length).edge.ask(PROMPT).statistics for length in (1, 12))
    assert long.tokens_per_s > short.tokens_per_s
    assert long.steps < short.steps  # of the target, for the same text
