"""How answers look: OpenAI's response bodies and stream chunks, from pieces and results."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from paceline.client.outcome import GenerationResult, Piece, Statistics
from paceline.engine.tokenizer import Tokenizer
from paceline.tokens import TokenId

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: clients skip it, proxies see that the stream lives."""


def event(data: dict[str, Any]) -> bytes:
    """Return one server-sent event. JSON has no bare line ends, so one `data` line is enough."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What all chunks of one answer have in common."""

    kind: Literal["chat", "text"]
    """/v1/chat/completions or /v1/completions."""

    id: str
    created: int
    """Unix time in whole seconds."""

    model: str
    fingerprint: str
    """OpenAI's system_fingerprint: same fingerprint and seed, same text."""

    def first_chunk(self) -> dict[str, Any] | None:
        """Return the chunk that opens a stream; a text has none."""
        if self.kind == "text":
            return None
        return self._chunk({"delta": {"role": "assistant", "content": ""}})

    def piece_chunk(self, text: str, *, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """Return the chunk of one token."""
        part = {"delta": {"content": text}} if self.kind == "chat" else {"text": text}
        return self._chunk(part, logprobs=logprobs)

    def last_chunk(self, result: GenerationResult) -> dict[str, Any]:
        """Return the chunk that says why the answer ends."""
        part: dict[str, Any] = {"delta": {}} if self.kind == "chat" else {"text": ""}
        return self._chunk(part, finish_reason=result.finish_reason.value)

    def usage_chunk(self, result: GenerationResult) -> dict[str, Any]:
        """Return the extra chunk that counts tokens."""
        extra = {"usage": usage(result), "paceline": measured(result)}
        return self._top(chunk=True) | {"choices": []} | extra

    def body(
        self, result: GenerationResult, *, logprobs: Sequence[dict[str, Any]] | None
    ) -> dict[str, Any]:
        """Return the whole answer of a request that is not streamed."""
        part: dict[str, Any] = (
            {"message": {"role": "assistant", "content": result.text, "refusal": None}}
            if self.kind == "chat"
            else {"text": result.text}
        )
        choice = {
            "index": 0,
            **part,
            "logprobs": None if logprobs is None else {"content": list(logprobs), "refusal": None},
            "finish_reason": result.finish_reason.value,
        }
        extra = {"usage": usage(result), "paceline": measured(result)}
        return self._top(chunk=False) | {"choices": [choice]} | extra

    def _chunk(
        self,
        part: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": 0,
            **part,
            "logprobs": None if logprobs is None else {"content": [logprobs], "refusal": None},
            "finish_reason": finish_reason,
        }
        return self._top(chunk=True) | {"choices": [choice]}

    def _top(self, *, chunk: bool) -> dict[str, Any]:
        chat = "chat.completion.chunk" if chunk else "chat.completion"
        return {
            "id": self.id,
            "object": chat if self.kind == "chat" else "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def usage(result: GenerationResult) -> dict[str, int]:
    """Return OpenAI's count of tokens: committed ones only, never rejected drafts."""
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "total_tokens": result.prompt_tokens + result.completion_tokens,
    }


def measured(result: GenerationResult) -> dict[str, Any]:
    """Return our own addition to an answer: its seed and what drafting brought."""
    return {"seed": result.seed, "statistics": statistics(result.statistics)}


def statistics(values: Statistics) -> dict[str, Any]:
    """Return the statistics as JSON: what was counted and what follows from it."""
    ratios = (
        "tokens_per_s",
        "acceptance_rate",
        "acceptance_probability",
        "steps_saved",
        "bytes_per_drafted_token",
        "bytes_per_committed_token",
    )
    return dataclasses.asdict(values) | {name: getattr(values, name) for name in ratios}


def piece_logprobs(piece: Piece, *, num_top: int, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """Return OpenAI's log probabilities of a token and of `num_top` alternatives; none if it has none."""
    if piece.logprobs is None or not piece.token_ids:
        return None
    ranked = zip(piece.logprobs.top_tokens, piece.logprobs.top_logprobs, strict=True)
    top = [_token(token, value, tokenizer) for token, value in list(ranked)[:num_top]]
    token = _token(piece.token_ids[0], piece.logprobs.logprob, tokenizer)
    return token | {"top_logprobs": top}


def _token(token: TokenId, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    text = tokenizer.decode((token,))
    # A token that is a part of a character has no text of its own, and its bytes are lost with it.
    whole = "\ufffd" not in text
    # JSON has no infinity; OpenAI writes -9999 for it.
    value = max(logprob, -9999.0)
    return {"token": text, "logprob": value, "bytes": list(text.encode()) if whole else None}
