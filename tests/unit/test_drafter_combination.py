"""Drafters put together: who guesses where, chances that hold, and caches that stay right."""

from collections.abc import Sequence
from random import Random

import pytest
from harness.drafters import Broken
from harness.models import VOCABULARY_SIZE, llama_config, tiny_llama, tiny_model
from harness.reference import reference_output

from edge.drafters import model
from edge.drafters.calibrated import CalibratedDrafter
from edge.drafters.combination import CombinedDrafter
from edge.drafters.hierarchy import HierarchyDrafter
from edge.drafters.lookup import LookupDrafter
from edge.drafters.model import ModelDrafter
from edge.drafters.suffix import SuffixDrafter
from paceline.clock import Clock
from paceline.drafter import Guess, ScoringDrafter, tokens_of
from paceline.errors import ModelError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=1.0, seed=5)
PENALISED = SamplingSettings(temperature=0.7, repetition_penalty=1.3, frequency_penalty=0.4, seed=5)
PROMPT = tuple(TokenId(4 + (7 * i) % 250) for i in range(20))
COUNT = 24


class Scripted:
    """Guesses the same token with the same confidence everywhere; none at confidence 0."""

    def __init__(self, name: str, token: int, confidence: float) -> None:
        self.name = name
        self.token = TokenId(token)
        self.confidence = confidence
        self.num_calls = 0

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> "Scripted":
        return self

    def prepare(self, text: Sequence[TokenId]) -> bool:
        return False

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        self.num_calls += 1
        found = Guess(token=self.token, chance=self.confidence)
        return (found,) * limit if self.confidence else ()

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        return tokens_of(self.guess(text, limit))

    def close(self) -> None:
        return None


class Stopped:
    """A clock that stands: every pass seems to be free, so that all that may help does."""

    def now_s(self) -> float:
        return 0.0


def _ids(*tokens: int) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, tokens))


def _model() -> ModelDrafter:
    return ModelDrafter(tiny_llama(), vocabulary_size=VOCABULARY_SIZE)


def _expected(sampling: SamplingSettings, count: int = COUNT) -> tuple[TokenId, ...]:
    return tuple(
        reference_output(
            tiny_model(llama_config()),
            PROMPT,
            sampling=sampling,
            max_tokens=count,
            stop_tokens=(),
            vocabulary_size=VOCABULARY_SIZE,
        )
    )


def test_calibration_learns_from_the_text_alone() -> None:
    drafter = CalibratedDrafter(Scripted("sure", 1, 0.9))
    rng, text = Random(0), [TokenId(0)]
    draft = drafter.open(prompt_length=1, max_tokens=1000, sampling=GREEDY)
    first = draft.guess(text, 1)[0].chance
    for _ in range(600):
        text.append(TokenId(int(rng.random() < 0.3)))
        last = draft.guess(text, 1)[0].chance
    assert first == pytest.approx(0.9)
    assert last == pytest.approx(0.3, abs=0.08)
    # What draws have taught says nothing of greedy text, and the other way round.
    noisy = drafter.open(prompt_length=1, max_tokens=10, sampling=NOISY)
    assert noisy.guess(text, 1)[0].chance == pytest.approx(0.9)


def test_a_guess_is_judged_once_and_only_after_its_own_text() -> None:
    drafter = CalibratedDrafter(Scripted("one", 1, 0.9))
    scores = drafter._scores[True]
    draft = drafter.open(prompt_length=1, max_tokens=100, sampling=GREEDY)
    draft.guess(_ids(7), 3)
    assert scores.num_judged == 0
    draft.guess(_ids(7, 1, 1, 1), 2, num_guessed=3)  # nothing is committed yet
    assert scores.num_judged == 0
    draft.guess(_ids(7, 1, 5), 1)  # the second was wrong: those behind it are not judged
    assert scores.num_judged == 2
    draft.guess(_ids(7, 1, 5, 9), 1)
    assert scores.num_judged == 3
    draft.guess(_ids(7, 1, 5, 9), 1)
    assert scores.num_judged == 3


def test_the_first_that_is_sure_enough_guesses() -> None:
    cheap, dear = Scripted("cheap", 1, 0.9), Scripted("dear", 2, 0.9)
    combined = CombinedDrafter([cheap, dear])
    assert combined.name == "cheap+dear"
    draft = combined.open(prompt_length=1, max_tokens=9, sampling=GREEDY)
    assert draft.extend(_ids(0), 3) == _ids(1, 1, 1)
    cheap.confidence = 0.0
    assert draft.extend(_ids(0), 3) == _ids(2, 2, 2)
    cheap.confidence = 0.05
    assert draft.extend(_ids(0), 1) == _ids(2)
    dear.confidence = 0.0
    assert draft.extend(_ids(0), 2) == ()
    assert draft.num_guesses == [3, 4]


def test_who_turns_out_wrong_is_asked_no_more() -> None:
    combined = CombinedDrafter([Scripted("boaster", 1, 0.95), Scripted("modest", 2, 0.6)])
    draft = combined.open(prompt_length=1, max_tokens=1000, sampling=GREEDY)
    text = _ids(0)
    for _ in range(100):  # the text is all twos
        draft.extend(text, 2)
        text = (*text, TokenId(2))
    assert draft.extend(text, 4) == _ids(2, 2, 2, 2)


