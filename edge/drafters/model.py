"""A causal language model as a drafter: a chain, drawn with the target's own noise.

The draft draws each position as the target will, with the same noise (`Sampler.rank`), so that it agrees with the
target far more often than a draw of its own would. It keeps the keys and values of everything it has seen, and goes
back to the longest common beginning when the text turns out differently.

Invariant: `ModelDraft._known` is what the engine's sequence holds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from torch import Tensor

from edge.drafters.drawing import Drawing
from edge.drafters.prefix import common_length
from paceline.drafter import Guess, tokens_of
from paceline.engine.engine import Engine
from paceline.engine.rows import EngineSettings, Logits, RowGroup
from paceline.engine.sequence import CacheSequence
from paceline.errors import InvalidRequestError, ModelError, OverloadedError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

PREFILL_ROWS = 128
"""Tokens computed in one piece of a long text; between two pieces the thread is free for others."""

TENANT = "edge"
"""All drafts of a process share prefixes: the next turn of a conversation prefills only what is new."""

SETTINGS = EngineSettings(copies=True)
"""Of a draft's engine: its steps are short, and few generations share it."""


class ModelDrafter:
    """Guesses with a model.

    Args:
        engine: the model.
        vocabulary_size: ids of the tokenizer, as the verifier counts them.
    """

    def __init__(self, engine: Engine, *, vocabulary_size: int) -> None:
        self._engine = engine
        self._vocabulary_size = min(vocabulary_size, engine.identity.vocabulary_size)

    @property
    def name(self) -> str:
        """The model's name."""
        return self._engine.identity.name

    @property
    def engine(self) -> Engine:
        """The model itself, for who measures it."""
        return self._engine

    @property
    def vocabulary_size(self) -> int:
        """Tokens below this may be guessed."""
        return self._vocabulary_size

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> "ModelDraft":
        """Return a new draft; the model does nothing yet."""
        return ModelDraft(
            self._engine,
            prompt_length=prompt_length,
            max_tokens=max_tokens,
            sampling=sampling,
            vocabulary_size=self._vocabulary_size,
        )


