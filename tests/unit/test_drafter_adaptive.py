"""A draft that learns on the job: it learns, harms nothing, costs what it may, and changes no text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.event_loop import run_async
from harness.models import VOCABULARY_SIZE, llama_config, save_tiny, tiny_engine, tiny_model
from harness.raw_edge import serving, settled
from harness.reference import reference_output

from cloud.scheduler import SchedulerSettings
from edge.draft_spec import AdaptSpec, CombinationSpec, ModelSpec, TableSpec, TreeSpec, parse
from edge.drafters import adapter, adapter_gate, adaptive, load_drafter
from edge.drafters.adapter import CANDIDATES, Adapter, AdapterSettings, Lesson
from edge.drafters.adapter_gate import Gate
from edge.drafters.adaptive import LESSONS, RIVALS, AdaptiveDrafter, Experience
from edge.drafters.hierarchy import HierarchyDrafter
from edge.drafters.lookup import LookupDrafter
from edge.drafters.model import ModelDraft, ModelDrafter
from edge.drafters.tree import TreeDrafter, TreeModelDraft
from paceline import Client
from paceline.client.settings import DraftingSettings
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import RowGroup
from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.session.growth import Growth
from paceline.tokens import TokenId

GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=0.8, seed=11)
SOMEWHAT_NOISY = SamplingSettings(temperature=0.3, seed=11)
PROMPT = tuple(TokenId(4 + (7 * i) % 250) for i in range(20))
COUNT = 150
ABSURD = AdapterSettings(rate=1e5)


FIRST = 24


@pytest.fixture(autouse=True)
def _begins_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "FIRST_ROWS", FIRST)


@pytest.fixture
def engine() -> Engine:
    torch.set_num_threads(1)
    return tiny_engine(llama_config())


class Recorder(Gate):
    """A gate that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[bool, bool]] = []

    def note(self, *, plain: bool, learned: bool) -> None:
        """See `Gate`."""
        self.told.append((plain, learned))
        super().note(plain=plain, learned=learned)


def first_guess(draft: ModelDraft, text: Sequence[TokenId]) -> TokenId:
    if isinstance(draft, TreeModelDraft):
        return draft.branch(text, [()], width=3)[0][0].token
    return draft.extend(text, 1)[0]


def quirky(token: TokenId) -> TokenId:
    """What the user's text has where the draft expects this token: one of six, never the same."""
    return TokenId(10 + token % 6)


def write(
    plain: ModelDrafter, drafter: AdaptiveDrafter, *, sampling: SamplingSettings, is_quirky: bool
) -> tuple[list[bool], list[bool], list[bool]]:
    """Write a text that follows the plain draft with or without a quirk.

    Returns:
        Whether the plain one was right, whether the adaptive one was, whether it guessed as the plain one, for each place.
    """
    drafts = [
        one.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=sampling)
        for one in (plain, drafter)
    ]
    text = [*PROMPT]
    known, learned, same = list[bool](), list[bool](), list[bool]()
    for _ in range(COUNT - 1):
        guesses = [first_guess(draft, text) for draft in drafts]
        text.append(quirky(guesses[0]) if is_quirky else guesses[0])
        known.append(guesses[0] == text[-1])
        learned.append(guesses[1] == text[-1])
        same.append(guesses[0] == guesses[1])
    for draft in drafts:
        draft.close()
    return known, learned, same


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "sampling"),
    [(TreeDrafter, GREEDY), (ModelDrafter, SOMEWHAT_NOISY)],
    ids=["tree", "chain"],
)
def test_it_learns_what_a_user_says(
    engine: Engine, kind: type[ModelDrafter], sampling: SamplingSettings
) -> None:
    plain = kind(engine, vocabulary_size=VOCABULARY_SIZE)
    drafter = AdaptiveDrafter(kind(engine, vocabulary_size=VOCABULARY_SIZE))
    gate = drafter.experience.gates[sampling.is_greedy] = Recorder()
    known, learned, _ = write(plain, drafter, sampling=sampling, is_quirky=True)
    assert not any(known)
    assert not any(learned[:FIRST])
    assert sum(learned[-50:]) > 12
    assert gate.is_open
    # Both sides of the comparison are what they would have been, also after it opened.
    assert len(gate.told) > 100
    assert not any(plain_was for plain_was, _ in gate.told)
    used = [one for one in learned if one]
    assert len(used) <= sum(learned_was for _, learned_was in gate.told) + 1
    # What was learned serves the next answer from its first token on.
    _, again, _ = write(plain, drafter, sampling=sampling, is_quirky=True)
    assert any(again[:FIRST])
    assert sum(again) > sum(learned)


