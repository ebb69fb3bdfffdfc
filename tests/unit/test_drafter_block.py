"""The block drafter: what it says of a position is what a pass over the whole text with its slots says, whatever came between."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import log
from typing import Any

import pytest
import torch
from harness.models import VOCABULARY_SIZE, llama_config, tiny_model

from edge.drafters import block, continuity
from edge.drafters.block import BlockDraft, BlockDrafter
from edge.drafters.block_loading import add_inputs
from paceline.drafter import Guess, TreeDraft, tokens_of
from paceline.engine import attention
from paceline.engine.engine import Engine
from paceline.errors import ModelError
from paceline.messages import ModelIdentity
from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=0.8, seed=11)
PENALISED = SamplingSettings(temperature=0.7, repetition_penalty=1.3, top_k=40, seed=5)
PROMPT = tuple(TokenId(4 + (7 * i) % 250) for i in range(20))
COUNT = 60
NUM_SLOTS = 3
CONFIG = llama_config()


def slots() -> torch.Tensor:
    return torch.randn(NUM_SLOTS, CONFIG.hidden_size, generator=torch.Generator().manual_seed(3))


def made() -> BlockDrafter:
    model = tiny_model(CONFIG, implementation=attention.NAME)
    first = add_inputs(model, slots())
    identity = ModelIdentity(
        name="tiny",
        weights_fingerprint=bytes(32),
        dtype="float32",
        quantisation="",
        tokenizer_fingerprint=bytes(32),
        vocabulary_size=first + NUM_SLOTS,
        context_length=CONFIG.max_position_embeddings,
    )
    return BlockDrafter(
        Engine(model, identity=identity),
        vocabulary_size=VOCABULARY_SIZE,
        first_slot=first,
        num_slots=NUM_SLOTS,
    )


def opened(drafter: BlockDrafter, sampling: SamplingSettings = GREEDY) -> BlockDraft:
    return drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=sampling)


class Reference:
    """Blocks by transformers' own attention, from nothing each time."""

    def __init__(self, sampling: SamplingSettings) -> None:
        self._model = tiny_model(CONFIG)
        self._sampling = sampling

    @torch.no_grad()
    def law(self, base: Sequence[TokenId], depth: int) -> torch.Tensor:
        """Logits of the position so far behind the first one after a text."""
        embedded = self._model.get_input_embeddings()(torch.tensor(list(base)))
        rows = torch.cat((embedded, slots()[:depth]))[None]
        logits: torch.Tensor = self._model(inputs_embeds=rows, use_cache=False).logits[0, -1]
        return logits

    def best(self, base: Sequence[TokenId], path: Sequence[TokenId], width: int) -> list[TokenId]:
        """The best candidates after a path by the block at a text."""
        sampler = Sampler(
            self._sampling, vocabulary_size=VOCABULARY_SIZE, device=torch.device("cpu")
        )
        text = (*base, *path)
        counted = text[len(PROMPT) :] if self._sampling.repetition_penalty != 1.0 else ()
        law = self.law(base, len(path))
        return list(sampler.rank(law, position=Position(len(text)), k=width, path=counted).tokens)


@pytest.fixture
def no_continuity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuity, "WEIGHT", 0.0)


def held(draft: BlockDraft) -> Any:
    """The engine's sequence: no row waits, and no slot is in the text."""
    sequence = draft._sequence
    assert sequence is not None
    assert sequence.num_pending == 0
    assert max(sequence.committed_tokens) < VOCABULARY_SIZE
    assert list(sequence.committed_tokens) == draft._known
    return sequence


