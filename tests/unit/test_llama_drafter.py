"""A GGUF file that llama.cpp computes drafts what PyTorch drafts with the same weights, whatever was asked before."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.event_loop import run_async
from harness.gguf_files import save_tiny_gguf
from harness.llama_library import needs_llama
from harness.models import (
    VOCABULARY_SIZE,
    llama_config,
    save_tiny,
    tiny_engine,
    tiny_model,
    tiny_tokenizer,
)
from harness.raw_edge import serving, settled
from harness.reference import reference_output

from cloud.scheduler import SchedulerSettings
from edge.drafters import load_drafter
from edge.drafters.llama import chain
from edge.drafters.llama import tree as tree_module
from edge.drafters.llama.cells import Cells, Row
from edge.drafters.llama.chain import LlamaDraft, LlamaDrafter
from edge.drafters.llama.gguf_model import GgufModel
from edge.drafters.llama.tree import LlamaTreeDraft, LlamaTreeDrafter
from edge.drafters.model import ModelDraft, ModelDrafter
from paceline import Client
from paceline.client.settings import DraftingSettings
from paceline.drafter import ScoringDraft, TreeDraft, tokens_of
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import IncompatibleError, ModelError
from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.session.growth import Growth
from paceline.tokens import Position, TokenId

pytestmark = needs_llama

GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=0.8, seed=11)
PENALISED = SamplingSettings(temperature=0.7, repetition_penalty=1.3, top_k=40, seed=5)
PROMPT = tuple(TokenId(4 + (7 * i) % 250) for i in range(20))
COUNT = 60


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def model(file: Path) -> Iterator[GgufModel]:
    model = GgufModel(file)
    yield model
    model.close()


def reference(sampling: SamplingSettings) -> ModelDraft:
    drafter = ModelDrafter(tiny_engine(llama_config()), vocabulary_size=VOCABULARY_SIZE)
    return drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=sampling)


def opened(drafter: LlamaDrafter, sampling: SamplingSettings = GREEDY) -> LlamaDraft:
    return drafter.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=sampling)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, NOISY, PENALISED], ids=["greedy", "noisy", "penal"])
def test_a_chain_is_pytorchs(model: GgufModel, sampling: SamplingSettings) -> None:
    rng = random.Random(1)
    drafter = LlamaDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    ours, theirs = opened(drafter, sampling), reference(sampling)
    text = [*PROMPT]
    while len(text) < len(PROMPT) + COUNT - 8:
        expected = theirs.guess(text, 5)
        guesses = ours.guess(text, 5)
        assert tokens_of(guesses) == tokens_of(expected)
        assert [guess.chance for guess in guesses] == pytest.approx(
            [guess.chance for guess in expected], abs=0.02
        )
        # Some guesses hold, then the target goes on as it likes.
        text += [*tokens_of(guesses)[: rng.randrange(5)], TokenId(rng.randrange(VOCABULARY_SIZE))]
    assert len(ours.guess(text, 50)) == len(PROMPT) + COUNT - len(text)
    ours.close()
    drafter.close()


def test_a_prompt_is_computed_in_pieces_and_kept_for_the_next_turn(model: GgufModel) -> None:
    drafter = LlamaDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    prompt = tuple(TokenId(4 + (11 * i) % 250) for i in range(300))
    draft = drafter.open(prompt_length=300, max_tokens=20, sampling=GREEDY)
    assert [draft.prepare(prompt) for _ in range(3)] == [True, True, False]
    guesses = draft.extend(prompt, 4)
    assert draft.extend(prompt, 4) == guesses
    draft.close()
    turn = (*prompt, *guesses, TokenId(5), TokenId(6))
    again = drafter.open(prompt_length=len(turn), max_tokens=20, sampling=GREEDY)
    assert not again.prepare(turn), "only what is new is left, and it is short"
    fresh = LlamaDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    other = fresh.open(prompt_length=len(turn), max_tokens=20, sampling=GREEDY)
    assert again.extend(turn, 4) == other.extend(turn, 4)
    for each in (again, other):
        each.close()
    for maker in (drafter, fresh):
        assert len(maker._idle) == 1
        maker.take((), num_tokens=10).cells.close()


def test_conversations_that_take_turns_keep_their_texts(model: GgufModel) -> None:
    drafter = LlamaDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    prompts = [tuple(TokenId(4 + (step * i) % 250) for i in range(40)) for step in (7, 11, 13)]

    def ask(prompt: tuple[TokenId, ...]) -> None:
        draft = drafter.open(prompt_length=len(prompt), max_tokens=20, sampling=GREEDY)
        draft.extend(prompt, 1)
        draft.close()

    def kept() -> list[tuple[TokenId, ...]]:
        return [tuple(held.known[:40]) for held in drafter._idle]

    first, second, third = prompts
    ask(first)
    cells = drafter._idle[0].cells
    ask(second)
    assert kept() == [first, second]
    ask((*first, TokenId(9), TokenId(10)))
    assert kept() == [second, first]
    assert drafter._idle[1].cells is cells
    ask(third)
    assert kept() == [first, third], "the one that ended first goes"
    drafter.close()


def test_kept_texts_are_bounded(model: GgufModel) -> None:
    drafter = LlamaDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    drafts = [opened(drafter) for _ in range(chain.MOST_IDLE + 2)]
    for draft in drafts:
        draft.extend(PROMPT, 1)
    for draft in drafts:
        draft.close()
    assert len(drafter._idle) == chain.MOST_IDLE
    drafter.close()


def best(
    theirs: ModelDraft, text: Sequence[TokenId], sampling: SamplingSettings
) -> tuple[TokenId, ...]:
    sampler = Sampler(sampling, vocabulary_size=VOCABULARY_SIZE)
    path = tuple(text[len(PROMPT) :]) if sampling.repetition_penalty != 1.0 else ()
    logits = theirs.logits(text)
    return sampler.rank(logits, position=Position(len(text)), k=3, path=path).tokens


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, NOISY, PENALISED], ids=["greedy", "noisy", "penal"])
@pytest.mark.parametrize(("most", "sequences"), [(512, 64), (24, 8)], ids=["roomy", "tight"])
def test_a_tree_is_what_chains_would_be(
    model: GgufModel,
    sampling: SamplingSettings,
    most: int,
    sequences: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tree_module, "MOST_PENDING", most)
    rng = random.Random(most)
    drafter = LlamaTreeDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    drafter.num_sequences = sequences
    draft = opened(drafter, sampling)
    assert isinstance(draft, TreeDraft)
    theirs = reference(sampling)
    text = [*PROMPT]
    leaves: list[tuple[TokenId, ...]] = [()]
    num_asked = num_same = 0
    while len(text) < len(PROMPT) + 30:
        paths = rng.sample(leaves, min(len(leaves), rng.randrange(1, 5)))
        for path, guesses in zip(paths, draft.branch(text, paths, width=3), strict=True):
            # Keys and values in half precision: candidates that are nearly as good may change places.
            num_asked += 1
            num_same += tokens_of(guesses) == best(theirs, (*text, *path), sampling)
            if len(path) < 4:
                leaves += [(*path, guess.token) for guess in guesses]
        if rng.random() < 0.4:
            gone = [*rng.choice(leaves), TokenId(rng.randrange(VOCABULARY_SIZE))]
            gone = gone[: rng.randrange(1, len(gone) + 1)]
            text += gone
            below = [path[len(gone) :] for path in leaves if list(path[: len(gone)]) == gone]
            leaves = [*dict.fromkeys(((), *below))][:20]
    assert num_asked > 20
    assert num_same >= 0.97 * num_asked
    draft.close()
    drafter.close()


def test_a_tree_and_then_a_chain_and_a_text_that_leaps(model: GgufModel) -> None:
    drafter = LlamaTreeDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    draft, theirs = opened(drafter), reference(GREEDY)
    assert isinstance(draft, LlamaTreeDraft)
    (first,) = draft.branch(PROMPT, [()], width=2)
    draft.branch(PROMPT, [(first[1].token,)], width=2)
    chain_tokens = draft.extend(PROMPT, 3)
    assert chain_tokens == theirs.extend(PROMPT, 3)
    (after,) = draft.branch((*PROMPT, chain_tokens[0]), [()], width=1)
    assert after[0].token == chain_tokens[1]
    leap = (*PROMPT, *(TokenId(4 + i) for i in range(50)))
    (far,) = draft.branch(leap, [()], width=1)
    assert far[0].token == theirs.extend(leap, 1)[0]
    (back,) = draft.branch(PROMPT, [(first[0].token,)], width=1)
    assert back[0].token == theirs.extend((*PROMPT, first[0].token), 1)[0]
    end, strange = (TokenId(5),) * COUNT, (TokenId(VOCABULARY_SIZE + 3),)
    found = draft.branch(PROMPT, [end, (), strange], width=2)
    assert [len(guesses) for guesses in found] == [0, 2, 0]
    draft.close()
    drafter.close()


def test_what_llama_refuses_is_a_model_error_and_the_draft_goes_on(
    model: GgufModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafter = LlamaTreeDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    draft = opened(drafter)
    assert isinstance(draft, LlamaTreeDraft)
    (first,) = draft.branch(PROMPT, [()], width=2)
    compute = Cells.compute

    def gapped(cells: Cells, rows: Sequence[Row]) -> None:
        later = [
            Row(token=row.token, position=row.position + 5, sequence=row.sequence) for row in rows
        ]
        compute(cells, later)

    monkeypatch.setattr(Cells, "compute", gapped)
    with pytest.raises(ModelError, match=r"llama\.cpp failed to compute 1 rows"):
        draft.branch(PROMPT, [(first[0].token,)], width=2)
    monkeypatch.undo()
    assert draft.branch(PROMPT, [()], width=2)[0][0].token == first[0].token
    draft.close()
    drafter.close()


def test_nothing_of_a_call_that_failed_is_left_to_the_next_draft(
    model: GgufModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafter = LlamaTreeDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    draft = opened(drafter)
    assert isinstance(draft, LlamaTreeDraft)
    (first,) = draft.branch(PROMPT, [()], width=2)
    path = (first[0].token,)
    draft.branch(PROMPT, [path], width=2)
    removed: list[int] = []
    remove = Cells.remove

    def noted(cells: Cells, sequence: int, *, first: int = 0) -> bool:
        removed.append(sequence)
        return remove(cells, sequence, first=first)

    monkeypatch.setattr(Cells, "remove", noted)
    monkeypatch.setattr(
        Cells, "logits", lambda *_: np.full(VOCABULARY_SIZE, np.nan, dtype=np.float32)
    )
    # Asked again, it is computed beside itself; whoever holds the error holds the call's frames.
    with pytest.raises(ModelError, match="expected a finite number") as held:
        draft.branch(PROMPT, [path], width=2)
    assert held.tb is not None
    assert removed, "what was for this call only is given back with it"
    monkeypatch.undo()
    draft.close()
    drafter.close()


def test_a_file_with_other_words_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tiny_tokenizer(), name="target")
    path = save_tiny_gguf(tmp_path / "other.gguf", renamed={70: "Zebra"})
    with pytest.raises(IncompatibleError, match="token 70 is 'Zebra', to the target target it is"):
        load_drafter(f"llama:{path}", tokenizer=tokenizer)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"llama\.cpp cannot load"):
        load_drafter(f"llama:{path}", tokenizer=Tokenizer(tiny_tokenizer(), name="target"))


def test_logits_do_not_depend_on_what_is_computed_with_them(model: GgufModel) -> None:
    """Why a guess can be computed again with others around it: docs/llama.md says where this ends."""
    alone = _logits_of_last(model, pieces=[len(PROMPT) - 1, 1], num_beside=0)
    for pieces, num_beside in (([len(PROMPT)], 0), ([1] * len(PROMPT), 0), ([19, 1], 7)):
        together = _logits_of_last(model, pieces=pieces, num_beside=num_beside)
        np.testing.assert_allclose(together, alone, atol=1e-4)


def _logits_of_last(model: GgufModel, *, pieces: list[int], num_beside: int) -> np.ndarray:
    cells = Cells(model, num_cells=256, num_sequences=16, threads=1)
    position = 0
    for size in pieces:
        end = position + size
        rows = [
            Row(token=PROMPT[at], position=at, sequence=0, wants_logits=at == len(PROMPT) - 1)
            for at in range(position, end)
        ]
        if end == len(PROMPT):
            for sequence in range(1, num_beside + 1):
                cells.share(0, sequence, end=position)
                rows.append(Row(token=TokenId(sequence), position=position, sequence=sequence))
        cells.compute(rows)
        position = end
    logits = cells.logits(pieces[-1] - 1).copy()
    cells.close()
    return logits


async def _identity(folder: Path, spec: str) -> None:
    source = resolve(str(folder))
    tokenizer = load_tokenizer(source)
    drafter = load_drafter(spec, tokenizer=tokenizer, threads=1)
    engine = load_model(source, dtype="float32", tokenizer=tokenizer)
    waiting = SchedulerSettings(race=False, patience_s=30.0)
    prompt = tokenizer.encode("one two one two three one two")
    async with serving(engine, scheduler=waiting) as verifier:
        growth = Growth() if "tree" in spec else None
        async with Client(
            verifiers=[verifier.address],
            tokenizer=tokenizer,
            drafter=drafter,
            drafting=DraftingSettings(draft_length=6, growth=growth),
        ) as client:
            for sampling in (GREEDY, NOISY, PENALISED):
                async with client.generate(
                    prompt_ids=prompt, max_tokens=40, sampling=sampling
                ) as generation:
                    result = await generation.complete()
                expected = reference_output(
                    tiny_model(llama_config()),
                    prompt,
                    sampling=sampling,
                    max_tokens=40,
                    stop_tokens=tokenizer.stop_tokens,
                    vocabulary_size=VOCABULARY_SIZE,
                )
                assert result.token_ids == tuple(expected)
                if "tree" not in spec and "suffix" not in spec:
                    # The target's own weights and noise, but for half precision in the cache.
                    assert result.statistics.acceptance_probability > 0.9
        await settled(verifier, engine)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["llama:{file}", "tree:llama:{file}", "suffix+llama:{file}"])
def test_the_text_is_the_targets_own(tmp_path: Path, file: Path, spec: str) -> None:
    run_async(_identity(save_tiny(tmp_path), spec.format(file=file)))


def test_a_text_beyond_what_memory_is_taken_for_gets_no_guess(
    model: GgufModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "MOST_TOKENS", len(PROMPT) + 2)
    drafter = LlamaDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    draft = opened(drafter)
    assert len(draft.extend(PROMPT, 9)) == 3
    assert draft.extend((*PROMPT, *PROMPT), 9) == ()
    assert not draft.prepare((*PROMPT, *PROMPT))
    draft.close()
    drafter.close()


def test_it_says_how_sure_it_is(model: GgufModel) -> None:
    drafter = LlamaDrafter(model, vocabulary_size=VOCABULARY_SIZE, threads=1)
    draft: ScoringDraft = opened(drafter)
    assert all(0.5 <= guess.chance <= 1.0 for guess in draft.guess(PROMPT, 4))
    assert drafter.name == "llama:tiny.gguf"
    draft.close()
    drafter.close()
