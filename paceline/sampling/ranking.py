"""Ranks the candidates of several rows at once, among the tokens whose logits are known.

What `Sampler.rank` returns row by row, for a drafter whose leaves come out of one forward pass and whose model may know some
tokens of the vocabulary only. The noise of a token depends on no other token, so that of the known ones is all that is computed.

Shape suffixes: R = rows; W = known tokens; C = columns of them, H high; M = largest ones; N = candidates for those.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paceline.sampling.coupled import Ranking
from paceline.sampling.filters import best, not_finite, survivors, truncates
from paceline.sampling.noise import DEFAULT_CACHE_BYTES, NoiseCache
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

COLUMNS = 256
"""A row is looked at as so many columns: the best k of all are in the k columns whose largest values are best."""
SPARE = 4
"""So many more than wanted are looked for: values that equal the last one are found with it, and bfloat16 makes many equal."""


class RowRanker:
    """Ranks for one session. Use it from one thread only.

    Args:
        settings: filters, temperature and seed; without bias and penalties, see `can_rank`.
        tokens_W: the tokens that logits have columns of, ascending.
        max_noise_bytes: as in `Sampler`.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        *,
        tokens_W: Tensor,
        max_noise_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self._settings = settings
        self._tokens: list[TokenId] = tokens_W.tolist()
        self._noise = NoiseCache(
            seed=settings.seed,
            scale=settings.temperature,
            vocabulary_size=len(self._tokens),
            device=tokens_W.device,
            max_bytes=max_noise_bytes,
            tokens=tokens_W,
        )

    def forget_before(self, position: Position) -> None:
        """Drop the noise of positions before this one: they are committed."""
        self._noise.forget_before(position)

    def rank(self, logits_RW: Tensor, *, positions: Sequence[Position], k: int) -> list[Ranking]:
        """Return the k best candidates of each row; see `Sampler.rank`.

        Args:
            logits_RW: float32; columns beyond the tokens are ignored.
            positions: of the tokens to be drawn, one per row.
            k: at least 1.

        Raises:
            ModelError: the logits are not finite.
        """
        logits_RW = logits_RW[:, : len(self._tokens)]
        scores_RW = logits_RW
        if not self._settings.is_greedy:
            rows = [self._noise.get(position) for position in positions]
            scores_RW = logits_RW + torch.stack(rows)
        ranked = best_rows(scores_RW, max(k, 2))
        if truncates(self._settings):
            ranked = [
                self._with_survivor(logits_W, scores_W, found)
                for logits_W, scores_W, found in zip(logits_RW, scores_RW, ranked, strict=True)
            ]
        return [self._ranking(found[: max(k, 2)], k) for found in ranked]

    def noise(self, positions: Sequence[Position], columns_M: Tensor) -> Tensor | None:
        """Return what is added to some columns of logits before they are compared, [R, M]; None if nothing is."""
        if self._settings.is_greedy:
            return None
        return torch.stack([self._noise.get(position)[columns_M] for position in positions])

    def _with_survivor(
        self, logits_W: Tensor, scores_W: Tensor, found: list[tuple[int, float]]
    ) -> list[tuple[int, float]]:
        """Put first the best candidate that truncation leaves."""
        allowed_K = survivors(logits_W, self._settings)
        score, place = scores_W[allowed_K].max(0)
        first = int(allowed_K[place])
        return [(first, float(score)), *(one for one in found if one[0] != first)]

    def _ranking(self, found: list[tuple[int, float]], k: int) -> Ranking:
        scores = tuple(score for _, score in found)
        margin = scores[0] - scores[1] if len(scores) > 1 else float("inf")
        tokens = tuple(self._tokens[index] for index, _ in found[:k])
        return Ranking(tokens=tokens, scores=scores[:k], margin=margin)


def can_rank(settings: SamplingSettings) -> bool:
    """Return whether nothing changes single logits before they are compared."""
    return (
        settings.repetition_penalty == 1.0
        and settings.presence_penalty == 0.0
        and settings.frequency_penalty == 0.0
        and not settings.logit_bias
    )


def best_rows(values_RW: Tensor, k: int) -> list[list[tuple[int, float]]]:
    """Return of each row the k largest values with their indices, by value descending, then by index ascending.

    Raises:
        ModelError: a row's largest value is not finite.
    """
    most = min(k + SPARE, values_RW.shape[1])
    rows: list[list[tuple[int, float]]] = []
    top_values, top_indices = _top(values_RW, most)
    for row, (values, indices) in enumerate(zip(top_values, top_indices, strict=True)):
        found = sorted(zip(indices, values, strict=True), key=lambda one: (-one[1], one[0]))
        if most > k and found[k - 1][1] == found[-1][1]:
            # More values equal the last one than were taken, perhaps with lower indices: look at all of them.
            every: list[int] = best(values_RW[row], k).tolist()
            found = list(zip(every, values_RW[row, every].tolist(), strict=True))
            found.sort(key=lambda one: (-one[1], one[0]))
        rows.append(found[:k])
    return rows


def _top(values_RW: Tensor, most: int) -> tuple[list[list[float]], list[list[int]]]:
    """Return the largest values of each row and their indices, in any order: `most` of each row.

    Among values that equal the last of them, any may be taken.

    Raises:
        ModelError: a row's largest value is not finite.
    """
    if values_RW.device.type != "cpu":
        found = values_RW.topk(most)
        top_RM, places_RM = found.values.cpu().numpy(), found.indices.cpu().numpy()
    else:
        top_RM, places_RM = _top_of(values_RW.numpy(), most)
    for largest in top_RM.max(axis=1).tolist():
        if largest - largest != 0.0:
            raise not_finite(largest)
    return top_RM.tolist(), places_RM.tolist()


def _top_of(
    values_RW: NDArray[np.float32], most: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return what `_top` does. What is no number counts as the largest."""
    num_rows, width = values_RW.shape
    height = width // COLUMNS
    whole = height * COLUMNS
    if height < 2 or 2 * most > COLUMNS:
        places_RM = np.argpartition(values_RW, width - most, axis=1)[:, width - most :]
        return np.take_along_axis(values_RW, places_RM, axis=1), places_RM
    flat = np.ascontiguousarray(values_RW).reshape(-1)
    # Columns, not neighbours: their maxima are those of whole vectors.
    largest_RC = values_RW[:, :whole].reshape(num_rows, height, COLUMNS).max(axis=1)
    chosen_RM = largest_RC.argpartition(COLUMNS - most, axis=1)[:, COLUMNS - most :]
    tops_H1 = np.arange(0, whole, COLUMNS)[:, None]
    places_RN = (chosen_RM[:, None, :] + tops_H1).reshape(num_rows, height * most)
    if whole < width:
        rest = np.broadcast_to(np.arange(whole, width), (num_rows, width - whole))
        places_RN = np.concatenate((places_RN, rest), axis=1)
    values_RN = flat.take(places_RN + np.arange(0, num_rows * width, width)[:, None])
    last = places_RN.shape[1] - most
    inside_RM = values_RN.argpartition(last, axis=1)[:, last:]
    rows_R1 = np.arange(num_rows)[:, None]
    return values_RN[rows_R1, inside_RM], places_RN[rows_R1, inside_RM]
