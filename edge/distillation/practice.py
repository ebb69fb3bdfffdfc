"""Drafts that a student made after text of its target, and the target's laws on them.

    practice/000000/cuts.npy          [B]        token of the text's shard that a draft follows, ascending
                    tokens.npy        [B, L]     the draft
                    counts.npy        [B, L]     whether the law after this token is something to learn
                    top_ids.npy       [B, L, k]  the likeliest tokens of the law after it
                    top_logprobs.npy  [B, L, k]  their natural log-probabilities at temperature 1, float16, falling
                    shard.json        sizes, sum of the text that was drafted on, sha256 of the arrays

Shard n holds drafts on shard n of the text, whose files are not repeated: a draft is read behind the text that it follows.

Shape suffixes: B = drafts; L = their length; K = tokens kept of a law.
"""

# ruff: noqa: N803 - arrays carry shape suffixes
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.distillation.array_files import (
    read_about,
    read_arrays,
    shard_folder,
    unreadable,
    write_arrays,
)
from edge.distillation.block_attention import Blocks
from edge.distillation.packing import Batch, OutputPlaces
from paceline.errors import ConfigError

TOKENS_SUM = "tokens.npy"
_ARRAYS = ("cuts", "tokens", "counts", "top_ids", "top_logprobs")
_FILLED = 16
"""Drafts of a batch are filled up to a multiple of so many: kernels are compiled, and their memory kept, for every count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """The drafts on one shard of text; arrays as in the module."""

    cuts: NDArray[Any]
    tokens: NDArray[Any]
    counts: NDArray[Any]
    top_ids: NDArray[Any]
    top_logprobs: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDrafts:
    """The drafts on the texts of a batch."""

    blocks: Blocks
    """Where they are."""
    tokens: NDArray[np.int64]
    """[B, L]."""
    weights: NDArray[np.float32]
    """[B * L] worth of the law after each token; 0: it is not learned."""
    indices: NDArray[np.int64]
    """[B * L, K] as in `Batch`."""
    probs: NDArray[np.float32]
    """[B * L, K] as in `Batch`."""


def counting(
    drafted_BL: NDArray[Any], followed_BL: NDArray[Any], *, stop_tokens: Iterable[int]
) -> NDArray[np.bool_]:
    """Return after which tokens of drafts there is something to learn, [B, L].

    Not while a draft says what the text says: these laws are kept with the text. And not after a token that ends an answer:
    nobody drafts on.
    """
    has_left = np.logical_or.accumulate(drafted_BL != followed_BL, axis=1)
    has_ended = np.logical_or.accumulate(np.isin(drafted_BL, list(stop_tokens)), axis=1)
    counts: NDArray[np.bool_] = has_left & ~has_ended
    return counts


def write_drafts(parent: Path, number: int, drafts: Drafts, *, text_sum: str) -> None:
    """Write the drafts on a shard of text; they are there whole once this returns, and not at all before.

    Args:
        parent: folder of all drafts of this practice.
        number: of the shard.
        drafts: see there.
        text_sum: sha256 of the tokens that were drafted on.
    """
    arrays = {name: getattr(drafts, name) for name in _ARRAYS}
    num_tokens, num_counting = int(drafts.tokens.size), int(drafts.counts.sum())
    about = {"number": number, "num_tokens": num_tokens, "num_counting": num_counting}
    write_arrays(parent, number, arrays, about=about | {"text_sum": text_sum})


def num_drafted(parent: Path, number: int) -> int:
    """Return how many tokens a shard of drafts has.

    Raises:
        ConfigError: as in `read_drafts`.
    """
    folder = shard_folder(parent, number)
    try:
        return int(read_about(folder)["num_tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(folder, error) from error


def read_drafts(parent: Path, number: int, *, text_sum: str) -> Drafts:
    """Open the drafts on a shard of text, and compare all sums.

    Raises:
        ConfigError: they are not there, of another format, damaged, or were made on other text.
    """
    folder = shard_folder(parent, number)
    about = read_about(folder)
    try:
        made_on, sums = about["text_sum"], about["sha256"]
    except KeyError as error:
        raise unreadable(folder, error) from error
    if made_on != text_sum:
        raise ConfigError(f"practice {folder}: was made on other text; remove {parent}")
    return Drafts(**read_arrays(folder, _ARRAYS, sums=sums))


class Practice:
    """Finds the drafts on the texts of a batch.

    Args:
        shards: drafts on the first shards of the text, in order; the others have none.
        places: of the student's outputs.
    """

    def __init__(self, shards: Sequence[Drafts], *, places: OutputPlaces) -> None:
        self._shards = shards
        self._places = places

    def of(self, batch: Batch) -> BatchDrafts | None:
        """Return the drafts on a batch's texts, None if there are none."""
        found: list[tuple[Drafts, slice]] = []
        starts: list[NDArray[np.int64]] = []
        at = 0
        for text, length in zip(batch.texts, batch.lengths, strict=False):
            if text.shard < len(self._shards):
                drafts = self._shards[text.shard]
                begin = text.passage.start
                # A text that is longer than a batch is cut short, and so are its drafts.
                low, high = np.searchsorted(drafts.cuts, (begin, begin + length)).tolist()
                if low < high:
                    found.append((drafts, slice(low, high)))
                    starts.append(drafts.cuts[low:high].astype(np.int64) - begin + at)
            at += length
        if not found:
            return None
        return self._joined(batch, found, np.concatenate(starts))

    def worth(self, batch: Batch) -> float:
        """Return the sum of the weights of all drafts on a batch's texts."""
        drafts = self.of(batch)
        return 0.0 if drafts is None else float(drafts.weights.sum())

    def _joined(
        self, batch: Batch, found: Sequence[tuple[Drafts, slice]], starts: NDArray[np.int64]
    ) -> BatchDrafts:
        def joined(name: str) -> NDArray[Any]:
            parts = [np.asarray(getattr(drafts, name)[here]) for drafts, here in found]
            values = np.concatenate(parts)
            return np.concatenate((values, np.repeat(values[-1:], filling, axis=0)))

        filling = -len(starts) % _FILLED
        # What fills up repeats the last draft and is worth nothing.
        filled = np.concatenate((starts, np.repeat(starts[-1:], filling)))
        tokens = joined("tokens").astype(np.int64)
        weights = batch.weights[filled][:, None] * joined("counts")
        weights[len(starts) :] = 0.0
        width = found[0][0].top_ids.shape[2]
        indices, probs = self._places.laws(
            joined("top_ids").reshape(-1, width).astype(np.int64),
            joined("top_logprobs").reshape(-1, width),
        )
        return BatchDrafts(
            blocks=Blocks(starts=filled, num_slots=tokens.shape[1]),
            tokens=tokens,
            weights=weights.ravel().astype(np.float32),
            indices=indices,
            probs=probs,
        )
