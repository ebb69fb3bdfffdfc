"""A model as drafter: it draws what a target with the same weights draws, whatever the text did in between."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from harness.models import (
    VOCABULARY_SIZE,
    llama_config,
    save_tiny,
    tiny_engine,
    tiny_model,
    tiny_tokenizer,
)
from harness.reference import reference_output

from edge.drafters import load_drafter
from edge.drafters.lookup import LookupDrafter
from edge.drafters.model import PREFILL_ROWS, ModelDraft, ModelDrafter
from paceline.engine.engine import Engine
from paceline.engine.rows import EngineSettings
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError, IncompatibleError, ModelError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=0.8, seed=11)
FILTERED = SamplingSettings(temperature=0.8, top_p=0.9, top_k=40, seed=12)
PENALISED = SamplingSettings(temperature=0.7, repetition_penalty=1.3, frequency_penalty=0.4, seed=5)
SETTINGS = [GREEDY, NOISY, FILTERED, PENALISED]
PROMPT = tuple(TokenId(4 + (7 * i) % 250) for i in range(20))
COUNT = 24


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    return tiny_model(llama_config())


def _engine(settings: EngineSettings | None = None, **changes: Any) -> Engine:
    return tiny_engine(llama_config(**changes), settings=settings)


def _open(
    engine: Engine,
    sampling: SamplingSettings,
    prompt: Sequence[TokenId] = PROMPT,
    count: int = COUNT,
) -> ModelDraft:
    drafter = ModelDrafter(engine, vocabulary_size=VOCABULARY_SIZE)
    return drafter.open(prompt_length=len(prompt), max_tokens=count, sampling=sampling)


def _expected(
    model: Any, sampling: SamplingSettings, prompt: Sequence[TokenId] = PROMPT, count: int = COUNT
) -> tuple[TokenId, ...]:
    return tuple(
        reference_output(
            model,
            prompt,
            sampling=sampling,
            max_tokens=count,
            stop_tokens=(),
            vocabulary_size=VOCABULARY_SIZE,
        )
    )


@pytest.mark.parametrize("sampling", SETTINGS)
def test_the_targets_own_weights_guess_everything_right(
    model: Any, sampling: SamplingSettings
) -> None:
    expected = _expected(model, sampling)
    draft = _open(_engine(), sampling)
    text = PROMPT
    while len(text) < len(PROMPT) + COUNT:
        guesses = draft.extend(text, 5)
        assert guesses == expected[len(text) - len(PROMPT) :][: len(guesses)]
        assert guesses
        text += guesses
    draft.close()


@pytest.mark.parametrize("sampling", [GREEDY, PENALISED])
def test_texts_that_turn_back_do_not_confuse_it(model: Any, sampling: SamplingSettings) -> None:
    expected = _expected(model, sampling)
    draft = _open(_engine(), sampling)
    rng = Random(3)
    for _ in range(12):
        right = rng.randrange(COUNT - 1)
        wrong = tuple(TokenId(rng.randrange(4, 250)) for _ in range(rng.randrange(4)))
        draft.extend((*PROMPT, *expected[:right], *wrong)[: len(PROMPT) + COUNT], 3)
        assert draft.extend((*PROMPT, *expected[:right]), 1) == expected[right : right + 1]
    draft.close()


def test_a_long_prompt_is_computed_in_pieces(model: Any) -> None:
    prompt = tuple(TokenId(4 + (i * i) % 250) for i in range(3 * PREFILL_ROWS + 5))
    engine = _engine()
    draft = _open(engine, GREEDY, prompt, 8)
    rows = [engine.work.rows_written]
    while draft.prepare(prompt):
        rows.append(engine.work.rows_written)
    pieces = [after - before for before, after in pairwise(rows)]
    assert pieces[:3] == [PREFILL_ROWS] * 3
    assert max(pieces) == PREFILL_ROWS
    assert draft.extend(prompt, 4) == _expected(model, GREEDY, prompt, 4)
    draft.close()


def test_nothing_is_computed_twice() -> None:
    engine = _engine()
    draft = _open(engine, GREEDY)
    guesses = draft.extend(PROMPT, 4)
    assert engine.work.rows_written == len(PROMPT) + 3
    draft.extend((*PROMPT, *guesses), 4)
    assert engine.work.rows_written == len(PROMPT) + 7
    # Two guesses right, then another token: only what follows the common beginning is computed.
    other = TokenId((guesses[2] + 1) % 250 + 4)
    draft.extend((*PROMPT, *guesses[:2], other), 1)
    assert engine.work.rows_written == len(PROMPT) + 8
    draft.close()


def test_the_next_turn_prefills_only_what_is_new() -> None:
    engine = _engine()
    draft = _open(engine, GREEDY)
    answer = draft.extend(PROMPT, 8)
    draft.close()
    before = engine.work.rows_written
    question = tuple(map(TokenId, (40, 41, 42)))
    turn = (*PROMPT, *answer, *question)
    _open(engine, GREEDY, turn).extend(turn, 1)
    # The last answer token was a guess without a row.
    assert engine.work.rows_written - before == len(question) + 1


def test_two_generations_share_a_prompt_and_the_model(model: Any) -> None:
    engine = _engine()
    first, second = _open(engine, GREEDY), _open(engine, NOISY)
    assert first.extend(PROMPT, 4) == _expected(model, GREEDY, count=4)
    assert second.extend(PROMPT, 4) == _expected(model, NOISY, count=4)
    first.close()
    assert second.extend(PROMPT, 6) == _expected(model, NOISY, count=6)
    second.close()


def test_one_that_waits_for_the_other_does_not_wait_for_long(model: Any) -> None:
    prompt = tuple(TokenId(4 + (i * i) % 250) for i in range(2 * PREFILL_ROWS))
    engine = _engine()
    first, second = _open(engine, GREEDY, prompt), _open(engine, GREEDY, prompt)
    first.prepare(prompt)
    assert second.extend(prompt, 2) == _expected(model, GREEDY, prompt, 2)
    assert first.extend(prompt, 2) == _expected(model, GREEDY, prompt, 2)
    first.close()
    second.close()


def test_memory_is_given_back() -> None:
    engine = _engine()
    draft = _open(engine, GREEDY)
    draft.extend(PROMPT, 4)
    assert engine.memory.reserved > 0
    draft.close()
    assert engine.memory.reserved == 0
    engine.clear_prefixes()
    assert engine.memory.used == 0


def test_a_context_shorter_than_the_text_has_no_guess(model: Any) -> None:
    draft = _open(_engine(max_position_embeddings=24), GREEDY)
    expected = _expected(model, GREEDY)
    assert (
        draft.extend(PROMPT, 9) == expected[:5]
    )  # 24 rows: 20 of the prompt, 4 guesses, and one without a row
    assert draft.extend((*PROMPT, *expected[:4]), 9) == expected[4:5]
    assert draft.extend((*PROMPT, *expected[:5]), 9) == ()
    assert not draft.prepare((*PROMPT, *expected[:5]))
    draft.close()


def test_it_guesses_no_further_than_the_text_can_go(model: Any) -> None:
    draft = _open(_engine(), GREEDY, PROMPT, 3)
    assert draft.extend(PROMPT, 9) == _expected(model, GREEDY, count=3)
    draft.close()


def test_a_prompt_of_one_token(model: Any) -> None:
    prompt = PROMPT[:1]
    draft = _open(_engine(), GREEDY, prompt)
    assert draft.extend(prompt, 3) == _expected(model, GREEDY, prompt, 3)
    draft.close()


def test_tokens_beyond_the_models_vocabulary_have_no_guess() -> None:
    draft = _open(_engine(), GREEDY)
    assert draft.extend((*PROMPT, TokenId(VOCABULARY_SIZE)), 3) == ()


def test_no_memory_is_a_model_error() -> None:
    draft = _open(_engine(EngineSettings(memory_bytes=1000)), GREEDY)
    with pytest.raises(ModelError, match="drafting: cache"):
        draft.extend(PROMPT, 1)
    draft.close()


def test_a_model_that_fails_is_a_model_error() -> None:
    engine = _engine()
    draft = _open(engine, GREEDY)
    draft.extend(PROMPT, 1)
    with torch.no_grad():
        next(engine._model.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="finite"):
        draft.extend((*PROMPT, TokenId(9)), 1)
    engine._model.lm_head = torch.nn.Linear(3, VOCABULARY_SIZE)  # of the wrong shape
    with pytest.raises(ModelError, match="drafting: the model failed"):
        draft.extend((*PROMPT, TokenId(8)), 1)
    draft.close()


# --- by name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def _tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer(), name="tiny")


def test_lookup_by_name() -> None:
    assert isinstance(load_drafter("lookup", tokenizer=_tokenizer()), LookupDrafter)


def test_a_model_by_folder(folder: Path, model: Any) -> None:
    drafter = load_drafter(str(folder), tokenizer=_tokenizer())
    assert drafter.name == str(folder)
    draft = drafter.open(prompt_length=len(PROMPT), max_tokens=4, sampling=NOISY)
    assert draft.extend(PROMPT, 4) == _expected(model, NOISY, count=4)
    draft.close()


def test_another_tokenizer_is_refused_with_both_fingerprints(folder: Path) -> None:
    inner = tiny_tokenizer()
    inner.add_tokens(["<|more|>"])
    other = Tokenizer(inner, name="other")
    with pytest.raises(IncompatibleError) as caught:
        load_drafter(str(folder), tokenizer=other)
    assert other.fingerprint.hex() in str(caught.value)
    assert _tokenizer().fingerprint.hex() in str(caught.value)
    assert "'lookup'" in str(caught.value)


@pytest.mark.parametrize("spec", ["none", "/nowhere/draft.gguf"])
def test_what_is_not_there_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        load_drafter(spec, tokenizer=_tokenizer())
