"""Training batches: whole conversations packed one after another, in an order that a seed decides.

A batch has a fixed number of tokens, the last text is padding: kernels are compiled per shape, and memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.distillation.conversation import Role
from edge.distillation.shards import Passage, Shard

HELD_OUT = 40
"""One conversation of so many is never trained on: it tells how well the student does."""
WEIGHTS = {Role.FED: 0.3, Role.PROMPT: 0.5, Role.ANSWER: 1.0}
"""Worth of a token in the loss, by who wrote it. Drafts are for answers, but the target's laws on what it is fed come free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One conversation and where it is."""

    shard: int
    passage: Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packed texts. T = tokens of the batch, K = tokens kept of each law."""

    tokens: NDArray[np.int64]
    """[T] what the student reads."""
    positions: NDArray[np.int64]
    """[T] in their own texts."""
    lengths: tuple[int, ...]
    """Of the texts and of the padding behind them; they add up to T."""
    weights: NDArray[np.float32]
    """[T] worth of the law after each token; 0: there is none."""
    roles: NDArray[np.uint8]
    """[T] who wrote the token that comes next."""
    indices: NDArray[np.int64]
    """[T, K] places among the student's outputs of the likeliest next tokens."""
    probs: NDArray[np.float32]
    """[T, K] their probabilities; 0 for tokens that the student cannot say."""
    top_tokens: NDArray[np.int64]
    """[T] the target's likeliest next token, by its own id."""
    texts: tuple[Text, ...]


class OutputPlaces:
    """Where a student's outputs are among the target's tokens.

    Args:
        output_ids: ascending ids that the student can say.
        vocabulary_size: of the target.
    """

    def __init__(self, output_ids: NDArray[np.int64], *, vocabulary_size: int) -> None:
        self._places = np.full(vocabulary_size, -1, dtype=np.int64)
        self._places[output_ids] = np.arange(len(output_ids))

    def laws(
        self, ids: NDArray[np.int64], logprobs: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return kept laws, [T, K] each, as indices and probs of a `Batch`."""
        return self.placed(ids, np.exp(logprobs.astype(np.float32)))

    def placed(
        self, ids: NDArray[np.int64], probs: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return places among the outputs, and the probabilities without those of tokens that it cannot say.

        The probabilities are changed in place.
        """
        indices = self._places[ids]
        probs[indices < 0] = 0.0
        # Rounding to float16 may leave a sum a little over 1.
        probs /= np.maximum(1.0, probs.sum(axis=1, keepdims=True))
        return np.maximum(indices, 0), probs


class Packer:
    """Makes batches from shards.

    Args:
        shards: the text.
        output_ids: ascending ids that the student can say.
        batch_tokens: tokens of a batch.
    """

    def __init__(
        self, shards: Sequence[Shard], *, output_ids: NDArray[np.int64], batch_tokens: int
    ) -> None:
        self._shards = shards
        self._batch_tokens = batch_tokens
        size = shards[0].description.vocabulary_size
        self.places = OutputPlaces(output_ids, vocabulary_size=size)

    def texts(self, *, is_held_out: bool) -> list[Text]:
        """Return the conversations to train on, or those that are kept from it."""
        return [
            Text(shard=index, passage=passage)
            for index, shard in enumerate(self._shards)
            for passage in shard.description.passages
            if (passage.number % HELD_OUT == 0) is is_held_out and passage.length > 2
        ]

    def epoch(self, texts: Sequence[Text], *, seed: tuple[int, ...]) -> list[list[Text]]:
        """Return batches of texts in a random order; the same for the same seed."""
        order = np.random.default_rng(seed).permutation(len(texts))
        return list(self._grouped([texts[int(i)] for i in order]))

    def in_order(self, texts: Sequence[Text]) -> list[list[Text]]:
        """Return batches of texts as they stand."""
        return list(self._grouped(texts))

    def pack(self, texts: Sequence[Text]) -> Batch:
        """Read the texts of a batch."""
        size = self._batch_tokens
        width = self._shards[0].top_ids.shape[1]
        tokens = np.zeros(size, np.int64)
        positions = np.zeros(size, np.int64)
        roles = np.zeros(size, np.uint8)
        weights = np.zeros(size, np.float32)
        ids = np.zeros((size, width), np.int64)
        probs = np.zeros((size, width), np.float32)
        table = np.array([WEIGHTS[role] for role in Role], np.float32)
        lengths = []
        at = 0
        for text in texts:
            shard = self._shards[text.shard]
            first = text.passage.start
            count = self._length(text)
            here, there = slice(at, at + count), slice(first + 1, first + 1 + count)
            tokens[here] = shard.tokens[first : first + count]
            positions[here] = np.arange(count)
            roles[here] = shard.roles[there]
            weights[here] = table[roles[here]]
            ids[here] = shard.top_ids[there]
            probs[here] = np.exp(shard.top_logprobs[there].astype(np.float32))
            lengths.append(count)
            at += count
        if at < size:
            lengths.append(size - at)
            positions[at:] = np.arange(size - at)
        indices, probs = self.places.placed(ids, probs)
        return Batch(
            tokens=tokens,
            positions=positions,
            lengths=tuple(lengths),
            weights=weights,
            roles=roles,
            indices=indices,
            probs=probs,
            top_tokens=ids[:, 0],
            texts=tuple(texts),
        )

    def weight(self, texts: Sequence[Text]) -> float:
        """Return the sum of a batch's weights without reading its laws."""
        table = np.array([WEIGHTS[role] for role in Role], np.float64)
        total = 0.0
        for text in texts:
            first = text.passage.start + 1
            roles: Any = self._shards[text.shard].roles[first : first + self._length(text)]
            total += float(table[roles].sum())
        return total

    def _length(self, text: Text) -> int:
        return min(text.passage.length - 1, self._batch_tokens)

    def _grouped(self, texts: Sequence[Text]) -> Iterator[list[Text]]:
        group: list[Text] = []
        used = 0
        for text in texts:
            length = self._length(text)
            if group and used + length > self._batch_tokens:
                yield group
                group, used = [], 0
            group.append(text)
            used += length
        if group:
            yield group


def output_vocabulary(
    shards: Sequence[Shard], *, size: int, stop_tokens: Sequence[int]
) -> NDArray[np.int64]:
    """Return the ids that the target uses most, ascending; tokens that end an answer are always among them.

    Each id counts by the probability that the target gives it where it writes: what it nearly said will be said one day.
    """
    vocabulary_size = shards[0].description.vocabulary_size
    mass = np.zeros(vocabulary_size)
    for shard in shards:
        written = np.asarray(shard.roles) != Role.FED
        ids = np.asarray(shard.top_ids[written], dtype=np.int64)
        probs = np.exp(shard.top_logprobs[written].astype(np.float64))
        np.add.at(mass, ids.ravel(), probs.ravel())
    mass[list(stop_tokens)] = np.inf
    # Among equals the lower id: byte tokens and frequent merges come first in most vocabularies.
    best = np.argsort(-mass, kind="stable")[: min(size, vocabulary_size)]
    return np.sort(best)