@pytest.mark.slow
def test_what_would_harm_is_not_used(engine: Engine) -> None:
    plain = TreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE)
    drafter = AdaptiveDrafter(TreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE), settings=ABSURD)
    gate = drafter.experience.gates[True] = Recorder()
    # The plain draft is always right; whatever is learned at such a rate can only be wrong.
    _, _, same = write(plain, drafter, sampling=GREEDY, is_quirky=False)
    assert all(same)
    assert not gate.is_open
    assert all(plain_was for plain_was, _ in gate.told)


@pytest.mark.slow
def test_it_is_used_no_longer_once_it_harms(engine: Engine) -> None:
    plain = TreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE)
    drafter = AdaptiveDrafter(TreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE), settings=ABSURD)
    write(plain, drafter, sampling=GREEDY, is_quirky=True)  # rows are full of absurd numbers now
    gate = drafter.experience.gates[True] = Recorder()
    while not gate.is_open:
        gate.note(plain=False, learned=True)
    _, learned, same = write(plain, drafter, sampling=GREEDY, is_quirky=False)
    assert not all(learned[:40])
    assert not gate.is_open
    first_closed = next(at for at in range(COUNT) if all(same[at:]))
    assert first_closed < 60


def test_a_gate_opens_and_closes_by_its_lead() -> None:
    gate = Gate()
    for _ in range(500):
        gate.note(plain=True, learned=True)
        gate.note(plain=False, learned=False)
    assert (gate.is_open, gate.lead) == (False, 0.0)
    opened_after = 0
    while not gate.is_open:
        gate.note(plain=False, learned=True)
        opened_after += 1
    assert opened_after == 5  # 5 / sqrt(6) is above 2, 4 / sqrt(5) is not
    gate.note(plain=True, learned=False)
    assert gate.is_open, "a single loss does not close it"
    for _ in range(4):
        gate.note(plain=True, learned=False)
    assert not gate.is_open


def test_a_gate_forgets() -> None:
    gate = Gate()
    for _ in range(100):
        gate.note(plain=False, learned=True)
    for _ in range(8000):
        gate.note(plain=True, learned=True)
    assert not gate.is_open


def test_no_pass_is_added_and_products_are_bounded(engine: Engine) -> None:
    counted = []
    for drafter in (
        TreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE),
        AdaptiveDrafter(TreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE)),
    ):
        engine.reset_counters()
        engine.clear_prefixes()
        draft = drafter.open(prompt_length=len(PROMPT), max_tokens=100, sampling=GREEDY)
        assert isinstance(draft, TreeModelDraft)
        text = [*PROMPT]
        for step in range(30):
            paths = [(), (TokenId(5),), (TokenId(6),), (TokenId(5), TokenId(9 + step))]
            products = _products(drafter)
            draft.branch(text, paths, width=4)
            if products is not None:
                most = 4 * AdapterSettings().num_tokens
                most += LESSONS * (2 * (CANDIDATES + RIVALS) + 1)
                assert (_products(drafter) or 0) - products <= most
            text += [TokenId(5), TokenId(9 + step)]
        counted.append((engine.step_split.num_steps, engine.work.rows_written))
        draft.close()
    assert counted[0] == counted[1]
    assert (_products(drafter) or 0) > 0


