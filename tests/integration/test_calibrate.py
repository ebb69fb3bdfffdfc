"""`paceline calibrate` on tiny models: what is recorded is what the models do, and the files can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from harness.models import llama_config, save_tiny

from edge.drafters import ModelDrafter, load_drafter
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import RowGroup
from paceline.errors import ConfigError
from paceline.prompts import Message, PromptLine
from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId
from simulator.acceptance.guess_trace import read_trace
from simulator.calibration.command import calibrate
from simulator.calibration.cost_file import read_costs
from simulator.calibration.record import OwnText, look_along, read_along, write_texts
from simulator.cost import Work

pytestmark = pytest.mark.slow

LINES = tuple(
    PromptLine(
        name=str(index), messages=(Message(role="user", content=content),), category=category
    )
    for index, (content, category) in enumerate(
        (("hello", "a"), ("a longer one, with more", "b"), ("x", "a"), ("four", "b"))
    )
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("target"), config=llama_config(num_hidden_layers=3))


@pytest.fixture(scope="module")
def engine(target: Path) -> Engine:
    return load_model(resolve(str(target)), dtype="float32")


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = save_tiny(tmp_path_factory.mktemp("draft"), seed=1)
    return load_model(resolve(str(folder)), dtype="float32")


def texts(engine: Engine, target: Path, temperature: float) -> list[OwnText]:
    sampling = SamplingSettings(temperature=temperature, seed=7)
    tokenizer = load_tokenizer(resolve(str(target)))
    return write_texts(engine, tokenizer, LINES, sampling=sampling, max_tokens=12)


def logits_after(engine: Engine, tokens: tuple[TokenId, ...]) -> torch.Tensor:
    """The plainest way: all of the text in one pass."""
    sequence = engine.open(max_length=len(tokens), max_pending=0)
    try:
        group = RowGroup(sequence=sequence, tokens=tokens, logits="last", commit=True)
        return engine.forward([group]).of(0)[0]
    finally:
        engine.close(sequence)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_recorded_ranks_are_those_of_one_token_at_a_time(
    engine: Engine, draft: Engine, target: Path, temperature: float
) -> None:
    own = texts(engine, target, temperature)
    guessed = read_along(draft, own)
    assert [text.category for text in guessed] == ["a", "b", "a", "b"]
    assert len({text.output for text in own}) == len(own)
    for text, seen in zip(own, guessed, strict=True):
        assert seen.prompt_tokens == len(text.prompt)
        assert seen.ended == (len(text.output) < 12)
        for index, token in enumerate(text.output):
            known = (*text.prompt, *text.output[:index])
            # A sampler of its own for each: the noise depends on the position alone.
            samplers = [
                Sampler(text.sampling, vocabulary_size=each.identity.vocabulary_size)
                for each in (engine, draft)
            ]
            position = Position(len(known))
            assert samplers[0].draw(logits_after(engine, known), position=position) == token
            ranking = samplers[1].rank(logits_after(draft, known), position=position, k=16)
            expected = ranking.tokens.index(token) + 1 if token in ranking.tokens else 0
            assert seen.ranks[index] == expected
            assert seen.confidence[index] == pytest.approx(min(255, ranking.margin * 16), abs=0.51)


def test_a_model_guesses_its_own_text(engine: Engine, target: Path) -> None:
    for text in read_along(engine, texts(engine, target, 1.0)):
        assert set(text.ranks) == {1}


def test_lookup_guesses_what_stood_before(engine: Engine, target: Path) -> None:
    line = LINES[0]
    period = tuple(TokenId(token) for token in (5, 6, 7, 8))
    own = OwnText(
        line=line,
        prompt=period * 2,
        output=(*period, TokenId(9), TokenId(10)),
        sampling=SamplingSettings(temperature=0.0),
        ended=False,
    )
    (seen,) = look_along([own])
    assert list(seen.ranks) == [1, 1, 1, 1, 0, 0]
    assert all(seen.confidence[:5])
    assert seen.confidence[5] == 0  # nothing ever followed 9


def test_a_low_bit_copy_is_near_its_target(engine: Engine, target: Path) -> None:
    tokenizer = load_tokenizer(resolve(str(target)))
    own = texts(engine, target, 0.0)
    shares = []
    for bits in (8, 2):
        drafter = load_drafter(f"low-bit:{bits}/16", tokenizer=tokenizer)
        assert isinstance(drafter, ModelDrafter)
        copy = drafter.engine
        assert copy.identity.weights_fingerprint != engine.identity.weights_fingerprint
        ranks = b"".join(text.ranks for text in read_along(copy, own))
        shares.append(ranks.count(1) / len(ranks))
    assert shares[0] > 0.8
    assert shares[1] < shares[0]


def test_the_command_writes_costs_and_guesses(target: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"id": "p1", "category": "qa", "prompt": "hello"}, {"prompt": "what is this"}]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["--target", str(target), "--draft", "lookup", "--draft", "low-bit:4/16"]
    arguments += ["--prompts", str(prompts), "--max-tokens", "6", "--out", str(tmp_path / "out")]
    arguments += ["--dtype", "float32", "--rounds", "1", "--max-context", "32", "--service"]
    arguments += ["--sessions", "2", "--rows", "4"]
    result = CliRunner().invoke(calibrate, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    costs = read_costs(tmp_path / "out" / "costs.toml")
    assert costs.machine["torch"] == torch.__version__
    assert [draft.name for draft in costs.drafts] == ["lookup", "low-bit:4/16"]
    one = Work().with_sequence(num_rows=1, context=16)
    assert 1e-5 < costs.target.seconds(one) < 10
    assert 0.0 <= costs.target.between_s < 1.0, "of so short steps noise may leave 0"
    assert "ms between two steps" in result.output
    # Index look-ups against a model of three layers.
    assert costs.draft("lookup").seconds(one) < costs.draft("low-bit:4/16").seconds(one)
    trace = read_trace(tmp_path / "out" / "guesses-low-bit-4-16.json")
    assert [(text.prompt, text.category, text.temperature) for text in trace.texts] == [
        ("p1", "qa", 0.0),
        ("2", "", 0.0),
        ("p1", "qa", 1.0),
        ("2", "", 1.0),
    ]
    assert read_trace(tmp_path / "out" / "guesses-lookup.json").abstains
    assert "round of 8" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draft", "low-bit:9/64"], "expected low-bit:BITS/GROUP"),
        (["--draft", "lookup", "--draft", "lookup"], "would be written to guesses-lookup.json"),
        (["--draft", "tree:block:some.draft"], "expected a drafter of one position at a time"),
    ],
)
def test_wrong_drafts_are_named(
    target: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(
            calibrate,
            ["--target", str(target), "--out", str(tmp_path), "--no-costs", *arguments],
            catch_exceptions=False,
        )
