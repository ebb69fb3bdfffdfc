"""Trees in virtual time: the client's own, grown from recorded guesses."""

import asyncio
from dataclasses import replace

import pytest

from cloud.scheduler import Schedule, SchedulerSettings
from edge.steering import LengthPolicy
from paceline.client import DraftingSettings
from paceline.drafter import TreeDraft, tokens_of
from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.session.growth import Growth
from paceline.session.pace import Pace
from paceline.session.pipeline import PipelineSettings
from paceline.tokens import TokenId
from simulator.acceptance.chances import RankChances
from simulator.acceptance.recordings import recorded_trace
from simulator.cost import StepCost
from simulator.notation import parse_network
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.machine import Occupation
from simulator.virtual.model import ModelSettings, SimulatedModel
from simulator.virtual.target import ToyTarget
from simulator.virtual.tree_draft import tree_drafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import World, WorldSettings, run

TRACE = recorded_trace("low-bit-4-64")
FORWARD = StepCost(fixed_s=0.004, per_row_s=0.0)
REQUESTS = tuple(
    Request(prompt=(TokenId(5), TokenId(6 + i)), max_tokens=64, seed=i) for i in range(4)
)


VERIFIER = VerifierSettings(model=ModelSettings(cost=StepCost(fixed_s=0.06, per_row_s=0.0005)))
FAR = DraftingSettings(draft_length=32, window=256, tokens_per_message=1)


def duration_s(edge: EdgeSettings) -> float:
    """Virtual seconds of the answers, which are the target's own."""
    settings = WorldSettings(
        edges=(edge,),
        verifiers=(VERIFIER,),
        network=parse_network("rtt=100ms,jitter=5ms"),
    )
    (asked,) = run(settings).asked
    for one in asked:
        assert tuple(one.pieces) == settings.target.run(one.request.prompt, 64)
    return sum(one.statistics.duration_s for one in asked if one.statistics)


@pytest.mark.slow
def test_over_a_long_link_a_tree_is_ahead_of_a_chain_and_that_of_nothing() -> None:
    tree = duration_s(
        EdgeSettings(
            requests=REQUESTS,
            make_drafter=tree_drafter(TRACE, cost=FORWARD),
            drafting=replace(FAR, growth=Growth(floor=0.02)),
        )
    )
    chain = duration_s(
        EdgeSettings(
            requests=REQUESTS,
            draft=DraftSettings(trace=TRACE, cost=FORWARD),
            drafting=FAR,
        )
    )
    nothing = duration_s(EdgeSettings(requests=REQUESTS, draft=None))
    assert tree < 0.9 * chain < 0.8 * nothing


@pytest.mark.slow
def test_an_edge_learns_what_guesses_are_worth_and_follows_a_link_that_steps_away_and_back() -> (
    None
):
    edge = EdgeSettings(
        requests=(Request(prompt=(TokenId(5), TokenId(6)), max_tokens=480, seed=3),),
        make_drafter=tree_drafter(TRACE, cost=FORWARD),
        drafting=replace(FAR, growth=Growth()),
        length_policy=LengthPolicy.MARGINAL,
    )
    near, far = parse_network("rtt=20ms"), parse_network("rtt=200ms")
    settings = WorldSettings(edges=(edge,), verifiers=(VERIFIER,), network=near)
    grown: list[Growth] = []
    took_s: list[float] = []

    async def steps_away_and_back(world: World) -> None:
        one, clock = world.edges[0], asyncio.get_running_loop()
        for number, network in enumerate((near, far, near)):
            world.path(0, 0).change(network)
            await one.has(160 * number + 80)  # by now it has followed
            began_s = clock.time()
            await one.has(160 * number + 158)
            took_s.append(clock.time() - began_s)
            client = one._running
            assert client is not None
            assert client.drafting.growth is not None
            grown.append(client.drafting.growth)

    ((answer,),) = run(settings, script=steps_away_and_back).asked
    assert tuple(answer.pieces) == settings.target.run(answer.request.prompt, 480)
    paces = [growth.pace for growth in grown]
    assert [round(pace.rtt_s, 2) for pace in paces if pace] == [0.02, 0.2, 0.02]
    assert all(0.005 < growth.floor < 0.1 and growth.floor != Growth().floor for growth in grown)
    away, back = took_s[1] / took_s[0], took_s[2] / took_s[0]
    assert away > 1.3, "no tree makes a long way short"
    assert 0.6 < back < 1.25, "the text differs, the link does not"
    assert answer.statistics is not None
    assert answer.statistics.proposal_bytes < 40 * answer.statistics.committed


