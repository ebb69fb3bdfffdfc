"""A model that drafts trees: whatever was committed, dropped or asked before, guesses are those of a model run afresh."""

import random
from collections.abc import Sequence

import pytest
import torch
from harness.models import VOCABULARY_SIZE, llama_config, tiny_engine

from edge.drafters import tree
from edge.drafters.model import ModelDrafter
from edge.drafters.tree import TreeDrafter, TreeModelDraft
from paceline.drafter import TreeDraft, tokens_of
from paceline.engine.engine import Engine
from paceline.errors import ModelError
from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=0.8, seed=11)
PENALISED = SamplingSettings(temperature=0.7, repetition_penalty=1.3, top_k=40, seed=5)
PROMPT = tuple(TokenId(4 + (7 * i) % 250) for i in range(20))
COUNT = 60


@pytest.fixture
def engine() -> Engine:
    torch.set_num_threads(1)
    return tiny_engine(llama_config())


def opened(engine: Engine, sampling: SamplingSettings = GREEDY) -> TreeModelDraft:
    drafter = TreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE)
    return drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=sampling)


def best(
    engine: Engine, text: Sequence[TokenId], sampling: SamplingSettings, width: int
) -> tuple[TokenId, ...]:
    """The `width` best candidates after a text, by a chain drafter that knows nothing else."""
    fresh = ModelDrafter(engine, vocabulary_size=VOCABULARY_SIZE).open(
        prompt_length=len(PROMPT), max_tokens=COUNT, sampling=sampling
    )
    logits = fresh.logits(text)
    fresh.close()
    has_penalties = sampling.repetition_penalty != 1.0
    sampler = Sampler(sampling, vocabulary_size=VOCABULARY_SIZE, device=logits.device)
    path = tuple(text[len(PROMPT) :]) if has_penalties else ()
    return sampler.rank(logits, position=Position(len(text)), k=width, path=path).tokens


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, NOISY, PENALISED], ids=["greedy", "noisy", "penal"])
@pytest.mark.parametrize("most", [768, 12], ids=["roomy", "tight"])
def test_a_tree_is_what_chains_would_be(
    engine: Engine, sampling: SamplingSettings, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_PENDING", most)
    rng = random.Random(most)
    draft = opened(engine, sampling)
    assert isinstance(draft, TreeDraft)
    text = [*PROMPT]
    leaves: list[tuple[TokenId, ...]] = [()]
    while len(text) < len(PROMPT) + 30:
        paths = rng.sample(leaves, min(len(leaves), rng.randrange(1, 4)))
        for path, guesses in zip(paths, draft.branch(text, paths, width=3), strict=True):
            expected = best(engine, (*text, *path), sampling, 3)
            assert set(tokens_of(guesses)) == set(expected)
            assert guesses[0].token == expected[0]
            if len(path) < 4:
                leaves += [(*path, guess.token) for guess in guesses]
        if rng.random() < 0.4:
            # The target agrees with some guesses, and then goes on as it likes.
            gone = [*rng.choice(leaves), TokenId(rng.randrange(VOCABULARY_SIZE))]
            gone = gone[: rng.randrange(1, len(gone) + 1)]
            text += gone
            below = [path[len(gone) :] for path in leaves if list(path[: len(gone)]) == gone]
            leaves = [*dict.fromkeys(((), *below))][:20]
    draft.close()
    assert engine.memory.reserved == 0


def test_a_text_that_is_taken_back_or_leaps_ahead(engine: Engine) -> None:
    draft = opened(engine)
    (first,) = draft.branch(PROMPT, [()], width=2)
    child = first[0].token
    draft.branch(PROMPT, [(child,)], width=2)
    leap = (*PROMPT, *(TokenId(5 + i) for i in range(50)))
    (after,) = draft.branch(leap, [()], width=2)
    assert tokens_of(after) == best(engine, leap, GREEDY, 2)
    draft.branch(leap, [(after[0].token,)], width=2)
    (again,) = draft.branch(PROMPT, [(child,)], width=2)
    assert tokens_of(again) == best(engine, (*PROMPT, child), GREEDY, 2)
    draft.close()


def test_a_tree_and_then_a_chain(engine: Engine) -> None:
    draft = opened(engine)
    (first,) = draft.branch(PROMPT, [()], width=2)
    draft.branch(PROMPT, [(first[1].token,)], width=2)
    chain = draft.extend(PROMPT, 3)
    assert chain[0] == first[0].token
    assert chain[1] == best(engine, (*PROMPT, chain[0]), GREEDY, 1)[0]
    (after,) = draft.branch((*PROMPT, chain[0]), [()], width=1)
    assert after[0].token == chain[1]
    draft.close()


def test_nothing_comes_after_the_end_or_a_strange_token(engine: Engine) -> None:
    draft = opened(engine)
    end = tuple(TokenId(5) for _ in range(COUNT))
    strange = (TokenId(VOCABULARY_SIZE + 3),)
    found = draft.branch(PROMPT, [end, (), strange], width=2)
    assert [len(guesses) for guesses in found] == [0, 2, 0]
    assert draft.branch((*PROMPT, *end), [()], width=2) == ((),)
    draft.close()


def test_nothing_is_guessed_after_a_path_that_the_cache_cannot_hold(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_PENDING", 12)
    draft = opened(engine)
    fits = tuple(TokenId(9 + i) for i in range(11))
    deep, other = (*fits, TokenId(40)), tuple(TokenId(60 + i) for i in range(10))
    found = draft.branch(PROMPT, [deep, fits, (*deep, TokenId(50)), other], width=2)
    # The two that fit take a pass each: together they do not.
    assert [len(guesses) for guesses in found] == [0, 2, 0, 2]
    assert tokens_of(found[1]) == best(engine, (*PROMPT, *fits), GREEDY, 2)
    assert tokens_of(found[3]) == best(engine, (*PROMPT, *other), GREEDY, 2)
    assert draft.branch(PROMPT, [deep], width=2) == ((),)
    draft.close()


@pytest.mark.slow
def test_chances_become_what_happens(engine: Engine) -> None:
    """A target that always takes the second candidate: the draft learns that, rank by rank."""
    drafter = TreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE)
    for seed in range(12):
        prompt = tuple(TokenId(4 + (seed + 7 * i) % 250) for i in range(20))
        draft = drafter.open(prompt_length=20, max_tokens=COUNT, sampling=GREEDY)
        text = [*prompt]
        for _ in range(40):
            (guesses,) = draft.branch(text, [()], width=3)
            text.append(guesses[1].token)
        draft.close()
    first, second, third = (guess.chance for guess in guesses)
    assert second > 0.8
    assert max(first, third) < 0.2


def test_a_model_that_fails_is_told_as_such(engine: Engine) -> None:
    draft = opened(engine)
    draft.branch(PROMPT, [()], width=2)

    def out_of_memory(groups: object) -> None:
        raise RuntimeError("out of memory")

    engine.forward = out_of_memory  # type: ignore[assignment,method-assign]
    with pytest.raises(ModelError, match="out of memory"):
        draft.branch(PROMPT, [(TokenId(5),)], width=2)
