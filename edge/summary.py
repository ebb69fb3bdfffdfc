"""One line about a finished answer, and the same as JSON."""

from typing import Any

from edge.endpoint.answer import statistics, usage
from paceline.client.outcome import GenerationResult, Statistics


def summary_line(values: Statistics) -> str:
    """Return speed, acceptance, saved steps, bytes and round trip in one line."""
    parts = [f"{values.tokens_per_s:.1f} tokens/s"]
    if values.drafted:
        parts.append(
            f"acceptance {values.acceptance_probability:.0%} "
            f"({values.accepted} of {values.judged} judged drafts)"
        )
    else:
        parts.append("no drafts")
    parts += [
        f"{values.steps_saved} of {values.committed} steps saved",
        f"{values.bytes_per_committed_token:.1f} bytes/token",
        f"RTT {values.rtt_s * 1000:.1f} ms",
    ]
    if values.reconnects:
        parts.append(f"{values.reconnects} reconnects")
    return " | ".join(parts)


def answer_object(result: GenerationResult, *, name: str) -> dict[str, Any]:
    """Return an answer as `--json` writes it."""
    return {
        "id": name,
        "text": result.text,
        "token_ids": list(result.token_ids),
        "finish_reason": result.finish_reason.value,
        "seed": result.seed,
        "usage": usage(result),
        "statistics": statistics(result.statistics),
    }
