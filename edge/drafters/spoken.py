"""A model with any tokenizer as a drafter: it writes text, and the target's tokenizer cuts that into tokens.

Only tokens that more text cannot change are guessed: those before the last word. The model's likeliest token is taken
whatever the temperature, since draws in another vocabulary have no noise in common with the target's. It fits any
pair of tokenizers; where they share most words, `foreign` draws with the target's noise.

Source: Timor et al., arXiv 2502.05202 (SLEM).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from edge.draft_spec import TEXT
from edge.drafters.foreign import open_foreign, stop_token
from edge.drafters.model import ModelDraft, ModelDrafter
from edge.drafters.translation import Translation
from edge.drafters.words import UNFINISHED, Words, complete
from paceline.drafter import Guess, tokens_of
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

AHEAD = 12
"""Most tokens that the model writes beyond those asked for until a word is complete."""

LIKELY = 0.95
"""Chance of a token that begins within one of the model's: that one has said it all."""


class SpokenDrafter:
    """Guesses with a model of another vocabulary, by its text.

    Args:
        drafter: the model.
        own: its tokenizer.
        target: the target's.
    """

    def __init__(self, drafter: ModelDrafter, *, own: Words, target: Words) -> None:
        self._drafter = drafter
        self._own = own
        self._target = target

    @property
    def name(self) -> str:
        """The model's name behind how it is used."""
        return f"{TEXT}{self._drafter.name}"

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> SpokenDraft:
        """See `Drafter`."""
        del sampling
        draft = open_foreign(self._drafter, prompt_length=prompt_length, max_tokens=max_tokens)
        return SpokenDraft(draft, prompt_length=prompt_length, own=self._own, target=self._target)


class SpokenDraft:
    """One generation. Made by `SpokenDrafter.open`."""

    def __init__(self, draft: ModelDraft, *, prompt_length: int, own: Words, target: Words) -> None:
        self._draft = draft
        self._prompt_length = prompt_length
        self._own = own
        self._target = target
        self._translation = Translation(target, own)
        self._seen: tuple[TokenId, ...] = ()
        self._ids: tuple[TokenId, ...] = ()
        """The model's own text: that which was seen, and what it wrote after it."""
        self._written: list[tuple[bytes, float]] = []
        """The end of that text beyond what was seen, token by token: bytes and chance."""
        self._ended = False
        """The model writes no more after that."""
        self._stops = False
        """It has ended the answer."""

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`."""
        return self._follow(text) and self._draft.prepare(self._ids)

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
        if not self._follow(text):
            return ()
        guesses = self._stable(text)
        for _ in range(limit + AHEAD):
            if len(guesses) >= limit or not self._write():
                break
            guesses = self._stable(text)
        return guesses[:limit]

    def close(self) -> None:
        """Free the model's memory of the text."""
        self._draft.close()

    def _follow(self, text: Sequence[TokenId]) -> bool:
        """Take a text; return whether the model can go on from it."""
        length = len(self._seen)
        if self._ids and tuple(text[:length]) == self._seen:
            news = self._target.text(text[length:])
            special = any(token in self._target.specials for token in text[length:])
            if not special and b"".join(data for data, _ in self._written).startswith(news):
                self._seen = tuple(text)
                self._take(len(news))
                return True
        ids = self._translation.of(text)
        self._seen, self._ids = tuple(text), ids or ()
        self._written, self._ended, self._stops = [], False, False
        return bool(self._ids)

    def _take(self, size: int) -> None:
        """Drop bytes from the beginning of what was written."""
        while size:
            data, chance = self._written[0]
            if len(data) > size:
                self._written[0] = (data[size:], chance)
                return
            del self._written[0]
            size -= len(data)

    def _write(self) -> bool:
        """Let the model write a token; return whether it did."""
        found = () if self._ended else self._draft.guess(self._ids, 1)
        if not found:
            return False
        token, chance = found[0].token, found[0].chance
        if token in self._own.tokenizer.stop_tokens or token not in self._own.bytes:
            self._ended, self._stops = True, token in self._own.tokenizer.stop_tokens
            self._written.append((b"", chance))
            return True
        self._ids = (*self._ids, token)
        self._written.append((self._own.bytes[token], chance))
        return True

    def _stable(self, text: Sequence[TokenId]) -> tuple[Guess, ...]:
        """Return the target's tokens that more of the model's text cannot change."""
        data = b"".join(piece for piece, _ in self._written)
        string, rest = complete(data)
        if len(rest) > UNFINISHED:
            self._ended = True  # it writes bytes that are no text
        tokens = self._target.encode(string) or ()
        if not self._ended:
            tokens = tokens[: self._num_settled(string, tokens)]
        guesses = [
            Guess(token=token, chance=chance)
            for token, chance in zip(tokens, self._chances(tokens), strict=True)
        ]
        stop = stop_token(self._target.tokenizer, text[: self._prompt_length])
        if self._stops and stop is not None:
            guesses.append(Guess(token=stop, chance=self._written[-1][1]))
        return tuple(guesses)

    def _num_settled(self, string: str, tokens: Sequence[TokenId]) -> int:
        """Return how many tokens of an unfinished text are certain: those before its last word begins."""
        begins = len(string.rstrip())
        while begins and not string[begins - 1].isspace():
            begins -= 1
        while begins and string[begins - 1].isspace():
            begins -= 1
        if (
            begins == 0
        ):  # one long word, as in scripts without spaces: its last two tokens may still grow together
            return max(0, len(tokens) - 2) if len(tokens) > 4 else 0
        before = self._target.encode(string[:begins]) or ()
        agreed = 0
        while agreed < min(len(before), len(tokens)) and before[agreed] == tokens[agreed]:
            agreed += 1
        return agreed

    def _chances(self, tokens: Sequence[TokenId]) -> list[float]:
        """Return the chance of each token: that of the model's tokens that begin within it."""
        begins, size = list[tuple[int, float]](), 0
        for data, chance in self._written:
            begins.append((size, chance))
            size += len(data)
        chances, at = list[float](), 0
        for token in tokens:
            end = at + len(self._target.bytes[token])
            chances.append(
                prod([chance for begin, chance in begins if at <= begin < end] or [LIKELY])
            )
            at = end
        return chances
