"""The text over a real gRPC stream equals a plain loop over a plain model, whatever is drafted."""

import pytest
from harness.event_loop import run_async
from harness.models import VOCABULARY_SIZE, llama_config, tiny_llama, tiny_model
from harness.raw_edge import (
    GREEDY,
    Guess,
    RawEdge,
    RawStream,
    always_wrong,
    dialled,
    edge,
    knows,
    open_request,
    serving,
)
from harness.reference import reference_output

from cloud.scheduler import SchedulerSettings
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

PROMPT = [TokenId(token) for token in (5, 17, 99, 200, 31, 8)]
MAX_TOKENS = 40
COUPLED = SamplingSettings(temperature=0.8, top_p=0.95, frequency_penalty=0.3, seed=1234)
SAMPLINGS = {"greedy": GREEDY, "coupled": COUPLED}


def expected_output(sampling: SamplingSettings) -> list[TokenId]:
    return reference_output(
        tiny_model(llama_config()),
        PROMPT,
        sampling=sampling,
        max_tokens=MAX_TOKENS,
        stop_tokens=(),
        vocabulary_size=VOCABULARY_SIZE,
    )


def generate(
    sampling: SamplingSettings, guess: Guess | None, *, scheduler: SchedulerSettings | None = None
) -> RawEdge:
    async def run() -> RawEdge:
        engine = tiny_llama()
        async with serving(engine, scheduler=scheduler) as verifier, dialled(verifier) as channel:
            request = open_request(engine, PROMPT, max_tokens=MAX_TOKENS, sampling=sampling)
            one = edge(request, guess=guess)
            await one.run(RawStream(channel))
            return one

    return run_async(run())


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("drafter", ["none", "knows", "wrong"])
@pytest.mark.parametrize("race", [True, False])
def test_text_is_the_targets_own(name: str, drafter: str, *, race: bool) -> None:
    sampling = SAMPLINGS[name]
    expected = expected_output(sampling)
    whole = [*PROMPT, *expected]
    guess = {"none": None, "knows": knows(whole), "wrong": always_wrong(whole)}[drafter]
    one = generate(sampling, guess, scheduler=SchedulerSettings(race=race, patience_s=5.0))
    assert one.session.output == expected
    counts = one.session.counts
    if drafter == "knows":
        assert counts.accepted == counts.judged
        # With the race on, the target may be done before any draft arrives.
        assert race or counts.accepted > 0
    if drafter == "wrong":
        assert race or counts.judged > 0
        assert counts.accepted == 0