@pytest.mark.parametrize("sampling", [GREEDY, NOISY, PENALISED])
@pytest.mark.parametrize("table", [LookupDrafter(shortest=1), SuffixDrafter()])
def test_the_models_cache_stays_right_whoever_guesses(
    sampling: SamplingSettings, table: ScoringDrafter
) -> None:
    expected = _expected(sampling)
    combined = CombinedDrafter([table, _model()])
    draft = combined.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=sampling)
    rng = Random(1)
    while draft.prepare(PROMPT):
        pass
    for right in range(COUNT - 1):
        noise = tuple(TokenId(rng.randrange(4, 250)) for _ in range(rng.randrange(3)))
        text = (*PROMPT, *expected[:right])
        draft.extend((*text, *noise), 2, num_guessed=len(noise))
        model = draft._drafts[1]
        assert model.extend(text, 1) == expected[right : right + 1]
    draft.close()


@pytest.mark.parametrize("sampling", [GREEDY, NOISY, PENALISED])
def test_a_model_that_is_drafted_for_guesses_what_it_would_alone(
    sampling: SamplingSettings,
) -> None:
    expected = _expected(sampling)
    small = ModelDrafter(tiny_llama(), vocabulary_size=VOCABULARY_SIZE)
    for helper, most_passes in ((small, COUNT // 4), (LookupDrafter(shortest=1), COUNT)):
        drafter = HierarchyDrafter([helper], _model(), clock=Stopped())
        draft = drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=sampling)
        while draft.prepare(PROMPT):
            pass
        text = PROMPT
        while len(text) < len(PROMPT) + COUNT:
            guesses = draft.extend(text, 3, num_guessed=len(text) - len(PROMPT))
            assert guesses == expected[len(text) - len(PROMPT) :][: len(guesses)]
            assert guesses
            text += guesses
        # The helper with the same weights is always right: eight guesses and one more in each pass.
        assert draft.num_passes <= most_passes
        assert draft.extend(text, 3) == ()
        draft.close()


class Ticking:
    """A clock on which everything takes one second, whatever is done."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        self._now_s += 1.0
        return self._now_s


@pytest.mark.slow
@pytest.mark.parametrize("clock", [Stopped(), Ticking(), None])
def test_a_chain_of_drafters_guesses_what_the_last_would_alone(clock: Clock | None) -> None:
    for sampling in (GREEDY, NOISY):
        expected = _expected(sampling)
        middle = ModelDrafter(tiny_llama(), vocabulary_size=VOCABULARY_SIZE)
        drafter = HierarchyDrafter([LookupDrafter(shortest=1), middle], _model(), clock=clock)
        draft = drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=sampling)
        assert tokens_of(draft.guess(PROMPT, COUNT)) == expected
        rng = Random(4)
        for _ in range(12):
            right = rng.randrange(COUNT - 1)
            assert draft.extend((*PROMPT, *expected[:right]), 2) == expected[right : right + 2]
        draft.close()


@pytest.mark.slow
def test_a_helper_that_costs_more_than_it_brings_is_hardly_asked() -> None:
    helper = Scripted("wrong", 3, 0.5)
    drafter = HierarchyDrafter([helper], _model(), clock=Ticking())
    draft = drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=GREEDY)
    for _ in range(2 * COUNT):
        draft.extend(PROMPT, 1)
        draft.extend((*PROMPT, TokenId(9)), 1)
    draft.close()
    assert draft.num_passes == 4 * COUNT
    assert 0 < helper.num_calls < COUNT // 2


def test_a_hierarchy_follows_texts_that_turn_back() -> None:
    expected = _expected(GREEDY)
    drafter = HierarchyDrafter([LookupDrafter(shortest=1)], _model())
    assert drafter.name == "hierarchy:lookup+tiny-llama-0"
    draft = drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=GREEDY)
    rng = Random(3)
    for _ in range(12):
        right = rng.randrange(COUNT - 1)
        wrong = tuple(TokenId(rng.randrange(4, 250)) for _ in range(rng.randrange(4)))
        draft.extend((*PROMPT, *expected[:right], *wrong)[: len(PROMPT) + COUNT], 3)
        assert draft.extend((*PROMPT, *expected[:right]), 1) == expected[right : right + 1]
    draft.close()


def test_a_helper_that_is_tried_again_reads_what_it_missed_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "PREFILL_ROWS", 16)
    small = ModelDrafter(tiny_llama(), vocabulary_size=VOCABULARY_SIZE)
    drafter = HierarchyDrafter([small], _model(), clock=Stopped())
    draft = drafter.open(prompt_length=len(PROMPT), max_tokens=200, sampling=GREEDY)
    while draft.prepare(PROMPT):
        pass
    draft.extend(PROMPT, 1)  # from here on helpers read when they are asked
    text = (*PROMPT, *(TokenId(4 + (11 * i) % 250) for i in range(100)))
    rows, passes = [], []
    for _ in range(12):
        had_rows, had_passes = small.engine.work.rows_written, draft.num_passes
        while draft.prepare(text):
            pass
        guesses = draft.extend(text, 4)
        assert len(guesses) == 4
        rows.append(small.engine.work.rows_written - had_rows)
        passes.append(draft.num_passes - had_passes)
        text = (*text, *guesses)
    # Six pieces of 16 tokens, and no call has more; then it helps as before.
    assert max(rows[:6]) <= 16
    assert passes[:3] == [4, 4, 4]
    assert sum(passes[-5:]) < 20
    draft.close()


def test_a_part_that_fails_fails_the_whole() -> None:
    # The pump leaves such a drafter alone; hiding it would leave the user with a slow edge and no word of why.
    drafter = HierarchyDrafter([Broken()], _model())
    draft = drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=GREEDY)
    with pytest.raises(ModelError, match="broken"):
        draft.extend(PROMPT, 1)
