"""Pipelines over a link, in virtual time: the text is the target's, and rounds take what they should."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.model_world import save_pair

from edge.drafters import load_drafter
from paceline.client import DraftingSettings
from paceline.client.outcome import Statistics
from paceline.session.pipeline import FanOut, PipelineName, PipelineSettings
from paceline.tokens import TokenId
from simulator.acceptance.recordings import recorded_trace
from simulator.cost import StepCost
from simulator.notation import parse_network
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.model import ModelSettings
from simulator.virtual.real_target import RealTarget
from simulator.virtual.target import ToyTarget
from simulator.virtual.tree_draft import tree_drafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import World, WorldSettings, run

STEP_S, ROW_S, RTT_S, FORWARD_S, LENGTH = 0.06, 0.0005, 0.1, 0.004, 4
FORWARD = StepCost(fixed_s=FORWARD_S, per_row_s=0.0)
ANSWER_S = RTT_S + STEP_S + (LENGTH + 1) * ROW_S
"""From when a proposal is sent to when it is answered."""


def drafting(name: str, **figures: Any) -> DraftingSettings:
    pipeline = PipelineSettings(name=PipelineName(name), **figures)
    return DraftingSettings(draft_length=LENGTH, tokens_per_message=1, pipeline=pipeline)


def asked(max_tokens: int, *, count: int = 1) -> tuple[Request, ...]:
    return tuple(
        Request(prompt=(TokenId(1), TokenId(2 + i % 3)), max_tokens=max_tokens, seed=i)
        for i in range(count)
    )


def world(*edges: EdgeSettings, network: str = "rtt=100ms", verifiers: int = 1) -> WorldSettings:
    cost = StepCost(fixed_s=STEP_S, per_row_s=ROW_S)
    verifier = VerifierSettings(model=ModelSettings(cost=cost))
    return WorldSettings(
        edges=edges, verifiers=(verifier,) * verifiers, network=parse_network(network)
    )


def answered(settings: WorldSettings) -> list[Statistics]:
    """Statistics of all answers, edge by edge; they are the target's own."""
    result = run(settings)
    assert not result.bugs
    found = []
    for one in (one for edge in result.asked for one in edge):
        length = one.request.max_tokens
        assert tuple(one.pieces) == settings.target.run(one.request.prompt, length)
        assert one.statistics is not None
        found.append(one.statistics)
    return found


@pytest.mark.parametrize(
    ("name", "drafting_s"), [("stop-and-wait", LENGTH * FORWARD_S), ("outcome-cache", 0.0)]
)
def test_a_round_is_drafting_and_an_answer(name: str, drafting_s: float) -> None:
    """With a draft that is always right: a cache has prepared for the answer that accepts everything."""
    num_rounds = 6
    # The prompt's step gives one token, which is the first of the first proposal; the rest of it waits there already.
    most = 1 + LENGTH + (num_rounds - 1) * (LENGTH + 1)
    draft = DraftSettings(cost=FORWARD, acceptance=1.0)
    (one,) = answered(
        world(EdgeSettings(requests=asked(most), draft=draft, drafting=drafting(name)))
    )
    assert one.steps == num_rounds + 1
    assert one.duration_s - one.time_to_first_token_s == pytest.approx(
        STEP_S + LENGTH * ROW_S + (num_rounds - 1) * (drafting_s + ANSWER_S), abs=1e-6
    )
    assert one.answers == num_rounds - 1
    assert one.prepared == (num_rounds - 1 if name == "outcome-cache" else 0)


@pytest.mark.parametrize("name", ["stop-and-wait", "outcome-cache"])
def test_a_draft_that_is_always_wrong_gives_a_token_a_round(name: str) -> None:
    draft = DraftSettings(cost=FORWARD, acceptance=0.0)
    (one,) = answered(world(EdgeSettings(requests=asked(20), draft=draft, drafting=drafting(name))))
    assert one.steps == 20
    assert one.duration_s > 18 * (RTT_S + STEP_S)
    assert one.prepared == one.accepted == 0


