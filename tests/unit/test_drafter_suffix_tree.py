"""A tree of a model that asks the suffix n-gram too: what followed becomes a guess, at no cost in passes, with chances that hold."""

import random
from collections.abc import Sequence

import pytest
import torch
from harness.models import VOCABULARY_SIZE, llama_config, tiny_engine

from edge.drafters.judging import Judge, Made
from edge.drafters.suffix_tree import Kind, SuffixTreeDrafter
from edge.drafters.tree import TreeDrafter, TreeModelDraft
from paceline.control.node_scores import NodeScores, calibration_error
from paceline.drafter import Guess, TreeDraft, tokens_of
from paceline.engine.engine import Engine
from paceline.engine.rows import Logits, RowGroup
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=0.8, seed=11)
PENALISED = SamplingSettings(temperature=0.7, repetition_penalty=1.3, top_k=40, seed=5)
SAMPLINGS = [GREEDY, NOISY, PENALISED]
IDS = ["greedy", "noisy", "penal"]
COUNT = 60
VERSE = tuple(TokenId(100 + (37 * i) % 150) for i in range(9))
"""Nine tokens, no pair twice."""
PROMPT = (*VERSE, TokenId(7), *VERSE, TokenId(8), *VERSE[:3])
STRANGE = tuple(TokenId(4 + (7 * i) % 250) for i in range(20))
"""Holds no pair twice."""


@pytest.fixture
def engine() -> Engine:
    torch.set_num_threads(1)
    return tiny_engine(llama_config())


def opened(
    kind: type[TreeDrafter],
    engine: Engine,
    sampling: SamplingSettings = GREEDY,
    *,
    prompt: Sequence[TokenId] = PROMPT,
) -> TreeModelDraft:
    drafter = kind(engine, vocabulary_size=VOCABULARY_SIZE)
    return drafter.open(prompt_length=len(prompt), max_tokens=COUNT, sampling=sampling)


