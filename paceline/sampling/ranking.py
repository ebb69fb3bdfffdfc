"""Ranks the candidates of several rows at once, among the tokens whose logits are known.

What `Sampler.rank` returns row by row, for a drafter whose leaves come out of one forward pass and whose model may know some
tokens of the vocabulary only. The noise of a token depends on no other token, so that of the known ones is all that is computed.

Shape suffixes: R = rows; W = known tokens; C = columns of them, H high; M = largest ones; N = candidates for those.
"""

from collections.abc import Sequence

import torch
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
    for row, (values, indices) in enumerate(zip(*_top(values_RW, most), strict=True)):
        if values[0] - values[0] != 0.0:
            raise not_finite(values[0])
        found = zip(indices, values, strict=True)
        if most > k and values[k - 1] == values[-1]:
            # More values equal the last one than were taken, perhaps with lower indices: look at all of them.
            every: list[int] = best(values_RW[row], k).tolist()
            found = zip(every, values_RW[row, every].tolist(), strict=True)
        rows.append(sorted(found, key=lambda one: (-one[1], one[0]))[:k])
    return rows


def _top(values_RW: Tensor, most: int) -> tuple[list[list[float]], list[list[int]]]:
    """Return the largest values of each row in descending order, and their indices: `most` of each.

    Among values that equal the last of them, any may be taken.
    """
    num_rows, width = values_RW.shape
    height = width // COLUMNS
    if height < 2 or 2 * most > COLUMNS:
        values, places = values_RW.topk(most)
        return values.tolist(), places.tolist()
    whole, num_candidates = height * COLUMNS, height * most
    blocks_RHC = values_RW[:, :whole].view(num_rows, height, COLUMNS)
    # Columns, not neighbours: their maxima are those of whole vectors.
    chosen_RM = blocks_RHC.amax(dim=1).topk(most, sorted=False).indices
    candidates_RN = blocks_RHC.gather(2, chosen_RM[:, None].expand(-1, height, -1)).flatten(1)
    if whole < width:
        candidates_RN = torch.cat((candidates_RN, values_RW[:, whole:]), dim=1)
    values, places = candidates_RN.topk(most)
    indices = [
        [
            place // most * COLUMNS + columns[place % most]
            if place < num_candidates
            else whole + place - num_candidates
            for place in row
        ]
        for row, columns in zip(places.tolist(), chosen_RM.tolist(), strict=True)
    ]
    return values.tolist(), indices