def test_pipelines_of_all_kinds_share_a_verifier() -> None:
    """Who waits for drafts does not hold up who does not; who asks for the race is never slower than plain decoding."""
    draft = DraftSettings(cost=FORWARD, acceptance=0.0)
    edges = [
        EdgeSettings(requests=asked(24), draft=draft, drafting=drafting(name))
        for name in ("stop-and-wait", "run-ahead")
    ]
    racing = EdgeSettings(
        requests=asked(24), draft=draft, drafting=drafting("run-ahead", patience_s=0.0)
    )
    plain = EdgeSettings(requests=asked(24), draft=None)
    waiting, ahead, race, without = answered(world(*edges, racing, plain))
    assert waiting.duration_s > 23 * ANSWER_S
    assert ahead.duration_s > 1.5 * race.duration_s
    assert race.duration_s < 1.02 * without.duration_s


def test_patience_ends() -> None:
    """A drafter that takes longer than the verifier waits only loses its drafts."""
    slow = DraftSettings(cost=StepCost(fixed_s=0.4, per_row_s=0.0), acceptance=1.0)
    (one,) = answered(
        world(
            EdgeSettings(
                requests=asked(5),
                draft=slow,
                drafting=drafting("stop-and-wait", patience_s=0.3),
            )
        )
    )
    assert one.duration_s < 1.0 + 5 * (0.3 + STEP_S + ROW_S)


@pytest.mark.slow
def test_preparing_for_answers_saves_the_time_to_draft() -> None:
    """The relation of Saguaro (arXiv 2603.03251): 1 - hits of the drafting is left, and the hits are as published."""
    edge = EdgeSettings(
        requests=asked(64, count=4), make_drafter=tree_drafter(recorded_trace("low-bit-4-64"))
    )

    def seconds_of(settings: DraftingSettings) -> tuple[float, float]:
        found = answered(world(replace(edge, drafting=settings)))
        hits = sum(one.prepared for one in found) / sum(one.answers for one in found)
        return sum(one.duration_s for one in found) / sum(one.steps for one in found), hits

    waiting_s, never = seconds_of(drafting("stop-and-wait"))
    cached_s, hits = seconds_of(drafting("outcome-cache", fan_out=24))
    _, fewer_hits = seconds_of(drafting("outcome-cache", fan_out=8, fan_by=FanOut.EVEN))
    assert never == 0.0
    assert hits > 0.85
    assert hits >= fewer_hits
    assert cached_s == pytest.approx(waiting_s - hits * LENGTH * FORWARD_S, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PipelineName if not name.sends_trees])
def test_a_text_survives_what_happens_to_the_programs(name: str) -> None:
    target = ToyTarget(vocabulary_size=5)  # wrong guesses are right elsewhere
    maker = tree_drafter(recorded_trace("smollm2-135m-draft"), cost=FORWARD)
    edge = EdgeSettings(requests=asked(60, count=2), drafting=drafting(name))
    chain = DraftSettings(cost=FORWARD, acceptance=0.8)
    settings = replace(
        world(
            replace(edge, make_drafter=maker),
            replace(edge, draft=chain),
            network="rtt=60ms,jitter=30ms,loss=2%",
            verifiers=2,
        ),
        target=target,
    )

    async def script(world: World) -> None:
        await world.edges[0].has(20)
        world.verifiers[0].kill()
        await asyncio.sleep(1.0)
        world.verifiers[0].start(world.group)
        await world.edges[1].has(30)
        world.edges[0].kill()
        await asyncio.sleep(0.1)
        world.edges[0].start(world.group)

    result = run(settings, script=script)
    assert not result.bugs
    for edge_asked in result.asked:
        done = [one for one in edge_asked if one.reason is not None]
        assert len(done) == 2
        for one in done:
            assert tuple(one.pieces) == target.run(one.request.prompt, 60)
            assert one.statistics is not None
            assert one.statistics.accepted > 0


@pytest.mark.slow
def test_a_real_model_prepares_for_answers(tmp_path: Path) -> None:
    model, draft = save_pair(tmp_path)
    target = RealTarget(model=model)
    drafter = load_drafter(f"tree:{draft}", tokenizer=target.tokenizer)
    requests = tuple(
        Request(prompt=asked(1)[0].prompt, max_tokens=16, seed=3, temperature=temperature)
        for temperature in (0.0, 0.8)
    )
    edge = EdgeSettings(
        requests=requests,
        make_drafter=lambda *_: drafter,
        drafting=drafting("outcome-cache", fan_out=8),
    )
    result = run(replace(world(edge), target=target))
    assert not result.bugs
    for one in result.asked[0]:
        expected = target.run(one.request.prompt, 16, sampling=one.request.sampling)
        assert tuple(one.pieces) == expected
        assert one.statistics is not None
        assert 0 < one.statistics.prepared <= one.statistics.answers
