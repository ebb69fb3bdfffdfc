"""`paceline distil --practice-tokens`: the whole command, and what a kill leaves of it, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.kills import killed_on_open
from harness.models import llama_config, save_tiny
from transformers import AutoModelForCausalLM

from edge.distillation.array_files import count_shards
from edge.distillation.draft_reading import check_draft
from edge.distillation.packing import HELD_OUT
from edge.distillation.practice_stage import LENGTH, read_practice
from edge.distillation.shards import read_shard
from edge.distillation.train_state import STATE
from paceline.command import run as run_command

pytestmark = pytest.mark.slow

CONFIG = llama_config(hidden_size=16, intermediate_size=16, num_hidden_layers=2)
PRACTICE, PRACTISED = "practice-training", "training-practised"


def command(target: Path, out: Path, *, practice: int = 10_000) -> list[str]:
    stages = f"distil --target {target} --out {out} --dtype float32 --threads 1 --seed 3"
    writing = "--batch 8 --max-length 240 --scripts-per-shard 8 --write-tokens 2000"
    student = "--num-layers 1 --outputs 64 --fit-tokens 2048 --bits none"
    training = f"--train-tokens {6 * 2048} --batches-per-step 1 --practice-tokens {practice}"
    return f"{stages} {writing} {student} {training} --documents {target / 'document.txt'}".split()


def run_stages(arguments: list[str]) -> None:
    for stage in ("write", "train", "practice"):
        assert run_command([*arguments, "--only", stage]) == 0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny(tmp_path_factory.mktemp("target"), config=CONFIG)
    lines = [f"def number_{i}():\n    return {i * i}\n" for i in range(40)]
    (folder / "document.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def whole(target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run_stages(command(target, out))
    return out


def contents(out: Path) -> dict[str, bytes]:
    """The drafts on the text, both curves of losses and both drafts."""
    wanted = [*(out / PRACTICE).rglob("*.*"), *out.glob("training*/log.jsonl")]
    wanted += [*out.glob("draft*/*.safetensors")]
    return {str(path.relative_to(out)): path.read_bytes() for path in wanted}


def test_what_is_kept_is_what_the_target_says_after_the_drafts(whole: Path, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    shards = [read_shard(whole / "text", n) for n in range(count_shards(whole / "text"))]
    found = read_practice(whole / PRACTICE, shards)
    assert len(found) == len(shards) >= 2
    seen = 0
    for shard, drafts in zip(shards, found, strict=True):
        assert drafts.tokens.shape == (len(drafts.cuts), LENGTH)
        for row in np.linspace(0, len(drafts.cuts) - 1, 6).astype(int).tolist():
            cut = int(drafts.cuts[row])
            passages = shard.description.passages
            passage = next(p for p in passages if p.start <= cut < p.start + p.length)
            assert passage.number % HELD_OUT
            drafted = drafts.tokens[row].tolist()
            said = [*shard.tokens[passage.start : cut + 1].tolist(), *drafted]
            with torch.inference_mode():
                laws = torch.log_softmax(model(torch.tensor([said])).logits[0, -LENGTH:], dim=-1)
            ids = torch.from_numpy(drafts.top_ids[row].astype(np.int64))
            kept = torch.from_numpy(drafts.top_logprobs[row].astype(np.float32))
            assert torch.allclose(laws.gather(1, ids), kept, atol=5e-3, rtol=2e-3)
            followed = shard.tokens[cut + 1 : cut + 1 + LENGTH].tolist()
            left = [drafted[: n + 1] != followed[: n + 1] for n in range(LENGTH)]
            # A draft that ended counts no more; the tiny model hardly ever ends one.
            assert all(left[n] or not drafts.counts[row, n] for n in range(LENGTH))
            seen += int(drafts.counts[row].sum())
    assert seen > LENGTH


def test_killed_in_the_practice_and_in_the_training_after_it_makes_the_same(
    whole: Path, target: Path, tmp_path: Path
) -> None:
    arguments = command(target, tmp_path)
    for opened, times in (
        (rf"{PRACTICE}/\.000001\.unfinished", 2),
        (rf"{PRACTISED}/\.unfinished-{STATE}", 2),
    ):
        killed_on_open(opened, times, run_stages, arguments)
    run_stages(arguments)
    expected, got = contents(whole), contents(tmp_path)
    assert expected.keys() == got.keys()
    assert [name for name in expected if expected[name] != got[name]] == []
    assert f"{PRACTICE}/000001/top_ids.npy" in expected
    assert "draft-training-practised/trained.safetensors" in expected


def test_the_draft_before_is_the_one_without_practice(
    whole: Path, target: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = command(target, tmp_path, practice=0)
    for stage in ("write", "train"):
        assert run_command([*arguments, "--only", stage]) == 0
    plain, before = contents(tmp_path), contents(whole)
    assert "draft/trained.safetensors" in plain
    assert all(before[name] == plain[name] for name in plain)
    settings = [
        json.loads((out / "training" / "recipe.json").read_text()) for out in (whole, tmp_path)
    ]
    assert settings[0] == settings[1]
    assert "practice" not in settings[0]
    assert run_command([*arguments, "--only", "practice"]) == 2
    assert "practice-tokens: got 0" in capfd.readouterr().err


def test_the_practised_draft_says_what_it_learned_from(
    whole: Path, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    training = check_draft(whole / "draft-training-practised")["training"]
    assert training["practice"]["num_tokens"] == 10_000
    assert training["training"]["num_tokens"] == 3 * 2048
    assert training["continue_from"]["training"]["num_tokens"] == 6 * 2048
    assert "practice" not in training["continue_from"]
    first = (whole / "draft" / "trained.safetensors").read_bytes()
    assert (whole / "draft-training-practised" / "trained.safetensors").read_bytes() != first
    assert run_command([*command(target, whole, practice=9000), "--only", "practice"]) == 2
    assert "num_tokens: got 9000, but" in capfd.readouterr().err
    blocks = [*command(target, whole), "--only", "practice", "--block", "4"]
    assert run_command(blocks) == 2
    assert "block: got 4 with practice" in capfd.readouterr().err
