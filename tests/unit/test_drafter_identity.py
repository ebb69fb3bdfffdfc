"""Whatever drafts, the text is the target's own: every drafter on a real verifier, greedy and drawn.

And where drafter and target say the same words, the target's noise makes the drafts come true.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from harness.event_loop import run_async
from harness.models import llama_config, save_tiny, tiny_model
from harness.raw_edge import serving, settled
from harness.reference import reference_output

from cloud.scheduler import SchedulerSettings
from edge.drafters import load_drafter
from paceline import Client
from paceline.client import GenerationResult
from paceline.client.settings import DraftingSettings
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.sampling.settings import SamplingSettings
from paceline.session.growth import Growth
from paceline.tokens import TokenId

COUNT = 40
GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=1.0, seed=77)
PENALISED = SamplingSettings(temperature=0.9, top_p=0.95, repetition_penalty=1.2, seed=78)
WAITING = SchedulerSettings(race=False, patience_s=30.0)
"""The verifier waits for drafts, so that what is accepted does not depend on who is faster."""

CONFIG = llama_config(hidden_size=64, num_hidden_layers=3)

DRAFTS = (
    "suffix",
    "lookup+suffix",
    "suffix+{target}",
    "low-bit:8/16",
    "low-bit:4/32",
    "early-exit:2",
    "common:{target}",
    "text:{target}",
    "hierarchy:suffix+{target}",
    "hierarchy:suffix+early-exit:1+low-bit:8/16",
    "lookup+text:{target}",
    "tree:{target}",
    "tree:early-exit:2",
    "suffix+tree:early-exit:2",
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny(tmp_path_factory.mktemp("target"), config=CONFIG)


@cache
def _expected(
    prompt: tuple[TokenId, ...], stops: tuple[TokenId, ...], sampling: SamplingSettings
) -> tuple[TokenId, ...]:
    return tuple(
        reference_output(
            tiny_model(CONFIG),
            prompt,
            sampling=sampling,
            max_tokens=COUNT,
            stop_tokens=stops,
            vocabulary_size=260,
        )
    )


async def _generate(target: Path, spec: str, samplings: Sequence[SamplingSettings]) -> None:
    tokenizer = load_tokenizer(resolve(str(target)))
    drafter = load_drafter(spec.format(target=target), tokenizer=tokenizer)
    engine = load_model(resolve(str(target)), dtype="float32", tokenizer=tokenizer)
    prompt = tokenizer.encode("one two one two three one two")
    async with serving(engine, scheduler=WAITING) as verifier:
        async with Client(
            verifiers=[verifier.address],
            tokenizer=tokenizer,
            drafter=drafter,
            drafting=DraftingSettings(draft_length=6, growth=Growth() if "tree" in spec else None),
        ) as client:
            for sampling in samplings:
                async with client.generate(
                    prompt_ids=prompt, max_tokens=COUNT, sampling=sampling
                ) as generation:
                    result = await generation.complete()
                assert result.token_ids == _expected(prompt, tokenizer.stop_tokens, sampling)
                _check_acceptance(spec, result)
        await settled(verifier, engine)


def _check_acceptance(spec: str, result: GenerationResult) -> None:
    statistics = result.statistics
    if spec == "hierarchy:suffix+{target}":
        # The target's own weights and noise: nothing is ever refused.
        assert statistics.acceptance_probability == 1.0
        assert statistics.accepted > len(result.token_ids) // 2
    if spec == "low-bit:8/16":
        assert statistics.acceptance_probability > 0.7
    if spec == "early-exit:2":
        assert statistics.judged > 0


@pytest.mark.slow
@pytest.mark.parametrize("spec", DRAFTS)
def test_the_text_is_the_targets_own(target: Path, spec: str) -> None:
    run_async(_generate(target, spec, (GREEDY, NOISY, PENALISED)))
