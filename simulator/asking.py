"""What the demo asks over HTTP: an edge for answers, the orchestrator for its reasons."""

import asyncio
import itertools

import aiohttp

PROMPTS = (
    "Tell me a story about a river and the people who live on its banks.",
    "Explain step by step how bread is baked.",
    "Write a Python function that sorts a list of names.",
    "List ten animals and say where each of them lives.",
)
ANSWER_S = 600.0
"""Longest time for an answer, in seconds."""
EXPLANATION_S = 10.0
PAUSE_S = 1.0
"""Between two questions, in seconds; people read."""


async def keep_asking(url: str, *, model: str, max_tokens: int) -> None:
    """Ask an OpenAI endpoint one thing after the other until cancelled.

    Args:
        url: of the endpoint, with /v1.
        model: its name there.
        max_tokens: of an answer.

    Raises:
        aiohttp.ClientError: the endpoint is gone.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
        for prompt in itertools.cycle(PROMPTS):
            body = {
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": max_tokens,
            }
            async with session.post(f"{url}/chat/completions", json=body) as response:
                await response.read()
            await asyncio.sleep(PAUSE_S)


async def explained(dashboard: str, edge_id: str) -> str:
    """Return how far the orchestrator told an edge to draft and why, in a sentence.

    What its policy says about verifiers is left out: an edge of the demo stays on its link.

    Raises:
        aiohttp.ClientError: the orchestrator is gone, or knows no such edge.
    """
    timeout = aiohttp.ClientTimeout(total=EXPLANATION_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
        session.get(f"{dashboard}/api/edges/{edge_id}") as response,
    ):
        policy = (await response.json())["policy"]
    if not policy:
        return "nothing: it answered too quickly to plan for it"
    return str(policy["explanation"]).partition(" | ")[0]
