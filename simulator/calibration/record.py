"""Records how drafts guess the target's own text: first the target writes, then each draft reads along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edge.drafters.lookup import LookupDrafter
from paceline.engine.engine import Engine
from paceline.engine.rows import RowGroup
from paceline.engine.sequence import CacheSequence
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError
from paceline.prompts import PromptLine
from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId
from simulator.acceptance.guess_trace import MOST_RANKS, Confidence, GuessedText

LOGITS = Confidence(unit="logits", step=0.0625)
TOKENS = Confidence(unit="tokens", step=1.0)
BATCH = 8
"""Answers that are written at once."""
PREFILL_ROWS = 256
READ_ROWS = 64
"""Rows of which logits are held at once."""

Advance = Callable[[], None]
"""Told of each answer that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnText:
    """What the target wrote."""

    line: PromptLine
    prompt: tuple[TokenId, ...]
    output: tuple[TokenId, ...]
    sampling: SamplingSettings
    ended: bool
    """By a stop token, which is the last of `output`."""


def write_texts(
    engine: Engine,
    tokenizer: Tokenizer,
    lines: Sequence[PromptLine],
    *,
    sampling: SamplingSettings,
    max_tokens: int,
    advance: Advance = lambda: None,
) -> list[OwnText]:
    """Let the target answer every prompt.

    Raises:
        ConfigError: a prompt does not fit the model's context; names it.
    """
    prompts = [_encoded(tokenizer, line) for line in lines]
    for line, prompt in zip(lines, prompts, strict=True):
        if len(prompt) + max_tokens > engine.identity.context_length:
            raise ConfigError(
                f"--prompts: {line.name} has {len(prompt)} tokens; with {max_tokens} more that is beyond the context of "
                f"{engine.identity.name}, {engine.identity.context_length}"
            )
    texts = []
    for first in range(0, len(lines), BATCH):
        part = prompts[first : first + BATCH]
        outputs = _answers(engine, tokenizer, part, sampling=sampling, max_tokens=max_tokens)
        for line, prompt, output in zip(lines[first:], part, outputs, strict=False):
            ended = output[-1] in tokenizer.stop_tokens
            texts.append(
                OwnText(line=line, prompt=prompt, output=output, sampling=sampling, ended=ended)
            )
            advance()
    return texts


def read_along(
    engine: Engine, texts: Sequence[OwnText], *, advance: Advance = lambda: None
) -> tuple[GuessedText, ...]:
    """Return how a draft model ranks every token of the target's texts.

    A text that is longer than the draft's context is left out, as the edge does not draft there.
    """
    guessed = []
    for text in texts:
        if len(text.prompt) + len(text.output) <= engine.identity.context_length:
            ranks, confidence = _ranked(engine, text)
            guessed.append(_guessed(text, ranks, confidence))
        advance()
    return tuple(guessed)


def look_along(
    texts: Sequence[OwnText], *, advance: Advance = lambda: None
) -> tuple[GuessedText, ...]:
    """Return how prompt lookup guesses every token of the target's texts.

    Its confidence is how many tokens it would guess in a row from there; it goes by the length of the match.
    """
    guessed = []
    for text in texts:
        draft = LookupDrafter().open(
            prompt_length=len(text.prompt), max_tokens=len(text.output), sampling=text.sampling
        )
        ranks, confidence = bytearray(), bytearray()
        for index, token in enumerate(text.output):
            guesses = draft.extend((*text.prompt, *text.output[:index]), MOST_RANKS)
            ranks.append(int(bool(guesses) and guesses[0] == token))
            confidence.append(TOKENS.byte(len(guesses)))
        guessed.append(_guessed(text, bytes(ranks), bytes(confidence)))
        advance()
    return tuple(guessed)


def _encoded(tokenizer: Tokenizer, line: PromptLine) -> tuple[TokenId, ...]:
    if not tokenizer.has_chat_template:
        return tokenizer.encode("\n".join(message.content for message in line.messages))
    messages = [{"role": each.role, "content": each.content} for each in line.messages]
    return tokenizer.encode_chat(messages)


