"""A model with another tokenizer as a drafter, token by token: of its tokens those count that the target has too.

The model reads the text in its own ids. Its logits of tokens that stand for the same bytes in both tokenizers go to the
target's ids, all others are left out, and the target's own noise draws among the rest: that is the model's law
restricted to what both have and renormalised (TLI). It fits tokenizers that share most words.

Source: Timor et al., "Accelerating LLM Inference with Lossless Speculative Decoding Algorithms for Heterogeneous
Vocabularies", arXiv 2502.05202.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edge.draft_spec import COMMON
from edge.drafters.drawing import Drawing
from edge.drafters.model import ModelDraft, ModelDrafter
from edge.drafters.translation import Translation
from edge.drafters.words import Words
from paceline.drafter import Guess, tokens_of
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import IncompatibleError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

GROWTH = 4
"""Tokens of the model for each of the target's, at most: its context must hold the text in its own ids."""

TakeOver = Callable[[Tensor], Tensor]
"""From logits of the model's tokens to logits of the target's."""

_GREEDY = SamplingSettings(temperature=0.0)


class ForeignDrafter:
    """Guesses with a model of another vocabulary.

    Args:
        drafter: the model; from now on it knows how to say common tokens only.
        own: its tokenizer.
        target: the target's.

    Raises:
        IncompatibleError: they have no token in common.
    """

    def __init__(self, drafter: ModelDrafter, *, own: Words, target: Words) -> None:
        self._drafter = drafter
        self._own = own
        self._target = target
        size = drafter.engine.identity.vocabulary_size
        shared = {token: to for token, to in own.shared(target).items() if token < size}
        stops = _stops(own, target, size)
        if not shared:
            raise IncompatibleError(
                f"draft: the tokenizers of {drafter.name} and {target.tokenizer.name} have no token in common"
            )
        self.shared = shared
        """The model's tokens that the target has too, and the target's ids of them."""
        pairs = list((shared | stops).items())
        device = drafter.engine.device
        self._from = torch.tensor([token for token, _ in pairs], device=device)
        self._to = torch.tensor([token for _, token in pairs], device=device)
        # Most of a small model's time goes into the output matrix of a large vocabulary.
        drafter.engine.limit_output(self._from)

    @property
    def name(self) -> str:
        """The model's name behind how it is used."""
        return f"{COMMON}{self._drafter.name}"

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> ForeignDraft:
        """See `Drafter`."""
        return ForeignDraft(
            open_foreign(self._drafter, prompt_length=prompt_length, max_tokens=max_tokens),
            translation=Translation(self._target, self._own),
            drawing=Drawing(
                sampling,
                prompt_length=prompt_length,
                vocabulary_size=self._target.tokenizer.vocabulary_size,
            ),
            take_over=self._take_over,
        )

    def _take_over(self, logits: Tensor) -> Tensor:
        """Return the logits that the target's tokens have, [V of the target], from the model's own."""
        whole = logits.new_full((self._target.tokenizer.vocabulary_size,), float("-inf"))
        # Two of the model's tokens may end a text: the likelier one counts.
        return whole.scatter_reduce_(0, self._to, logits[self._from], "amax")


class ForeignDraft:
    """One generation. Made by `ForeignDrafter.open`."""

    def __init__(
        self,
        draft: ModelDraft,
        *,
        translation: Translation,
        drawing: Drawing,
        take_over: TakeOver,
    ) -> None:
        self._draft = draft
        self._translation = translation
        self._drawing = drawing
        self._take_over = take_over

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`."""
        own = self._translation.of(text)
        return own is not None and len(own) > 0 and self._draft.prepare(own)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`: none while the text ends within a character."""
        del num_guessed
        tokens, guesses = list(text), list[Guess]()
        while len(guesses) < limit:
            own = self._translation.of(tokens)
            if not own or not self._draft.can_draft(own):
                break
            logits = self._take_over(self._draft.logits(own))
            guess = self._drawing.drawn(logits, tokens)
            tokens.append(guess.token)
            guesses.append(guess)
        return tuple(guesses)

    def close(self) -> None:
        """Free the model's memory of the text."""
        self._draft.close()


def open_foreign(drafter: ModelDrafter, *, prompt_length: int, max_tokens: int) -> ModelDraft:
    """Open a model's draft of a text that is counted in another tokenizer's tokens.

    It shares no prefix with other drafts: where the prompt ends is not known in its own tokens.
    """
    context = drafter.engine.identity.context_length
    longest = min(context, GROWTH * (prompt_length + max_tokens) + 1)
    return drafter.open(prompt_length=1, max_tokens=longest - 1, sampling=_GREEDY)


def stop_token(target: Tokenizer, prompt: Sequence[TokenId]) -> TokenId | None:
    """Return how the target ends an answer: as the turns of the prompt end, if it has several ways; None if it has none."""
    stops = target.stop_tokens
    used = [token for token in prompt if token in stops]
    return used[-1] if used else next(iter(stops), None)


def _stops(own: Words, target: Words, size: int) -> dict[TokenId, TokenId]:
    """Return the model's tokens that end an answer, and the target's token for it."""
    stop = stop_token(target.tokenizer, ())
    if stop is None:
        return {}
    return {token: stop for token in own.tokenizer.stop_tokens if token < size}