def _products(drafter: object) -> int | None:
    if not isinstance(drafter, AdaptiveDrafter) or drafter.experience.adapter is None:
        return None
    return drafter.experience.adapter.num_products


def test_memory_is_bounded_whatever_is_guessed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "MOST_NOTED", 24)
    settings = AdapterSettings(num_tokens=16)
    drafter = AdaptiveDrafter(
        TreeDrafter(engine, vocabulary_size=VOCABULARY_SIZE), settings=settings
    )
    gate = drafter.experience.gates[True] = Recorder()
    draft = drafter.open(prompt_length=len(PROMPT), max_tokens=300, sampling=GREEDY)
    assert isinstance(draft, TreeModelDraft)
    path: tuple[TokenId, ...] = ()
    for step in range(60):  # nothing is judged meanwhile
        draft.branch(PROMPT, [path], width=4)
        path = (*path, TokenId(4 + step))
    text = [*PROMPT, *path]
    draft.branch(text, [()], width=4)
    assert len(gate.told) == 24
    learner = drafter.experience.adapter
    assert learner is not None
    assert learner.num_bytes == 16 * (32 + 1) * 4
    assert sum(learner.has_row(TokenId(token)) for token in range(VOCABULARY_SIZE)) <= 16


def test_lessons_that_wait_are_worked_off_a_few_at_a_time() -> None:
    learner = Adapter([TokenId(one) for one in range(50)], width=6)
    lesson = Lesson(
        features=np.ones(7, dtype=np.float32),
        tokens=(TokenId(1), TokenId(2)),
        logits=np.array([2.0, 1.0], dtype=np.float32),
    )
    learner.learn(lesson, TokenId(77))
    assert learner.num_products == 0, "what the draft cannot say teaches nothing"
    learner.learn(lesson, TokenId(3))
    # Three tokens move: up by 1, down by their shares of 0.73 and 0.27.
    moved = learner.corrections(np.ones((1, 7), dtype=np.float32))[0]
    by_token = {
        int(column): float(one) for column, one in zip(learner.columns_M, moved, strict=True)
    }
    assert by_token[3] == pytest.approx(7.0, rel=1e-4)
    assert by_token[1] == pytest.approx(-7 * 0.7311, rel=1e-3)
    assert by_token[2] == pytest.approx(-7 * 0.2689, rel=1e-3)


def test_the_token_longest_in_no_lesson_makes_room() -> None:
    learner = Adapter(
        [TokenId(one) for one in range(50)], width=2, settings=AdapterSettings(num_tokens=16)
    )
    for token in [*range(16), 0, 40]:
        lesson = Lesson(
            features=np.array([1.0, 0.0, 0.3], dtype=np.float32),
            tokens=(TokenId(49),),
            logits=np.array([-30.0], dtype=np.float32),
        )
        learner.learn(lesson, TokenId(token))
    # 49 was in every lesson. 15 took the row of 0, which took that of 1, and 40 that of 2.
    kept = [token for token in range(50) if learner.has_row(TokenId(token))]
    assert kept == [0, *range(3, 16), 40, 49]


