"""Real tiny models in virtual time: what comes over the network, faults and all, is their own plain decoding."""

from dataclasses import replace

import pytest
from harness.model_world import save_pair, settings_of, trouble
from harness.models import llama_config, tiny_model
from harness.reference import reference_output

from cloud.scheduler import RaceDrafting, SchedulerSettings
from edge.drafters import LOOKUP
from paceline.errors import ConfigError, IncompatibleError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.cost import StepCost
from simulator.virtual.draft import DraftSettings, RealDraftSettings
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.events import EventLog
from simulator.virtual.machine import Occupation
from simulator.virtual.model import ModelSettings
from simulator.virtual.parts import make_drafter
from simulator.virtual.real_draft import RealDrafter
from simulator.virtual.real_target import RealTarget
from simulator.virtual.target import GREEDY, ToyTarget
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return save_pair(tmp_path_factory.mktemp("models"))


def plain(settings: WorldSettings, request: Request) -> tuple[TokenId, ...]:
    return settings.target.run(request.prompt, request.max_tokens, sampling=request.sampling)


@pytest.mark.slow
def test_over_a_cut_and_a_kill_every_text_is_the_models_own(pair: tuple[str, str]) -> None:
    settings = settings_of(pair)
    log = EventLog()
    result = run(settings, script=trouble, log=log)
    assert not result.bugs
    num_judged = num_accepted = 0
    for edge, asked in zip(settings.edges, result.asked, strict=True):
        assert [one.request for one in asked] == list(edge.requests)
        for one in asked:
            assert tuple(one.pieces) == plain(settings, one.request)
            assert one.statistics is not None
            num_judged += one.statistics.judged
            num_accepted += one.statistics.accepted
    # Some guesses are right and some are not, or else this would show less than it seems to.
    assert 0.3 * num_judged < num_accepted < num_judged
    kinds = [event.kind for event in log]
    assert {"cut", "killed"} <= set(kinds)
    assert kinds.count("started") == 5


@pytest.mark.slow
def test_what_ran_before_in_the_process_makes_no_difference(pair: tuple[str, str]) -> None:
    settings = settings_of(pair)
    settings = replace(
        settings, edges=settings.edges[1:], target=RealTarget(model=pair[0], sharing="all")
    )
    logs = []
    for _ in range(2):
        log = EventLog()
        run(settings, log=log)
        logs.append(log.lines())
    assert logs[0] == logs[1]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_plain_decoding_is_that_of_the_plain_model(
    pair: tuple[str, str], temperature: float
) -> None:
    target = RealTarget(model=pair[0])
    sampling = SamplingSettings(temperature=temperature, seed=4)
    prompt = tuple(map(TokenId, range(20, 30)))
    assert list(target.run(prompt, 40, sampling=sampling)) == reference_output(
        tiny_model(llama_config(), seed=5),
        prompt,
        sampling=sampling,
        max_tokens=40,
        stop_tokens=target.tokenizer.stop_tokens,
        vocabulary_size=target.identity.vocabulary_size,
    )


def test_the_time_of_steps_is_what_they_cost_and_not_what_they_took(pair: tuple[str, str]) -> None:
    request = Request(prompt=tuple(map(TokenId, range(10, 30))), max_tokens=20)
    cost = StepCost(fixed_s=100.0, per_row_s=1.0, per_prefill_row_s=0.5)
    settings = WorldSettings(
        edges=(EdgeSettings(requests=(request,), draft=None),),
        verifiers=(
            VerifierSettings(
                model=ModelSettings(cost=cost),
                scheduler=SchedulerSettings(race_drafts=RaceDrafting.OFF),
            ),
        ),
        target=RealTarget(model=pair[0]),
    )
    log = EventLog()
    (asked,) = run(settings, log=log).asked[0]
    assert tuple(asked.pieces) == plain(settings, request)
    took_ns = [dict(event.fields)["took_ns"] for event in log if event.kind == "step"]
    assert took_ns == [110_000_000_000] + [101_000_000_000] * 19


def test_a_long_text_is_prefilled_by_the_draft_in_pieces_that_take_time(
    pair: tuple[str, str],
) -> None:
    occupation = Occupation()
    cost = StepCost(fixed_s=1.0, per_row_s=0.1, per_prefill_row_s=0.001, per_context_token_s=1e-6)
    drafter = RealDrafter(
        RealTarget(model=pair[0]).tokenizer,
        settings=RealDraftSettings(model=pair[1], cost=cost),
        occupation=occupation,
    )
    text = tuple(TokenId(10 + i % 200) for i in range(300))
    draft = drafter.open(prompt_length=300, max_tokens=10, sampling=GREEDY)
    assert drafter.num_open == 1
    spent_s = []
    while draft.prepare(text):
        spent_s.append(occupation.collect_s())
    assert spent_s == pytest.approx([1.128, 1.128128, 1.043256])
    assert len(draft.extend(text, 3)) == 3
    assert occupation.collect_s() == pytest.approx(3 * 1.1 + (299 + 2 * 300) * 1e-6)
    draft.close()
    assert drafter.num_open == 0


def test_prompt_lookup_guesses_for_a_toy_target_too() -> None:
    request = Request(prompt=tuple(map(TokenId, (5, 6, 7, 8) * 4)), max_tokens=20)
    settings = WorldSettings(
        edges=(EdgeSettings(requests=(request,), draft=RealDraftSettings(model=LOOKUP)),),
        verifiers=(VerifierSettings(),),
    )
    (asked,) = run(settings).asked[0]
    assert tuple(asked.pieces) == settings.target.run(request.prompt, 20)
    assert asked.statistics is not None
    assert asked.statistics.judged > 0


def test_drafts_that_do_not_go_with_the_target_are_refused(pair: tuple[str, str]) -> None:
    request = Request(prompt=(TokenId(5),), max_tokens=4)
    with pytest.raises(ConfigError, match="which only a toy target tells it"):
        WorldSettings(
            edges=(EdgeSettings(requests=(request,), draft=DraftSettings()),),
            verifiers=(VerifierSettings(),),
            target=RealTarget(model=pair[0]),
        )
    with pytest.raises(IncompatibleError, match="token ids would mean different words"):
        make_drafter(
            ToyTarget(),
            settings=RealDraftSettings(model=pair[1]),
            occupation=Occupation(),
            tell=None,
        )
