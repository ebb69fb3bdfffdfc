"""Trees from end to end: a real client with a tree drafter, a real verifier, gRPC between them."""

import asyncio
from dataclasses import replace

import pytest
import torch
from harness.event_loop import run_async
from harness.models import VOCABULARY_SIZE, llama_config, tiny_llama, tiny_model
from harness.raw_edge import serving, settled
from harness.reference import reference_output
from harness.toy_client import tokenizer

from cloud.scheduler import SchedulerSettings
from edge.drafters import LookupDrafter
from edge.drafters.tree import TreeDrafter
from paceline import Client
from paceline.client import DraftingSettings, GenerationResult
from paceline.engine.engine import Engine
from paceline.sampling.settings import SamplingSettings
from paceline.session.growth import Growth
from paceline.tokens import TokenId

PROMPT = [TokenId(token) for token in (5, 17, 99, 200, 31, 8)]
COUNT = 48
GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=0.8, seed=1234)
TREE = DraftingSettings(draft_length=12, window=64, growth=Growth(width=3, leaves=4, floor=0.001))
WAITING = SchedulerSettings(race=False, patience_s=30.0)


def engine(*, noise: float = 0.0) -> Engine:
    """The target, or a copy of it that is a little off."""
    made = tiny_llama()
    made.identity = replace(made.identity, tokenizer_fingerprint=tokenizer().fingerprint)
    if noise:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in made._model.parameters():
                weight.add_(noise * weight.std() * torch.randn(weight.shape, generator=generator))
    return made


def expected(sampling: SamplingSettings) -> tuple[TokenId, ...]:
    return tuple(
        reference_output(
            tiny_model(llama_config()),
            PROMPT,
            sampling=sampling,
            max_tokens=COUNT,
            stop_tokens=tokenizer().stop_tokens,
            vocabulary_size=VOCABULARY_SIZE,
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, NOISY], ids=["greedy", "noisy"])
@pytest.mark.parametrize("is_racing", [False, True], ids=["waiting", "racing"])
def test_a_tree_changes_no_text(sampling: SamplingSettings, is_racing: bool) -> None:
    async def main() -> GenerationResult:
        target = engine()
        scheduler = SchedulerSettings() if is_racing else WAITING
        drafter = TreeDrafter(engine(noise=0.3), vocabulary_size=VOCABULARY_SIZE)
        async with serving(target, scheduler=scheduler) as served:
            async with Client(
                verifiers=[served.address], tokenizer=tokenizer(), drafter=drafter, drafting=TREE
            ) as client:
                for _ in range(2):  # the second one meets a prefix that is shared
                    async with client.generate(
                        prompt_ids=PROMPT, max_tokens=COUNT, sampling=sampling
                    ) as generation:
                        result = await generation.complete()
            await settled(served, target)
        assert drafter.engine.memory.reserved == 0
        return result

    result = run_async(main())
    assert result.token_ids == expected(sampling)
    if not is_racing:
        statistics = result.statistics
        assert statistics.accepted > 0
        assert statistics.drafted > statistics.judged > statistics.accepted, "a tree has siblings"


@pytest.mark.slow
def test_a_tree_goes_on_after_its_verifier_was_lost() -> None:
    async def main() -> GenerationResult:
        drafter = TreeDrafter(engine(noise=0.3), vocabulary_size=VOCABULARY_SIZE)
        async with (
            serving(engine()) as first,
            serving(engine()) as second,
            Client(
                verifiers=[first.address, second.address],
                tokenizer=tokenizer(),
                drafter=drafter,
                drafting=TREE,
            ) as client,
            client.generate(prompt_ids=PROMPT, max_tokens=COUNT, sampling=NOISY) as generation,
        ):
            async for piece in generation:
                if piece.token_ids:
                    break
            await first.drain(within_s=0.0, hurry=asyncio.Event())
            return await generation.complete()

    assert run_async(main()).token_ids == expected(NOISY)


@pytest.mark.slow
def test_a_drafter_of_chains_makes_chains() -> None:
    async def main() -> GenerationResult:
        async with (
            serving(engine(), scheduler=WAITING) as served,
            Client(
                verifiers=[served.address],
                tokenizer=tokenizer(),
                drafter=LookupDrafter(shortest=1),
                drafting=TREE,
            ) as client,
            client.generate(prompt_ids=PROMPT, max_tokens=COUNT, sampling=GREEDY) as generation,
        ):
            return await generation.complete()

    result = run_async(main())
    assert result.token_ids == expected(GREEDY)
    assert result.statistics.drafted > 0