def passes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each pass from now on."""
    told, forward = list[int](), engine.forward

    def counted(groups: Sequence[RowGroup]) -> Logits:
        told.append(sum(len(group.tokens) for group in groups))
        return forward(groups)

    monkeypatch.setattr(engine, "forward", counted)
    return told


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=IDS)
def test_what_followed_is_among_the_guesses(engine: Engine, sampling: SamplingSettings) -> None:
    plain, both = (opened(kind, engine, sampling) for kind in (TreeDrafter, SuffixTreeDrafter))
    assert isinstance(both, TreeDraft)
    without, found = 0, 0
    for count in range(3, len(VERSE)):
        text = (*PROMPT, *VERSE[3:count])
        without += VERSE[count] in tokens_of(plain.branch(text, [()], width=3)[0])
        found += VERSE[count] in tokens_of(both.branch(text, [()], width=3)[0])
    # The noise may be for another token, as it may be at the target.
    assert found > without
    assert not sampling.is_greedy or found == len(VERSE) - 3


def test_each_leaf_hears_what_followed_its_own_path(engine: Engine) -> None:
    plain, both = (opened(kind, engine) for kind in (TreeDrafter, SuffixTreeDrafter))
    paths = [VERSE[3:4], VERSE[3:7], (*VERSE[3:5], TokenId(5))]
    without = plain.branch(PROMPT, paths, width=2)
    found = both.branch(PROMPT, paths, width=2)
    assert [guesses[0].token for guesses in found[:2]] == [VERSE[4], VERSE[7]]
    assert not {VERSE[4], VERSE[7]} & {guesses[0].token for guesses in without}
    # Nothing followed the third: its guesses are the model's own.
    assert tokens_of(found[2]) == tokens_of(without[2])


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=IDS)
def test_the_model_decides_where_nothing_followed(
    engine: Engine, sampling: SamplingSettings
) -> None:
    plain, both = (
        opened(kind, engine, sampling, prompt=STRANGE) for kind in (TreeDrafter, SuffixTreeDrafter)
    )
    paths = [(), (TokenId(33),), (TokenId(33), TokenId(77))]
    for own, same in zip(
        plain.branch(STRANGE, paths, width=3), both.branch(STRANGE, paths, width=3), strict=True
    ):
        assert tokens_of(own) == tokens_of(same)
        chances = [guess.chance for guess in same]
        assert chances == pytest.approx([guess.chance for guess in own], abs=1e-4)


def test_a_token_that_the_model_cannot_say_stays_unsaid(engine: Engine) -> None:
    engine.limit_output(torch.tensor([token for token in range(250) if token != VERSE[4]]))
    draft = opened(SuffixTreeDrafter, engine)
    silent, said = draft.branch(PROMPT, [VERSE[3:4], VERSE[3:6]], width=200)
    assert VERSE[4] not in tokens_of(silent)
    assert said[0].token == VERSE[6]


def test_a_strange_token_in_the_text_is_not_guessed(engine: Engine) -> None:
    beyond = TokenId(VOCABULARY_SIZE + 5)
    draft = opened(SuffixTreeDrafter, engine)
    draft.close()
    drafter = SuffixTreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE)
    first = drafter.open(prompt_length=len(STRANGE), max_tokens=COUNT, sampling=GREEDY)
    first.branch(STRANGE, [()], width=2)
    assert first.branch((*STRANGE, TokenId(3), *VERSE[:3], beyond), [()], width=2) == ((),)
    first.close()
    second = drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=GREEDY)
    (guesses,) = second.branch((*STRANGE, TokenId(3), *VERSE[:3]), [()], width=4)
    assert len(guesses) == 4
    assert max(tokens_of(guesses)) < VOCABULARY_SIZE


def test_earlier_answers_are_remembered_and_freed_with_the_drafter(engine: Engine) -> None:
    drafter = SuffixTreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE)
    for is_first in (True, False):
        draft = drafter.open(prompt_length=len(STRANGE), max_tokens=COUNT, sampling=GREEDY)
        text = (*STRANGE, *VERSE[:4])
        (guesses,) = draft.branch(text, [()], width=2)
        assert (guesses[0].token == VERSE[4]) is not is_first
        draft.branch((*text, *VERSE[4:]), [()], width=2)
        draft.close()
    assert engine.memory.reserved == 0


def test_it_takes_the_same_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same questions, about texts and trees that go many ways."""
    needed = []
    for kind in (TreeDrafter, SuffixTreeDrafter):
        engine = tiny_engine(llama_config())
        told = passes(engine, monkeypatch)
        rng, draft, text = random.Random(3), opened(kind, engine), [*PROMPT]
        while draft.prepare(text):
            pass
        while len(text) < len(PROMPT) + 30:
            paths = [
                tuple(TokenId(rng.choice(VERSE)) for _ in range(rng.randrange(4)))
                for _ in range(rng.randrange(1, 4))
            ]
            draft.branch(text, list(dict.fromkeys(paths)), width=3)
            text += rng.choice(paths)[: rng.randrange(1, 4)]
        draft.close()
        needed.append(told)
    assert needed[0] == needed[1]
    assert len(needed[0]) > 10


def test_each_kind_has_chances_of_its_own() -> None:
    scores = tuple(NodeScores() for _ in Kind)
    judge = Judge(*scores)
    said = (Guess(token=TokenId(5), chance=0.5), Guess(token=TokenId(6), chance=0.3))
    right = {(Kind.FOLLOWED, Kind.OWN): TokenId(5), (Kind.OWN, Kind.FOLLOWED): TokenId(6)}
    for _ in range(200):
        for kinds, token in right.items():
            judge.note(Made(length=3, path=(), guesses=said, kinds=kinds))
            judge.judge((TokenId(1), TokenId(2), TokenId(3), token))
    first, second = (
        judge.calibrated(Made(length=3, path=(), guesses=said, kinds=kinds)) for kinds in right
    )
    chances = [guess.chance for guess in (*first, *second)]
    assert [chance > 0.9 for chance in chances] == [True, False, False, True]
    assert [chance < 0.1 for chance in chances] == [False, True, True, False]


@pytest.mark.slow
def test_chances_hold_though_one_side_is_always_wrong(engine: Engine) -> None:
    """A target that goes on as the text did at every second place, and as neither side says elsewhere."""
    drafter = SuffixTreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE)
    nodes = list[tuple[float, bool]]()
    for seed in range(10):
        rng = random.Random(seed)
        text = [*PROMPT, *VERSE[3:5]]
        draft = drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=GREEDY)
        for count in range(24):
            (guesses,) = draft.branch(text, [()], width=2)
            right = count % 6 < 4
            token = guesses[0].token if right else TokenId(rng.randrange(VOCABULARY_SIZE))
            nodes += [(guess.chance, guess.token == token) for guess in guesses]
            text.append(token)
        draft.close()
    assert calibration_error(nodes[-240:]) < 0.2
