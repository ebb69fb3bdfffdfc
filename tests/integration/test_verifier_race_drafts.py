"""What a verifier guesses itself saves steps and changes nothing else: same text, no draft of an edge where there was none."""

import pytest
from harness.event_loop import run_async
from harness.models import VOCABULARY_SIZE, llama_config, tiny_llama, tiny_model
from harness.raw_edge import RawEdge, RawStream, dialled, edge, open_request, serving, settled
from harness.reference import reference_output

from cloud.account import VerifierStatistics
from cloud.scheduler import RaceDrafting, Schedule, SchedulerSettings
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

WORDS = (11, 12, 13, 14, 15)
"""All that the target says here, so that it repeats itself."""
FEW = tuple((TokenId(token), 50.0) for token in WORDS)
SAMPLINGS = {
    "greedy": SamplingSettings(temperature=0.0, logit_bias=FEW),
    "drawn": SamplingSettings(temperature=0.7, logit_bias=FEW, seed=9),
    "penalised": SamplingSettings(temperature=0.7, frequency_penalty=0.2, logit_bias=FEW, seed=4),
}
PROMPT = tuple(TokenId(token) for token in (*WORDS, *WORDS, 99, *WORDS))
MAX_TOKENS = 48


def _served(
    drafting: RaceDrafting, sampling: SamplingSettings
) -> tuple[RawEdge, VerifierStatistics]:
    async def run() -> tuple[RawEdge, VerifierStatistics]:
        engine = tiny_llama()
        # Goodput would verify no guess where a busy machine makes rows look dear.
        scheduler = SchedulerSettings(race_drafts=drafting, schedule=Schedule.EVEN)
        async with serving(engine, scheduler=scheduler) as verifier, dialled(verifier) as channel:
            asked = open_request(
                engine, PROMPT, max_tokens=MAX_TOKENS, sampling=sampling, num_logprobs=2
            )
            one = edge(asked)
            await one.run(RawStream(channel))
            await settled(verifier, engine)
            return one, verifier.statistics

    return run_async(run())


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_text_is_the_same_in_fewer_steps(name: str) -> None:
    sampling = SAMPLINGS[name]
    expected = reference_output(
        tiny_model(llama_config()),
        PROMPT,
        sampling=sampling,
        max_tokens=MAX_TOKENS,
        stop_tokens=(),
        vocabulary_size=VOCABULARY_SIZE,
    )
    steps = {}
    for drafting in RaceDrafting:
        one, statistics = _served(drafting, sampling)
        assert one.session.output == expected
        counts = one.session.counts
        steps[drafting] = counts.steps
        # To the edge they are no drafts: it has sent none.
        assert counts.drafted == counts.judged == counts.accepted == counts.late == 0
        assert not any(any(commit.accepted) for commit in one.commits)
        assert sum(len(commit.logprobs) for commit in one.commits) == MAX_TOKENS
        assert statistics.drafts.judged == statistics.drafts.accepted == 0
        # Every token that a step did not have to be made for was such a guess.
        assert statistics.race_accepted == MAX_TOKENS - counts.steps
        assert statistics.race_accepted <= statistics.race_drafted
    assert steps[RaceDrafting.OFF] == MAX_TOKENS
    assert max(steps[RaceDrafting.LOOKUP], steps[RaceDrafting.SUFFIX]) < 0.9 * MAX_TOKENS
