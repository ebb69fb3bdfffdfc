"""Coupled sampling: the target and the draft draw with the same noise, so a good draft draws the same token.

The draw is the argmax over allowed tokens of logit + temperature * noise, in float32, lowest id on ties: Gumbel-max,
hence distributed as softmax(filtered logits / temperature). Two models that share the noise agree with probability
sum_i 1 / sum_j max(target_j / target_i, draft_j / draft_i) over their probabilities (Daliri, Musco, Suresh,
arXiv 2408.07978). Never feed a token drawn with this noise to a rule that assumes independence: it would be biased.

A row is drawn by itself, never as part of a batch, so that what else is in the batch cannot change it.

Shape suffixes: R = rows, V = vocabulary, K = surviving tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paceline.errors import ModelError
from paceline.sampling.filters import best, checked_peak, not_finite, survivors, truncates
from paceline.sampling.noise import DEFAULT_CACHE_BYTES, NoiseCache
from paceline.sampling.penalties import LogitAdjustment
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The best candidates for one position."""

    tokens: tuple[TokenId, ...]
    """Best first; the first one is what `Sampler.draw` returns."""

    scores: tuple[float, ...]
    """Their scores, logit + temperature * noise, in units of logits."""

    margin: float
    """Score of the best minus score of the next, in units of logits; infinite if there is one token only.

    The larger, the likelier that the target draws the same token. Below 0 where truncation refused a better score.
    """


