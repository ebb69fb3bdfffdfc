"""Which texts a bfloat16 target may write: its own, and those in which two nearly equal tokens go the other way.

A step of one row and a step of many are not computed in the same order, so of two tokens whose scores are nearly the same either may
win. A recorded draft has to know what follows in either case.
"""

import asyncio
import heapq
from dataclasses import dataclass
from itertools import count
from math import exp

from paceline.client.client import Client
from paceline.client.outcome import Piece
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

AT_ONCE = 8
LEAST_CHANCE = 0.02
"""Texts less likely than this are left out."""
SCALE = 0.08
"""By how much logits of this target stray when the shape of the batch changes: a step of bfloat16 is 0.06 or 0.12."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked."""

    prompt: tuple[TokenId, ...]
    sampling: SamplingSettings
    max_tokens: int


async def rehearse(client: Client, question: Question, *, most: int) -> list[tuple[TokenId, ...]]:
    """Return at most `most` outputs, the plain one first and then the likelier ones.

    Args:
        client: its verifier is asked; it drafts nothing.
        question: at a temperature above 0 only the plain output is found, since ties are then of draws, not of logits.
        most: at least 1.
    """
    numbers = count()
    waiting: list[tuple[float, int, tuple[TokenId, ...]]] = [(-1.0, next(numbers), ())]
    found: list[tuple[float, tuple[TokenId, ...]]] = []
    while waiting and len(found) < most:
        room = min(AT_ONCE, most - len(found), len(waiting))
        begins = [heapq.heappop(waiting) for _ in range(room)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_pieces(client, question, begin)) for _, _, begin in begins]
        for (negative, _, begin), task in zip(begins, tasks, strict=True):
            pieces = task.result()
            output = (*begin, *(token for piece in pieces for token in piece.token_ids))
            found.append((-negative, output))
            if question.sampling.temperature > 0.0:
                continue
            for prefix, chance in _forks(begin, pieces):
                if -negative * chance >= LEAST_CHANCE:
                    heapq.heappush(waiting, (negative * chance, next(numbers), prefix))
    ordered = sorted(found, key=lambda one: -one[0])
    return list(dict.fromkeys(output for _, output in ordered))


async def _pieces(client: Client, question: Question, begin: tuple[TokenId, ...]) -> list[Piece]:
    left = question.max_tokens - len(begin)
    if left < 1:
        return []
    async with client.generate(
        prompt_ids=(*question.prompt, *begin),
        max_tokens=left,
        sampling=question.sampling,
        num_logprobs=2,
    ) as generation:
        return [piece async for piece in generation]


def _forks(
    begin: tuple[TokenId, ...], pieces: list[Piece]
) -> list[tuple[tuple[TokenId, ...], float]]:
    """Return where the text may part, each with the chance that it does."""
    text, forks = begin, []
    for piece in pieces:
        for token in piece.token_ids:
            told = piece.logprobs
            if told is not None and len(told.top_tokens) > 1:
                other = next(one for one in told.top_tokens if one != token)
                margin = abs(told.top_logprobs[0] - told.top_logprobs[1])
                forks.append(((*text, other), 0.5 * exp(-margin / SCALE)))
            text = (*text, token)
    return forks