class ModelDraft:
    """One generation's keys and values. Made by `ModelDrafter.open`."""

    def __init__(
        self,
        engine: Engine,
        *,
        prompt_length: int,
        max_tokens: int,
        sampling: SamplingSettings,
        vocabulary_size: int,
        max_pending: int = 0,
    ) -> None:
        self._engine = engine
        self._max_pending = max_pending
        self._prompt_length = prompt_length
        self._end = prompt_length + max_tokens
        self._max_length = min(self._end, engine.identity.context_length)
        self._vocabulary_size = vocabulary_size
        self._drawing = Drawing(
            sampling, prompt_length=prompt_length, vocabulary_size=vocabulary_size
        )
        self._sequence: CacheSequence | None = None
        self._known: list[TokenId] = []

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: compute at most PREFILL_ROWS tokens of `text`, the last one never."""
        if not self.can_draft(text):
            return False
        with as_model_errors():
            return self._advance(text)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`. A text longer than the model's context gets no guess, nor one with tokens it does not know."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`: the larger the margin to the next candidate, the surer."""
        tokens, guesses = list(text), list[Guess]()
        for _ in range(min(limit, self.room(text))):
            logits = self._computed(tokens, 1)
            with as_model_errors():
                guess = self._drawing.drawn_last(
                    logits, tokens, num_guessed=num_guessed + len(guesses)
                )
            tokens.append(guess.token)
            guesses.append(guess)
        return tuple(guesses)

    def can_draft(self, text: Sequence[TokenId]) -> bool:
        """Return whether the text fits the model's context and vocabulary; without that `logits` must not be called."""
        return len(text) <= self._max_length and max(text) < self._vocabulary_size

    def room(self, text: Sequence[TokenId]) -> int:
        """Return how many tokens can be guessed after a text; 0 where none can."""
        if not self.can_draft(text):
            return 0
        # The last guess needs no row of its own.
        return min(self._end - len(text), self._max_length - len(text) + 1)

    def logits(self, text: Sequence[TokenId]) -> Tensor:
        """Compute what of a text is not known yet; return the logits after it, [V].

        Raises:
            ModelError: the model failed.
        """
        return self.last_logits(text, 1)[0]

    def last_logits(self, text: Sequence[TokenId], count: int) -> Tensor:
        """Return the logits after each of the last `count` tokens of a text, all but the first output: [count, V].

        Raises:
            ModelError: the model failed.
        """
        return self._computed(text, count).of(0)[-count:]

    def drawn(self, logits: Tensor, text: Sequence[TokenId]) -> Guess:
        """Return what the target would draw after a text if it had these logits, [V]."""
        return self._drawing.drawn(logits, text)

    def draw_with(self, drawing: Drawing) -> None:
        """From now on let another drawing make tokens of logits."""
        self._drawing = drawing

    def close(self) -> None:
        """Free the keys and values; the engine may keep them for the next turn."""
        if self._sequence is not None:
            self._engine.close(self._sequence)

    def _computed(self, text: Sequence[TokenId], count: int) -> Logits:
        """Compute what of a text is not known yet; return at least the logits after its last `count` tokens."""
        first = len(text) - count
        with as_model_errors():
            while self._advance(text[: first + 1]):
                pass
            self._go_back(text, first)
            return self._run(text[len(self._known) :], logits="last" if count == 1 else "all")

    def _advance(self, text: Sequence[TokenId]) -> bool:
        """Compute a piece of `text` without its last token; return whether some of that is left."""
        sequence = self._open(text) if self._sequence is None else self._sequence
        if sequence.length < len(sequence.prompt):
            if sequence.waiting_for_prefix:
                self._engine.take_over(sequence)
            self._engine.forward([sequence.prefill_group(PREFILL_ROWS)])
            self._known = list(sequence.prompt[: sequence.length])
            return True
        self._go_back(text, len(text) - 1)
        left = text[len(self._known) : len(text) - 1]
        if len(left) <= 1:  # `extend` runs one row more as cheaply as one
            return False
        self._run(left[:PREFILL_ROWS])
        return len(left) > PREFILL_ROWS

    def _open(self, text: Sequence[TokenId]) -> CacheSequence:
        # Without the last token of the prompt, which is run again whenever the text is just the prompt; what the engine
        # may share with others, it does not take back.
        prompt = tuple(text[: self._prompt_length - 1])
        self._sequence = self._engine.open(
            max_length=self._max_length, max_pending=self._max_pending, prompt=prompt, tenant=TENANT
        )
        self._known = list(prompt[: self._sequence.length])
        return self._sequence

    def _go_back(self, text: Sequence[TokenId], most: int) -> None:
        """Forget what differs from `text`, and what goes beyond its first `most` tokens."""
        length = min(common_length(self._known, text), most)
        if length < len(self._known):
            assert self._sequence is not None
            self._engine.rollback(self._sequence, length)
            del self._known[length:]

    def _run(self, tokens: Sequence[TokenId], *, logits: Literal["all", "last"] = "last") -> Logits:
        """Compute the next tokens; return the logits after the last one or after all."""
        assert self._sequence is not None
        group = RowGroup(sequence=self._sequence, tokens=tokens, logits=logits, commit=True)
        computed = self._engine.forward([group])
        self._known.extend(tokens)
        return computed


@contextmanager
def as_model_errors() -> Iterator[None]:
    """Turn what a model raises into a ModelError. The verifier does without our drafts; all that can go wrong here is told as one kind of error."""
    try:
        yield
    except (OverloadedError, InvalidRequestError) as error:
        raise ModelError(f"drafting: {error}") from error
    except RuntimeError as error:  # what PyTorch raises, out of memory included
        raise ModelError(f"drafting: the model failed: {error}") from error