@torch.inference_mode()
def _answers(
    engine: Engine,
    tokenizer: Tokenizer,
    prompts: Sequence[tuple[TokenId, ...]],
    *,
    sampling: SamplingSettings,
    max_tokens: int,
) -> list[tuple[TokenId, ...]]:
    sequences = [
        engine.open(max_length=len(prompt) + max_tokens, max_pending=0) for prompt in prompts
    ]
    samplers = [_sampler(engine, sampling) for _ in prompts]
    outputs: list[list[TokenId]] = [[] for _ in prompts]
    try:
        for prompt, sequence, sampler, output in zip(
            prompts, sequences, samplers, outputs, strict=True
        ):
            logits = _read(engine, sequence, prompt)
            output.append(sampler.draw(logits, position=Position(len(prompt))))
        while going := [
            index
            for index, output in enumerate(outputs)
            if len(output) < max_tokens and output[-1] not in tokenizer.stop_tokens
        ]:
            groups = [
                RowGroup(sequence=sequences[index], tokens=outputs[index][-1:], commit=True)
                for index in going
            ]
            logits = engine.forward(groups).values
            for row, index in zip(logits, going, strict=True):
                position = Position(len(prompts[index]) + len(outputs[index]))
                outputs[index].append(samplers[index].draw(row, position=position))
                samplers[index].forget_before(position)
    finally:
        for sequence in sequences:
            engine.close(sequence)
    return [tuple(output) for output in outputs]


@torch.inference_mode()
def _ranked(engine: Engine, text: OwnText) -> tuple[bytes, bytes]:
    """Return ranks and confidence of every output token, by one pass over prompt and output."""
    known = (*text.prompt, *text.output[:-1])
    sequence = engine.open(max_length=len(known), max_pending=0)
    sampler = _sampler(engine, text.sampling)
    ranks, confidence = bytearray(), bytearray()
    try:
        _read(engine, sequence, text.prompt[:-1])
        for first in range(len(text.prompt) - 1, len(known), READ_ROWS):
            rows = known[first : first + READ_ROWS]
            group = RowGroup(sequence=sequence, tokens=rows, commit=True)
            for index, logits in enumerate(engine.forward([group]).of(0), start=first + 1):
                position = Position(index)
                ranking = sampler.rank(logits, position=position, k=MOST_RANKS)
                token = text.output[index - len(text.prompt)]
                found = ranking.tokens.index(token) + 1 if token in ranking.tokens else 0
                ranks.append(found)
                confidence.append(LOGITS.byte(ranking.margin))
                sampler.forget_before(position)
    finally:
        engine.close(sequence)
    return bytes(ranks), bytes(confidence)


def _read(engine: Engine, sequence: CacheSequence, tokens: Sequence[TokenId]) -> Tensor:
    """Compute a text piece by piece; return the logits after its last token, [V]; of an empty text, none."""
    logits = torch.empty(0)
    for first in range(0, len(tokens), PREFILL_ROWS):
        rows = tokens[first : first + PREFILL_ROWS]
        last = first + len(rows) == len(tokens)
        group = RowGroup(
            sequence=sequence, tokens=rows, logits="last" if last else "none", commit=True
        )
        result = engine.forward([group])
        if last:
            logits = result.of(0)[0]
    return logits


def _sampler(engine: Engine, sampling: SamplingSettings) -> Sampler:
    return Sampler(sampling, vocabulary_size=engine.identity.vocabulary_size, device=engine.device)


def _guessed(text: OwnText, ranks: bytes, confidence: bytes) -> GuessedText:
    return GuessedText(
        prompt=text.line.name,
        category=text.line.category,
        temperature=text.sampling.temperature,
        seed=text.sampling.seed,
        prompt_tokens=len(text.prompt),
        ended=text.ended,
        ranks=ranks,
        confidence=confidence,
    )