class Sampler:
    """Draws the tokens of one session, for the verifier and the model drafter alike.

    Use it from one thread only, the one that runs the model: it holds noise and counts without locks.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        *,
        vocabulary_size: int,
        device: torch.device | str = "cpu",
        max_noise_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """Make a sampler with an empty output.

        Args:
            settings: filters, temperature and seed.
            vocabulary_size: ids of the tokenizer; logits at and beyond it are ignored.
            device: where the logits will be.
            max_noise_bytes: bound of the noise kept; one position is always kept.

        Raises:
            InvalidRequestError: a biased token is not in the vocabulary.
        """
        device = torch.device(device)
        self._settings = settings
        self._vocabulary_size = vocabulary_size
        self._adjustment = LogitAdjustment(settings, vocabulary_size=vocabulary_size, device=device)
        self._noise = NoiseCache(
            seed=settings.seed,
            scale=settings.temperature,
            vocabulary_size=vocabulary_size,
            device=device,
            max_bytes=max_noise_bytes,
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of noise held now."""
        return self._noise.num_bytes

    def draw(
        self, logits_V: Tensor, *, position: Position, path: Sequence[TokenId] = ()
    ) -> TokenId:
        """Return the token at a position.

        Args:
            logits_V: the model's logits after the text before `position`; may be longer than the vocabulary.
            position: absolute position of the token to be drawn: the length of the text before it.
            path: tokens between the committed output and `position`, that is the row's drafted ancestors and the
                row's own token.

        Raises:
            ModelError: the logits are not finite, or fewer than the vocabulary.
        """
        return _resolved([self._best(logits_V, position=position, path=path)])[0]

    def rank(
        self,
        logits_V: Tensor,
        *,
        position: Position,
        k: int,
        path: Sequence[TokenId] = (),
    ) -> Ranking:
        """Return the k best candidates for a position, as a draft proposes them.

        Bias, penalties and temperature apply to every rank; top-k, top-p and min-p to the first only, because the
        draft's nucleus is not the target's.

        Args:
            logits_V: as in `draw`.
            position: as in `draw`.
            k: how many, at least 1; fewer come back from a smaller vocabulary.
            path: as in `draw`.

        Raises:
            ModelError: as in `draw`.
        """
        adjusted_V = self._adjusted(logits_V, path)
        checked_peak(adjusted_V)
        scores_V = self._scores(adjusted_V, position)
        ranked = best(scores_V, max(k, 2))
        if truncates(self._settings):
            allowed_K = survivors(adjusted_V, self._settings)
            first = allowed_K[scores_V[allowed_K].max(0).indices]
            ranked = torch.cat([first[None], ranked[ranked != first]])[: max(k, 2)]
        tokens = [TokenId(token) for token in ranked.tolist()]
        scores: list[float] = scores_V[ranked].tolist()
        margin = scores[0] - scores[1] if len(scores) > 1 else float("inf")
        return Ranking(tokens=tuple(tokens[:k]), scores=tuple(scores[:k]), margin=margin)

    def prepare(self, position: Position) -> bool:
        """Compute the noise of a position while there is time; return whether that was work done."""
        return not self._settings.is_greedy and self._noise.prepare(position)

    def append_output(self, tokens: Sequence[TokenId]) -> None:
        """Count tokens that were committed to the output; penalties look at them. The prompt never counts."""
        self._adjustment.append_output(tokens)

    def forget_before(self, position: Position) -> None:
        """Drop the noise of positions before this one: they are committed."""
        self._noise.forget_before(position)

    def _best(
        self, logits_V: Tensor, *, position: Position, path: Sequence[TokenId]
    ) -> tuple[Tensor, Tensor]:
        """Return the best score and its token, as tensors without dimensions: reading them waits for the device."""
        adjusted_V = self._adjusted(logits_V, path)
        if truncates(self._settings):
            # In ascending order of ids, so that the first of equal scores is the lowest id here too.
            allowed_K = survivors(adjusted_V, self._settings)
            scores_K = adjusted_V[allowed_K] + self._noise.get(position)[allowed_K]
            score, index = scores_K.max(0)
            return score, allowed_K[index]
        # max over a dimension gives the first of equal values, and NaN if there is one; it is faster than argmax.
        score, token = self._scores(adjusted_V, position).max(0)
        return score, token

    def _scores(self, adjusted_V: Tensor, position: Position) -> Tensor:
        if self._settings.is_greedy:
            return adjusted_V
        return adjusted_V + self._noise.get(position)

    def _adjusted(self, logits_V: Tensor, path: Sequence[TokenId]) -> Tensor:
        if logits_V.numel() < self._vocabulary_size:
            raise ModelError(
                f"logits: got {logits_V.numel()} of them, expected at least {self._vocabulary_size}, one per token "
                "of the vocabulary; the model does not fit this tokenizer"
            )
        return self._adjustment.apply(logits_V[: self._vocabulary_size].float(), path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDraw:
    """Asks for the draw of one row; the fields mean what they mean in `Sampler.draw`."""

    sampler: Sampler
    position: Position
    path: tuple[TokenId, ...] = ()


def draw_rows(logits_RV: Tensor, rows: Sequence[RowDraw]) -> list[TokenId | ModelError]:
    """Return the draw of every row, equal to `Sampler.draw` of it alone.

    A row whose logits are not finite gets its error in its place, so that it ends its own session only. Rows that no
    filter truncates wait for the device once, all together.

    Args:
        logits_RV: row i belongs to `rows[i]`.
        rows: of any sessions, in any order; all samplers belong to this thread.
    """
    outcomes: list[TokenId | ModelError | None] = [None] * len(rows)
    pending: list[tuple[Tensor, Tensor]] = []
    indices: list[int] = []
    for index, (row, logits_V) in enumerate(zip(rows, logits_RV, strict=True)):
        try:
            pending.append(row.sampler._best(logits_V, position=row.position, path=row.path))  # noqa: SLF001
            indices.append(index)
        except ModelError as error:
            outcomes[index] = error
    for index, outcome in zip(indices, _outcomes(pending), strict=True):
        outcomes[index] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


def _outcomes(pending: Sequence[tuple[Tensor, Tensor]]) -> list[TokenId | ModelError]:
    """Read best scores and tokens in one wait for the device."""
    if not pending:
        return []
    scores: list[float] = torch.stack([score for score, _ in pending]).tolist()
    tokens: list[int] = torch.stack([token for _, token in pending]).tolist()
    return [
        # NaN and infinities are what is not equal to itself after this.
        TokenId(token) if score - score == 0.0 else not_finite(score)
        for score, token in zip(scores, tokens, strict=True)
    ]


def _resolved(pending: Sequence[tuple[Tensor, Tensor]]) -> list[TokenId]:
    """Read draws of which the first error is raised."""
    outcomes = _outcomes(pending)
    for outcome in outcomes:
        if isinstance(outcome, ModelError):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, ModelError)]
