"""A model that drafts and gets used to its user's text on the way; what is learned serves all generations of the process.

All is done between two passes of the model, on the drafting thread, and bounded by counts: a few small products per guessed place, at most
LESSONS lessons per call, and what waits for the target's word is bounded too. There is nothing to publish and nobody to wait for.

What was learned never leaves the process, and can change nothing but guesses.

Shape suffixes: see `edge.drafters.adapter`; W = tokens whose logits are known.
"""

# ruff: noqa: N803, N806 - tensors carry shape suffixes
from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edge.drafters.adapter import CANDIDATES, Adapter, AdapterSettings, Floats, Lesson
from edge.drafters.adapter_gate import Gate
from edge.drafters.drawing import Drawing
from edge.drafters.model import ModelDraft, ModelDrafter
from paceline.drafter import Guess
from paceline.engine.rows import Logits
from paceline.sampling.coupled import Ranking
from paceline.sampling.filters import truncates
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

LESSONS = 8
"""Most lessons per call of a draft."""
RIVALS = 3
"""Tokens that the side which is not used looks at in each place."""
MOST_WAITING = 64
"""Judged places that wait to be learned from; the oldest are dropped."""
MOST_NOTED = 768
"""Guessed places that wait for the target's word; those farthest ahead are dropped, they come true least often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where was guessed, and what both would have said first."""

    length: int
    """Of the committed text then."""
    path: tuple[TokenId, ...]
    plain: TokenId
    learned: TokenId
    lesson: Lesson


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rivals:
    """Of the tokens with a row, those that are best where the correction is left out if it is used, and used if it is not."""

    score: float
    """Of the first."""
    tokens: tuple[TokenId, ...]

    def first(self, ranking: Ranking, adapter: Adapter) -> TokenId:
        """Return what would have been guessed first: of tokens without a row the ranking's best is the same for both."""
        for token, score in zip(ranking.tokens, ranking.scores, strict=True):
            if not adapter.has_row(token):
                return token if score >= self.score else self.tokens[0]
        return self.tokens[0]


class Experience:
    """What a drafter has learned. Used on the drafting thread only.

    Args:
        settings: how it learns.
    """

    def __init__(self, settings: AdapterSettings | None = None) -> None:
        self._settings = settings
        self._adapter: Adapter | None = None
        self.gates = {is_greedy: Gate() for is_greedy in (True, False)}
        """Noise hides small gains, so drawn answers are looked at by themselves."""

    @property
    def adapter(self) -> Adapter | None:
        """The one adapter of the drafter; None before anything was guessed."""
        return self._adapter

    def made(self, tokens_W: Tensor, *, width: int) -> Adapter:
        """Return the adapter; make it when the model's shape is seen for the first time.

        Args:
            tokens_W: that logits have columns of, ascending.
            width: of hidden states.
        """
        if self._adapter is None:
            tokens = [TokenId(token) for token in tokens_W.tolist()]
            self._adapter = Adapter(tokens, width=width, settings=self._settings)
        return self._adapter


class AdaptiveDrafter:
    """Another drafter's drafts with logits that are corrected where that was of use of late.

    Args:
        drafter: a model, chain or tree.
        settings: how it learns.
    """

    def __init__(self, drafter: ModelDrafter, *, settings: AdapterSettings | None = None) -> None:
        self._drafter = drafter
        self.experience = Experience(settings)
        """What was learned, for who measures it."""

    @property
    def name(self) -> str:
        """The drafter's own."""
        return self._drafter.name

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> ModelDraft:
        """See `Drafter`; a tree if the drafter's is one."""
        draft = self._drafter.open(
            prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )
        draft.draw_with(
            AdaptedDrawing(
                sampling,
                prompt_length=prompt_length,
                vocabulary_size=self._drafter.vocabulary_size,
                experience=self.experience,
            )
        )
        return draft