@pytest.mark.slow
@pytest.mark.usefixtures("no_continuity")
@pytest.mark.parametrize("sampling", [GREEDY, NOISY, PENALISED], ids=["greedy", "noisy", "penal"])
def test_a_chain_is_what_blocks_say_whatever_was_committed(sampling: SamplingSettings) -> None:
    rng = random.Random(5)
    drafter = made()
    draft, reference = opened(drafter, sampling), Reference(sampling)
    text = [*PROMPT]
    while len(text) < len(PROMPT) + 24:
        limit = rng.randrange(1, 7)
        before = drafter.engine.step_split.num_steps
        guesses = draft.extend(text, limit)
        held(draft)
        path: list[TokenId] = []
        base = list(text)
        for token in guesses:
            if len(path) > NUM_SLOTS:
                base, path = [*base, *path], []
            assert token == reference.best(base, path, 1)[0]
            path.append(token)
        assert len(guesses) == limit
        passes = drafter.engine.step_split.num_steps - before
        prefill = 1 if len(text) == len(PROMPT) else 0
        assert passes <= -(-limit // (NUM_SLOTS + 1)) + prefill
        right = rng.randrange(limit + 1)
        text += [*guesses[:right], TokenId(rng.randrange(4, VOCABULARY_SIZE))]
    draft.close()
    assert drafter.engine.memory.reserved == 0


@pytest.mark.usefixtures("no_continuity")
def test_a_block_is_asked_token_by_token_until_the_text_goes_another_way() -> None:
    drafter = made()
    draft, reference = opened(drafter), Reference(GREEDY)
    text = [*PROMPT, *draft.extend(PROMPT, 1)]
    passes = drafter.engine.step_split.num_steps
    for number in range(1, NUM_SLOTS + 1):
        text += draft.extend(text, 1, num_guessed=number)
        assert text[-1] == reference.best(PROMPT, text[len(PROMPT) : -1], 1)[0]
    assert drafter.engine.step_split.num_steps == passes
    # Others may guess some of them, if they guess the same.
    again = opened(drafter)
    again.extend(PROMPT, 1)
    passes = drafter.engine.step_split.num_steps
    assert list(again.extend(text[:-1], 1, num_guessed=NUM_SLOTS)) == text[-1:]
    assert drafter.engine.step_split.num_steps == passes
    other = [*text[:-1], TokenId((text[-1] + 1) % VOCABULARY_SIZE)]
    (after,) = draft.extend(other, 1, num_guessed=1)
    assert drafter.engine.step_split.num_steps == passes + 1
    assert after == reference.best(other, (), 1)[0]


@pytest.mark.usefixtures("no_continuity")
@pytest.mark.parametrize("sampling", [GREEDY, NOISY, PENALISED], ids=["greedy", "noisy", "penal"])
def test_leaves_within_a_block_need_no_pass(sampling: SamplingSettings) -> None:
    drafter = made()
    draft, reference = opened(drafter, sampling), Reference(sampling)
    assert isinstance(draft, TreeDraft)
    (first,) = draft.branch(PROMPT, [()], width=3)
    assert set(tokens_of(first)) == set(reference.best(PROMPT, (), 3))
    passes = drafter.engine.step_split.num_steps
    below = [(guess.token,) for guess in first]
    for path, guesses in zip(below, draft.branch(PROMPT, below, width=2), strict=True):
        assert set(tokens_of(guesses)) == set(reference.best(PROMPT, path, 2))
    assert drafter.engine.step_split.num_steps == passes
    deep = [TokenId(9), TokenId(30), TokenId(77), TokenId(140)]
    assert len(deep) == NUM_SLOTS + 1
    paths: list[tuple[TokenId, ...]] = [
        tuple(deep),
        (*deep[:3], TokenId(8)),
        (first[0].token,),
    ]
    found = draft.branch(PROMPT, paths, width=2)
    assert drafter.engine.step_split.num_steps == passes + 1
    held(draft)
    for leaf, guesses in zip(paths[:2], found, strict=False):
        assert set(tokens_of(guesses)) == set(reference.best((*PROMPT, *leaf), (), 2))
    # The first of them was given a whole block, and the text may go on into it.
    text = (*PROMPT, *deep)
    (beyond,) = draft.branch(text, [(TokenId(5),)], width=2)
    assert set(tokens_of(beyond)) == set(reference.best(text, (TokenId(5),), 2))
    assert drafter.engine.step_split.num_steps == passes + 1


def test_tokens_gain_by_how_often_they_followed() -> None:
    index = continuity.Continuity(4, most_tokens=100, memory=None)
    index.learn([TokenId(token) for token in (1, 2, 3, 8, 1, 2, 4, 9, 1, 2, 3, 7, 1, 2)])
    gains = index.gains([TokenId(5), TokenId(1), TokenId(2)])
    # Three places of two tokens and two places' worth of doubt: 3 followed twice, 4 once.
    expected = {3: log(2 / 5 / 0.01) / 2, 4: log(1 / 5 / 0.01) / 2}
    assert gains == pytest.approx(expected)
    assert index.gains([TokenId(2), TokenId(2)]) == {}


def test_what_followed_elsewhere_decides_between_what_a_slot_leaves_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(continuity, "WEIGHT", 50.0)  # louder than any logit
    song = [TokenId(token) for token in (100, 120, 140, 160, 180)]
    prompt = (*song, *PROMPT[:8], *song[:2])
    drafter = made()
    draft = drafter.open(prompt_length=len(prompt), max_tokens=COUNT, sampling=GREEDY)
    assert list(draft.extend(prompt, 3)) == song[2:]
    (guesses,) = draft.branch(prompt, [(song[2],)], width=2)
    assert guesses[0].token == song[3]
    draft.extend((*prompt, song[2], song[3], song[4], *PROMPT[:1]), 1)
    draft.close()
    # The next generation of the drafter remembers what was answered.
    other = (*PROMPT[8:16], *song[:2])
    again = drafter.open(prompt_length=len(other), max_tokens=COUNT, sampling=GREEDY)
    assert list(again.extend(other, 1)) == song[2:3]
    again.close()


@pytest.mark.usefixtures("no_continuity")
def test_more_leaves_than_a_pass_holds_take_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "MAX_PENDING", 12)
    drafter = made()
    draft, reference = opened(drafter), Reference(GREEDY)
    draft.branch(PROMPT, [()], width=1)
    passes = drafter.engine.step_split.num_steps
    paths = [tuple(TokenId(9 + i + 40 * k) for i in range(4)) for k in range(5)]
    found = draft.branch(PROMPT, paths, width=1)
    held(draft)
    for path, guesses in zip(paths, found, strict=True):
        assert guesses[0].token == reference.best((*PROMPT, *path), (), 1)[0]
    assert drafter.engine.step_split.num_steps - passes == 3
    draft.close()