@pytest.mark.slow
def test_an_edge_that_rows_became_too_dear_for_drafts_again_when_they_are_cheap() -> None:
    edge = EdgeSettings(
        requests=(Request(prompt=(TokenId(5), TokenId(6)), max_tokens=800, seed=3),),
        make_drafter=tree_drafter(TRACE, cost=FORWARD),
        drafting=replace(FAR, growth=Growth()),
        length_policy=LengthPolicy.MARGINAL,
    )
    cheap = VERIFIER.model.cost
    dear = replace(cheap, per_row_s=0.2)
    floors: list[float] = []
    took_s: list[float] = []

    async def dear_for_a_while(world: World) -> None:
        one, clock = world.edges[0], asyncio.get_running_loop()
        await one.has(1)
        life = world.verifiers[0]._life
        assert life is not None
        assert isinstance(life.model, SimulatedModel)
        for cost, followed in ((cheap, 120), (dear, 320), (cheap, 720)):
            life.model._meter._cost = cost
            await one.has(followed)
            began_s = clock.time()
            await one.has(followed + 78)
            took_s.append(clock.time() - began_s)
            client = one._running
            assert client is not None
            assert client.drafting.growth is not None
            floors.append(client.drafting.growth.floor)

    network = parse_network("rtt=50ms")
    obedient = replace(VERIFIER, scheduler=SchedulerSettings(schedule=Schedule.EVEN))
    settings = WorldSettings(edges=(edge,), verifiers=(obedient,), network=network)
    ((answer,),) = run(settings, script=dear_for_a_while).asked
    assert tuple(answer.pieces) == settings.target.run(answer.request.prompt, 800)
    first, worst, last = floors
    assert worst > 4 * first
    assert last < 1.5 * first
    assert took_s[2] < 1.25 * took_s[0], "the text differs, what rows cost does not"


def test_what_waits_for_more_is_still_in_time() -> None:
    """The client tells its session when a forward pass has ended, and so how long there is until the verifier's next step."""
    pace = Pace(rtt_s=0.05, step_s=0.06, forward_s=0.004, slack_s=0.002)
    edge = EdgeSettings(
        requests=REQUESTS[:2],
        make_drafter=tree_drafter(TRACE, cost=FORWARD),
        drafting=replace(FAR, growth=Growth(floor=0.02, pace=pace)),
    )
    network = parse_network("rtt=50ms")
    (asked,) = run(WorldSettings(edges=(edge,), verifiers=(VERIFIER,), network=network)).asked
    found = [one.statistics for one in asked if one.statistics]
    assert sum(one.late for one in found) == 0
    assert sum(one.proposals for one in found) < sum(one.committed for one in found)


def test_nothing_is_late_for_a_verifier_that_waits() -> None:
    """It was asked for patience: what it costs is learned, when it goes on without drafts is not."""
    edge = EdgeSettings(
        requests=(Request(prompt=(TokenId(5), TokenId(6)), max_tokens=48, seed=3),),
        make_drafter=tree_drafter(TRACE, cost=FORWARD),
        drafting=replace(FAR, growth=Growth(), pipeline=PipelineSettings(patience_s=0.3)),
        length_policy=LengthPolicy.MARGINAL,
    )
    settings = WorldSettings(
        edges=(edge,), verifiers=(VERIFIER,), network=parse_network("rtt=100ms")
    )
    grown: list[Growth | None] = []

    async def look(world: World) -> None:
        await world.edges[0].has(46)
        client = world.edges[0]._running
        assert client is not None
        grown.append(client.drafting.growth)

    ((answer,),) = run(settings, script=look).asked
    assert tuple(answer.pieces) == settings.target.run(answer.request.prompt, 48)
    (growth,) = grown
    assert growth is not None
    assert growth.floor != Growth().floor
    assert growth.pace is None


def test_a_tree_drafter_has_what_was_recorded() -> None:
    target, occupation = ToyTarget(), Occupation()
    drafter = tree_drafter(TRACE, cost=FORWARD)(target, occupation)
    draft = drafter.open(prompt_length=2, max_tokens=64, sampling=SamplingSettings(seed=3))
    assert isinstance(draft, TreeDraft)
    text = [TokenId(5), TokenId(6)]
    ranks: list[int] = []
    for _ in range(60):
        right = target.draw(text)
        wrong = TokenId((right + 7) % target.vocabulary_size)
        here, lost = draft.branch(text, [(), (wrong,)], width=4)
        tokens = tokens_of(here)
        assert len(set(tokens)) == len(tokens) == len(lost) == 4
        assert here[0].chance < 1.0
        ranks.append(tokens.index(right) + 1 if right in tokens else 0)
        text.append(right)
    recorded = [text.ranks[:60] for text in TRACE.texts]
    expected = [[rank if rank <= 4 else 0 for rank in one] for one in recorded]
    assert ranks in expected
    assert draft.extend(text, 3)[0] == draft.branch(text, [()], width=1)[0][0].token


def test_chances_are_the_shares_of_the_ranks() -> None:
    chances = RankChances(TRACE, width=4, temperature=0.0)
    sure, unsure = chances.at(12.0), chances.at(0.1)
    assert sure[0] > 0.9 > 0.6 > unsure[0]
    assert unsure[1] > sure[1]
    assert all(sum(one) <= 1.0 for one in (sure, unsure))
    assert len(chances.at(1e6)) == 4, "beyond all that was recorded"


def test_recorded_guesses_say_nothing_of_a_real_models_text() -> None:
    with pytest.raises(ConfigError, match="expected a ToyTarget"):
        tree_drafter(TRACE)(object(), Occupation())  # type: ignore[arg-type]