@pytest.mark.parametrize(
    "changes", [{"rate": 0.0}, {"rate": float("nan")}, {"rate": 1e7}, {"num_tokens": 15}]
)
def test_settings_are_checked(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        AdapterSettings(**changes)  # type: ignore[arg-type]  # a number of either type


def test_the_engine_tells_what_logits_were_made_of(engine: Engine) -> None:
    engine.limit_output(torch.arange(3, 90))
    sequence = engine.open(max_length=20, max_pending=20)
    logits = engine.forward([RowGroup(sequence=sequence, tokens=[TokenId(5), TokenId(6)])])
    assert logits.hidden is not None
    assert logits.hidden.shape == (2, 32)
    weight = tiny_model(llama_config()).get_output_embeddings().weight.detach()[3:90]
    assert torch.allclose(logits.hidden.clone() @ weight.T, logits.values, atol=1e-5)
    silent = engine.forward(
        [RowGroup(sequence=sequence, tokens=[TokenId(5)], parents=[1], logits="none")]
    )
    assert silent.hidden is None


def test_words_for_it() -> None:
    model = ModelSpec(model="m")
    assert parse("adapt:m") == AdaptSpec(model=model)
    assert parse("adapt:tree:m") == AdaptSpec(model=TreeSpec(model=model))
    both = CombinationSpec(parts=(TableSpec(name="suffix"), AdaptSpec(model=model)))
    assert parse("suffix+adapt:m") == both
    for wrong in ("adapt:", "adapt:suffix", "adapt:llama:f", "adapt:tree:llama:f", "tree:adapt:m"):
        with pytest.raises(ConfigError, match="draft: got"):
            parse(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["adapt:early-exit:2", "adapt:tree:early-exit:2"])
def test_no_text_is_changed_whatever_is_learned(
    tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_gate, "OPEN", -1e9)
    monkeypatch.setattr(adapter_gate, "CLOSE", -1e9)
    config = llama_config(num_hidden_layers=3)
    target = save_tiny(tmp_path, config=config)
    run_async(_check_texts(target, spec, [GREEDY, NOISY]))


async def _check_texts(target: Path, spec: str, samplings: Sequence[SamplingSettings]) -> None:
    tokenizer = load_tokenizer(resolve(str(target)))
    drafter = load_drafter(spec, tokenizer=tokenizer)
    assert isinstance(drafter, AdaptiveDrafter)
    drafter.experience = Experience(ABSURD)
    engine = load_model(resolve(str(target)), dtype="float32", tokenizer=tokenizer)
    prompt = tokenizer.encode("one two one two three one two")
    patient = SchedulerSettings(race=False, patience_s=30.0)
    async with serving(engine, scheduler=patient) as verifier:
        async with Client(
            verifiers=[verifier.address],
            tokenizer=tokenizer,
            drafter=drafter,
            drafting=DraftingSettings(draft_length=6, growth=Growth() if "tree" in spec else None),
        ) as client:
            for sampling in samplings:
                async with client.generate(
                    prompt_ids=prompt, max_tokens=40, sampling=sampling
                ) as generation:
                    result = await generation.complete()
                expected = reference_output(
                    tiny_model(llama_config(num_hidden_layers=3)),
                    prompt,
                    sampling=sampling,
                    max_tokens=40,
                    stop_tokens=tokenizer.stop_tokens,
                    vocabulary_size=260,
                )
                assert result.token_ids == tuple(expected)
                assert result.statistics.judged > 0
                assert drafter.experience.gates[sampling.is_greedy].is_open
        await settled(verifier, engine)
    assert drafter.experience.adapter is not None
    assert drafter.experience.adapter.num_products > 0


def test_what_a_hierarchy_guesses_is_not_taken_for_what_the_target_said(engine: Engine) -> None:
    drafter = AdaptiveDrafter(ModelDrafter(engine, vocabulary_size=VOCABULARY_SIZE))
    gate = drafter.experience.gates[True] = Recorder()
    hierarchy = HierarchyDrafter([LookupDrafter(shortest=60)], drafter)  # type: ignore[arg-type]
    draft = hierarchy.open(prompt_length=len(PROMPT), max_tokens=COUNT, sampling=GREEDY)
    text = [*PROMPT]
    for _ in range(2 * FIRST):
        num_told = len(gate.told)
        guessed = draft.extend(text, 4)
        draft.extend([*text, *guessed], 4, num_guessed=len(guessed))
        assert len(gate.told) <= num_told + 1  # of the one token that came last
        text.append(guessed[0])
    assert gate.told
    assert all(plain for plain, _ in gate.told)