@pytest.mark.usefixtures("no_continuity")
def test_nothing_is_guessed_after_a_path_that_no_pass_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block, "MAX_PENDING", 12)
    draft, reference = opened(made()), Reference(GREEDY)
    draft.branch(PROMPT, [()], width=1)  # one row of text is left to run before each path
    fits = tuple(TokenId(9 + i) for i in range(11))
    deep = (*fits, TokenId(40))
    found = draft.branch(PROMPT, [deep, fits, (*deep, TokenId(50))], width=1)
    assert [len(guesses) for guesses in found] == [0, 1, 0]
    assert found[1][0].token == reference.best((*PROMPT, *fits), (), 1)[0]
    assert draft.branch(PROMPT, [deep], width=1) == ((),)
    # What is too deep now is not when the text has come near it.
    text = (*PROMPT, *deep[:4])
    _, found_later = (draft.branch(text, [path], width=1)[0] for path in ((), deep[4:]))
    assert found_later[0].token == reference.best((*PROMPT, *deep), (), 1)[0]
    held(draft)
    draft.close()


@pytest.mark.usefixtures("no_continuity")
def test_a_block_of_guesses_lasts_until_the_text_contradicts_it() -> None:
    path = tuple(TokenId(token) for token in (9, 30, 77))
    base, eight, five = (*PROMPT, *path), TokenId(8), TokenId(5)
    drafter = made()
    draft, reference = opened(drafter), Reference(GREEDY)
    draft.branch(PROMPT, [path], width=1)
    passes = drafter.engine.step_split.num_steps
    (below,) = draft.branch((*PROMPT, *path[:2]), [(path[2], eight)], width=1)
    assert below[0].token == reference.best(base, (eight,), 1)[0]
    (within,) = draft.branch((*base, eight), [(five,)], width=1)
    assert within[0].token == reference.best(base, (eight, five), 1)[0]
    assert drafter.engine.step_split.num_steps == passes
    other = opened(drafter)
    other.branch(PROMPT, [path], width=1)
    passes = drafter.engine.step_split.num_steps
    text = (*PROMPT, path[0], TokenId(31))
    (elsewhere,) = other.branch(text, [(path[2], eight)], width=1)
    assert elsewhere[0].token == reference.best((*text, path[2], eight), (), 1)[0]
    assert drafter.engine.step_split.num_steps == passes + 1


@pytest.mark.slow
def test_chances_are_learned_for_each_depth() -> None:
    drafter = made()
    for _ in range(40):
        draft = opened(drafter)
        first = draft.guess(PROMPT, NUM_SLOTS + 1)
        # The next token is always right, the one after it never.
        wrong = TokenId((first[1].token + 1) % VOCABULARY_SIZE)
        draft.extend((*PROMPT, first[0].token, wrong, TokenId(7)), 1)
        draft.close()
    draft = opened(drafter)
    chances = [guess.chance for guess in draft.guess(PROMPT, 2)]
    draft.close()
    assert chances[0] > 0.85
    assert chances[1] < 0.2


def test_the_end_of_the_text_and_strange_tokens() -> None:
    drafter = made()
    draft = opened(drafter)
    near = (*PROMPT, *(TokenId(5 + i % 9) for i in range(COUNT - 2)))
    assert len(draft.extend(near, 9)) == 2
    full = (*near, TokenId(9), TokenId(8))
    assert draft.extend(full, 4) == ()
    strange = (TokenId(VOCABULARY_SIZE),)
    found = draft.branch(PROMPT, [tuple(TokenId(5) for _ in range(COUNT)), strange, ()], width=2)
    assert [len(guesses) for guesses in found] == [0, 0, 2]
    assert all(isinstance(guess, Guess) for guess in found[2])
    draft.close()


def test_slots_of_another_width_are_refused() -> None:
    model = tiny_model(CONFIG)
    with pytest.raises(ModelError, match="slots: got rows of 7 numbers, expected 32"):
        add_inputs(model, torch.zeros(2, 7))
    output = model.get_output_embeddings().weight
    assert add_inputs(model, slots()) == VOCABULARY_SIZE
    assert len(output) == VOCABULARY_SIZE
    assert len(model.get_input_embeddings().weight) == VOCABULARY_SIZE + NUM_SLOTS