class AdaptedDrawing(Drawing):
    """Draws for one generation, and learns from it. Filters, penalties and bias: plain, nothing is learned.

    Args:
        sampling: the target's.
        prompt_length: see `Drawing`.
        vocabulary_size: see `Drawing`.
        experience: learns here.
    """

    def __init__(
        self,
        sampling: SamplingSettings,
        *,
        prompt_length: int,
        vocabulary_size: int,
        experience: Experience,
    ) -> None:
        super().__init__(sampling, prompt_length=prompt_length, vocabulary_size=vocabulary_size)
        self._experience = experience
        self._gate = experience.gates[sampling.is_greedy]
        self._is_plain = truncates(sampling)
        self._at: list[tuple[int, tuple[TokenId, ...]]] = []
        """Where the rows of the call under way are: the committed length and the path from there."""
        self._noted: dict[int, list[_Place]] = {}
        """By the position that was guessed."""
        self._num_noted = 0
        self._waiting: deque[tuple[Lesson, TokenId]] = deque(maxlen=MOST_WAITING)

    def drawn_last(self, logits: Logits, text: Sequence[TokenId], *, num_guessed: int = 0) -> Guess:
        """See `Drawing`."""
        length = len(text) - num_guessed
        self._at = [(length, tuple(text[length:]))]
        self._look_back(text[:length])
        return super().drawn_last(logits, text, num_guessed=num_guessed)

    def ranked_leaves(
        self,
        logits: Logits,
        leaves: Mapping[int, Sequence[TokenId]],
        text: Sequence[TokenId],
        *,
        width: int,
    ) -> list[tuple[Guess, ...]]:
        """See `Drawing`."""
        self._at = [(len(text), tuple(path)) for path in leaves.values()]
        self._look_back(text)
        return super().ranked_leaves(logits, leaves, text, width=width)

    @torch.inference_mode()
    def _rankings(
        self, logits: Logits, rows: list[int], lengths: Sequence[int], *, k: int
    ) -> list[Ranking]:
        if self._is_plain or logits.hidden is None:
            return super()._rankings(logits, rows, lengths, k=k)
        is_all = len(rows) == len(logits.hidden)
        hidden_RH = logits.hidden if is_all and rows[0] == 0 else logits.hidden[rows]
        adapter = self._experience.adapter or self._experience.made(
            self._known_tokens(logits), width=hidden_RH.shape[1]
        )
        features_RF = adapter.features(hidden_RH.float().cpu().numpy())
        if features_RF is None:
            return super()._rankings(logits, rows, lengths, k=k)
        plain_RW = self._wanted(logits, rows)
        device = plain_RW.device
        more_RM = adapter.corrections(features_RF).to(device)
        columns_M = adapter.columns_M.to(device)
        is_open = self._gate.is_open
        ranker = self._row_ranker(logits)
        positions = [Position(one) for one in lengths]
        own_RM = plain_RW.index_select(1, columns_M)
        if is_open:
            plain_RW.index_add_(1, columns_M, more_RM)
        ranked = ranker.rank(plain_RW, positions=positions, k=max(k, CANDIDATES))
        if is_open:  # what was there is put back: a copy of all logits would take longer
            plain_RW.index_copy_(1, columns_M, own_RM)
        # What the other would have said: the best without a row is the same for both, of those with a row all are looked at.
        other_RM = own_RM if is_open else own_RM + more_RM
        noise_RM = ranker.noise(positions, columns_M)
        best = (other_RM if noise_RM is None else other_RM + noise_RM).topk(RIVALS)
        rivals = [
            _Rivals(score=scores[0], tokens=tuple(adapter.token(column) for column in columns))
            for scores, columns in zip(
                best.values.tolist(), columns_M[best.indices].tolist(), strict=True
            )
        ]
        lessons = self._lessons(adapter, ranked, rivals, features_RF, plain_RW)
        for at, one, rival, lesson in zip(self._at, ranked, rivals, lessons, strict=True):
            self._note(at, used=one.tokens[0], other=rival.first(one, adapter), lesson=lesson)
        return [_cut(one, k) for one in ranked]

    def _lessons(
        self,
        adapter: Adapter,
        ranked: Sequence[Ranking],
        rivals: Sequence[_Rivals],
        features_RF: Floats,
        plain_RW: Tensor,
    ) -> list[Lesson]:
        """Return what each row will teach; both sides' likeliest take part, or what is wrongly raised would never sink."""
        tokens = [
            tuple(dict.fromkeys((*one.tokens, *rival.tokens)))
            for one, rival in zip(ranked, rivals, strict=True)
        ]
        logits_RW = plain_RW.cpu().numpy()
        return [
            Lesson(features=features_F, tokens=some, logits=logits_W[adapter.columns(some)])
            for features_F, some, logits_W in zip(features_RF, tokens, logits_RW, strict=True)
        ]

    def _note(
        self, at: tuple[int, tuple[TokenId, ...]], *, used: TokenId, other: TokenId, lesson: Lesson
    ) -> None:
        """Remember what was guessed where, as used and as it would have been otherwise."""
        length, path = at
        plain, learned = (other, used) if self._gate.is_open else (used, other)
        place = _Place(length=length, path=path, plain=plain, learned=learned, lesson=lesson)
        self._noted.setdefault(length + len(path), []).append(place)
        self._num_noted += 1
        while self._num_noted > MOST_NOTED:
            self._num_noted -= len(self._noted.pop(max(self._noted)))

    def _look_back(self, text: Sequence[TokenId]) -> None:
        """Count what a committed text decides, then learn from a few places of it."""
        for position in sorted(at for at in self._noted if at < len(text)):
            places = self._noted.pop(position)
            self._num_noted -= len(places)
            for place in places:
                if tuple(text[place.length : position]) == place.path:
                    token = text[position]
                    self._gate.note(plain=place.plain == token, learned=place.learned == token)
                    self._waiting.append((place.lesson, token))
                    break
        adapter = self._experience.adapter
        if adapter is not None:
            with torch.inference_mode():
                for _ in range(min(LESSONS, len(self._waiting))):
                    adapter.learn(*self._waiting.popleft())


def _cut(ranking: Ranking, k: int) -> Ranking:
    return Ranking(tokens=ranking.tokens[:k], scores=ranking.scores[:k], margin=ranking.margin)
