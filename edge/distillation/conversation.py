"""One conversation while it is written: which tokens to run next, whose they are, when it ends. Pure: no tensors.

    run rows -> laws -> (draw a token, or feed the next prompt) -> run rows ...

Invariant: `laws` counts the rows that have been run; the law of row i belongs to token i + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edge.distillation.frame import ChatFrame, is_looping
from edge.distillation.scripts import Script
from paceline.engine.tokenizer import Tokenizer
from paceline.tokens import TokenId

PROMPT_TEMPERATURE = 1.0
"""Of prompts that the target writes itself: below, it asks the same few things again and again."""
MAX_PROMPT = 160
"""Most tokens of such a prompt."""


class Role(IntEnum):
    """Who wrote a token."""

    FED = 0
    """We: template, prompt or licensed text."""
    PROMPT = 1
    """The target, as its own user."""
    ANSWER = 2
    """The target."""


@dataclass(slots=True, kw_only=True)
class Conversation:
    """See the module. Made by `begin`."""

    script: Script
    frame: ChatFrame
    max_length: int
    rng: Generator
    tokens: list[TokenId] = field(default_factory=list)
    roles: list[Role] = field(default_factory=list)
    num_run: int = 0
    turn: int = 0
    writing: Role | None = None
    """What the target writes once everything fed has run; None: nothing any more."""
    num_written: int = 0
    closing: tuple[TokenId, ...] = ()
    """Comes after a prompt that the target writes."""
    is_done: bool = False
    top_ids: list[NDArray[np.int64]] = field(default_factory=list)
    top_logprobs: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def pending(self) -> Sequence[TokenId]:
        """Tokens that have not run yet."""
        return self.tokens[self.num_run :]

    @property
    def temperature(self) -> float:
        """Of the next draw."""
        if self.writing is Role.PROMPT:
            return PROMPT_TEMPERATURE
        return self.script.turns[self.turn].temperature

    @property
    def draws(self) -> bool:
        """Whether a token is drawn once the pending ones have run."""
        return self.writing is not None

    def note_laws(self, ids: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        """Take the laws after the next rows, [rows, k] each."""
        self.num_run += len(ids)
        self.top_ids.append(ids)
        self.top_logprobs.append(logprobs)
        if self.num_run == len(self.tokens) and not self.draws:
            self.is_done = True

    def note_draw(self, token: TokenId) -> None:
        """Take the token that was drawn after the last row."""
        assert self.writing is not None
        self.tokens.append(token)
        self.roles.append(self.writing)
        self.num_written += 1
        if len(self.tokens) >= self.max_length:
            self.is_done = True
        elif self.writing is Role.PROMPT:
            self._after_prompt_token(token)
        else:
            self._after_answer_token(token)

    def laws(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the laws that tokens 1, 2 ... were drawn from, [tokens - 1, k] each."""
        end = len(self.tokens) - 1
        return np.concatenate(self.top_ids)[:end], np.concatenate(self.top_logprobs)[:end]

    def _after_prompt_token(self, token: TokenId) -> None:
        if token not in self.frame.stop_tokens and self.num_written < MAX_PROMPT:
            return
        closing = self.closing[1:] if token == self.closing[0] else self.closing
        self._feed(closing, then=Role.ANSWER)

    def _after_answer_token(self, token: TokenId) -> None:
        turn = self.script.turns[self.turn]
        stopped = token in self.frame.stop_tokens
        written = self.tokens[-self.num_written :]
        if self.num_written % 8 == 0 and is_looping(written):
            self.is_done = True
        elif stopped or self.num_written >= turn.max_tokens:
            self._next_turn(stopped=stopped)

    def _next_turn(self, *, stopped: bool) -> None:
        self.turn += 1
        if self.turn == len(self.script.turns):
            self.is_done = True
            return
        prompt = self.script.turns[self.turn].prompt
        following = None if prompt is None else self.frame.following(prompt)
        if following is None:
            self.is_done = True
            return
        self._feed(following[1:] if stopped else following, then=Role.ANSWER)

    def _feed(self, tokens: Sequence[TokenId], *, then: Role | None) -> None:
        self.tokens.extend(tokens)
        self.roles.extend([Role.FED] * len(tokens))
        self.writing = then
        self.num_written = 0
        if len(self.tokens) >= self.max_length:
            # What was drawn is kept, the prompt that does not fit is not.
            del self.tokens[-len(tokens) :], self.roles[-len(tokens) :]
            self.is_done = True


def begin(
    script: Script, *, frame: ChatFrame, tokenizer: Tokenizer, max_length: int
) -> Conversation | None:
    """Return a conversation that is ready to run, or None if its prompt leaves no room for an answer."""
    conversation = Conversation(
        script=script, frame=frame, max_length=max_length, rng=np.random.default_rng(script.seed)
    )
    first = script.turns[0]
    then: Role | None = Role.ANSWER if first.max_tokens else None
    if script.is_plain:
        opening = tokenizer.encode(first.prompt or "\n")
        opening = opening[: max_length - min(first.max_tokens, max_length // 2) - 1]
    elif first.prompt is None:
        opening, conversation.closing = frame.blank_prompt(system=script.system)
        then = Role.PROMPT
    else:
        opening = frame.opening(first.prompt, system=script.system)
    if len(opening) + max_length // 16 > max_length or not opening:
        return None
    conversation.tokens.extend(opening)
    conversation.roles.extend([Role.FED] * len(opening))
    conversation.writing = then
    return conversation
