"""Times what a verifier does between two steps: planning, handing out, messages, changing threads.

A real verifier, a process of its own, answers without an edge's drafts over loopback. The time from step to step beyond the
steps themselves, which it tells with each commit, is what the program takes. What it guesses by itself makes several tokens of a step.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from statistics import median

from edge.private_verifier import VerifierSettings, private_verifier
from paceline.client import Client, ConnectionSettings
from paceline.clock import MonotonicClock
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

NUM_TOKENS = 48
ANSWERS = 5
NEVER = -1000.0
"""As a bias: the token is not drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answer without an edge's drafts, as its reader saw it."""

    first_s: float
    """When the first token came, and so the first step had ended."""
    last_s: float
    """When the last one came."""
    num_steps: int
    """At least 2."""
    step_s: float
    """Mean of the verifier's steps, as it told."""

    @property
    def between_s(self) -> float:
        """Time between two steps."""
        period_s = (self.last_s - self.first_s) / (self.num_steps - 1)
        return max(0.0, period_s - self.step_s)


def time_service(
    settings: VerifierSettings, *, tokenizer: Tokenizer, answers: int = ANSWERS
) -> float:
    """Return the seconds between two steps: the middle one of some answers.

    Raises:
        ConfigError: the verifier does not start.
    """
    return asyncio.run(_timed(settings, tokenizer=tokenizer, answers=answers))


async def _timed(settings: VerifierSettings, *, tokenizer: Tokenizer, answers: int) -> float:
    async with private_verifier(settings) as verifier:
        address = await verifier.ready()
        token = ConnectionSettings(token=settings.token)
        # Greedy, and a text that never ends.
        sampling = SamplingSettings(
            temperature=0.0,
            seed=0,
            logit_bias=tuple((stop, NEVER) for stop in sorted(tokenizer.stop_tokens)),
        )
        async with Client(verifiers=(address,), tokenizer=tokenizer, connection=token) as client:
            found = [await _answered(client, sampling) for _ in range(1 + answers)]
    return median(one.between_s for one in found[1:])  # the first one warms up


async def _answered(client: Client, sampling: SamplingSettings) -> Answered:
    clock, arrivals_s = MonotonicClock(), list[float]()
    async with client.generate(
        prompt_ids=(TokenId(1),), max_tokens=NUM_TOKENS, sampling=sampling
    ) as generation:
        async for _ in generation:
            arrivals_s.append(clock.now_s())
    statistics = generation.statistics
    return Answered(
        first_s=arrivals_s[0],
        last_s=arrivals_s[-1],
        num_steps=statistics.steps,
        step_s=statistics.verifier_step_s,
    )
