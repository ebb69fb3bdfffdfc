"""`paceline distil` from the first prompt to a saved draft, on tiny models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.kills import KillingProgress, killed
from harness.models import llama_config, save_tiny, tiny_tokenizer
from transformers import AutoModelForCausalLM

from edge.distillation.compact import (
    CompactTypes,
    pack_draft,
    read_description,
    read_levels,
    unpacked,
)
from edge.distillation.draft_reading import check_draft, read_exact, read_trained
from edge.distillation.evaluation import EvaluatedDraft
from edge.distillation.levels import rounded, values_of
from edge.distillation.progress import Progress
from edge.distillation.report_stage import ReportStage, write_report
from edge.distillation.shards import count_shards, read_shard
from edge.distillation.train_stage import TrainStage, train_draft
from edge.distillation.training import TrainSettings
from edge.distillation.write_stage import WriteStage, write_text
from edge.distillation.writing import WritingSettings
from edge.drafters import ModelDrafter, load_drafter
from edge.drafters.matrices import can_multiply
from paceline.command import run as run_command
from paceline.engine.loading import load_tokenizer, resolve
from paceline.engine.rows import RowGroup
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError, IncompatibleError
from paceline.sampling.settings import SamplingSettings

pytestmark = pytest.mark.slow

SEED = 3
"""Script 0, which is held out, has greedy answers with it."""
TRAINING = TrainStage(
    num_layers=1,
    num_outputs=208,  # whole blocks of the kernel for packed drafts
    save_every=2,
    measure_every=4,
    settings=TrainSettings(
        num_tokens=24 * 512, batch_tokens=256, batches_per_step=2, rate=1e-2, bfloat16=False
    ),
)


def writing(target: Path, **changes: Any) -> WriteStage:
    stage = WriteStage(
        target=str(target),
        num_tokens=6000,
        seed=SEED,
        documents=(target / "document.txt",),
        dtype="float32",
        scripts_per_shard=12,
        settings=WritingSettings(num_slots=6, max_length=240, top_k=8),
    )
    return replace(stage, **changes)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny(
        tmp_path_factory.mktemp("target"),
        config=llama_config(num_hidden_layers=3, intermediate_size=64),
    )
    lines = [f"def number_{i}():\n    return {i * i}\n" for i in range(200)]
    (folder / "document.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def run(target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_text(folder, writing(target), progress=Progress())
    return folder


def arrays(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "text").rglob("*.npy"))]


def test_every_kept_law_is_the_targets_own(run: Path, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    shard = read_shard(run / "text", 0, check=True)
    assert len(shard.description.passages) >= 3
    for passage in shard.description.passages:
        here = slice(passage.start, passage.start + passage.length)
        tokens = torch.from_numpy(shard.tokens[here].astype(np.int64))
        with torch.inference_mode():
            laws = torch.log_softmax(model(tokens[None]).logits[0].float(), dim=-1)
        kept = torch.from_numpy(shard.top_ids[here].astype(np.int64))[1:]
        logprobs = torch.from_numpy(shard.top_logprobs[here].astype(np.float32))[1:]
        assert torch.allclose(laws[:-1].gather(1, kept), logprobs, atol=5e-3, rtol=2e-3)
        assert torch.allclose(laws[:-1].max(1).values, logprobs[:, 0], atol=5e-3, rtol=2e-3)


def test_a_run_that_is_cut_goes_on_to_the_same_text(
    run: Path, target: Path, tmp_path: Path
) -> None:
    stage = writing(target)
    write_text(tmp_path, replace(stage, num_tokens=1), progress=Progress())
    done = count_shards(tmp_path / "text")
    # What a kill while a shard was being written leaves behind.
    torn = tmp_path / "text" / f".{done:06d}.unfinished"
    torn.mkdir()
    (torn / "tokens.npy").write_bytes(b"torn")
    write_text(tmp_path, stage, progress=Progress())
    assert count_shards(tmp_path / "text") > done
    assert arrays(tmp_path) == arrays(run)


def test_other_settings_are_refused(run: Path, target: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed: got 7, but .* was started with"):
        write_text(run, writing(target, seed=7), progress=Progress())


def test_text_that_a_draft_is_measured_on_is_dropped(
    target: Path, run: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(resolve(str(target)))
    shard = read_shard(run / "text", 0)
    texts = {
        passage.number: tokenizer.decode(
            shard.tokens[passage.start : passage.start + passage.length].tolist()
        )
        for passage in shard.description.passages
    }
    number, text = max(texts.items(), key=lambda item: len(item[1].split()))
    assert len(text.split()) > 20
    excluded = tmp_path / "held_out.jsonl"
    excluded.write_text(json.dumps({"turns": [text.upper()]}))
    out = tmp_path / "out"
    out.mkdir()
    write_text(out, writing(target, num_tokens=1, exclude=(excluded,)), progress=Progress())
    again = read_shard(out / "text", 0).description
    assert again.counts["overlapping"] >= 1
    assert number not in {passage.number for passage in again.passages}


def log(run: Path, name: str) -> list[dict[str, float]]:
    lines = (run / name / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def first_loss(run: Path, name: str) -> float:
    losses: list[float] = [line["loss"] for line in log(run, name) if "loss" in line]
    return losses[0]


def test_a_student_learns_and_its_draft_is_whole(run: Path) -> None:
    draft = train_draft(run, TRAINING, progress=Progress())
    losses = [line["loss"] for line in log(run, "training") if "loss" in line]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    record = check_draft(draft)
    assert record["layers"] == [0]
    assert (draft / "README.md").read_text().startswith("# Draft model for")
    (draft / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"head.safetensors: its sha256"):
        check_draft(draft)


@pytest.fixture(scope="module")
def draft(run: Path) -> Path:
    return train_draft(run, replace(TRAINING, name="shared"), progress=Progress())


@pytest.mark.parametrize("is_packed", [False, True])
def test_an_edge_drafts_with_it_as_the_student_would(
    target: Path, draft: Path, tmp_path: Path, *, is_packed: bool
) -> None:
    tokenizer = load_tokenizer(resolve(str(target)))
    named = draft
    if is_packed:
        named = tmp_path / "tiny.draft"
        pack_draft(draft, named, types=CompactTypes(layers="Q8_0", frequent="Q8_0", rare="Q8_0"))
    drafter = load_drafter(str(named), tokenizer=tokenizer)
    text = tokenizer.encode("def f():")
    generation = drafter.open(
        prompt_length=len(text), max_tokens=20, sampling=SamplingSettings(temperature=0.0)
    )
    drafted = generation.extend(text, 6)
    student = EvaluatedDraft(draft).student
    said = [*text]
    for token in drafted:
        with torch.inference_mode():
            logits = student(torch.tensor(said), torch.arange(len(said)), [len(said)])[-1]
        # Weights are kept in bfloat16 or eight bits, so near ties may go either way.
        best = logits.max()
        place = (student.output_ids == token).nonzero()
        assert len(place) == 1, "it drafted what it cannot say"
        assert float(best - logits[place[0, 0]]) < 0.3
        said.append(token)
    assert len(drafted) == 6


def test_a_draft_that_learned_on_levels_is_run_on_them(
    run: Path, target: Path, tmp_path: Path
) -> None:
    settings = replace(TRAINING.settings, bits=4)
    folder = train_draft(
        run, replace(TRAINING, name="levels", settings=settings), progress=Progress()
    )
    file = tmp_path / "levels.draft"
    pack_draft(folder, file)
    levels = read_levels(file)
    if not can_multiply(list(levels.values())):
        pytest.skip("this processor has no kernel for 4-bit weights")
    tokenizer = load_tokenizer(resolve(str(target)))
    drafter = load_drafter(str(file), tokenizer=tokenizer)
    assert isinstance(drafter, ModelDrafter)
    assert drafter.engine.identity.quantisation == "levels of 4 bits"
    # The embeddings that it trained with are those of the file, and so are its rounded layers.
    exact = read_exact(folder)
    for name, value in exact.items():
        if name in levels:
            packed = values_of(levels[name].codes, levels[name].scales, bits=4)
            assert torch.equal(packed, rounded(value, bits=4))
    text = tokenizer.encode("def f():")
    sequence = drafter.engine.open(max_length=64, max_pending=8)
    group = RowGroup(sequence=sequence, tokens=text)
    logits = drafter.engine.forward([group]).of(0)
    with unpacked(file) as opened, torch.inference_mode():
        student = EvaluatedDraft(opened).student
        expected = student(torch.tensor(text), torch.arange(len(text)), [len(text)])
    got = logits[:, student.output_ids]
    assert float((got - expected).square().mean().sqrt()) < 0.1 * float(expected.std())


def test_a_draft_for_another_tokenizer_is_refused(draft: Path) -> None:
    inner = tiny_tokenizer()
    inner.add_tokens(["something else"])
    with pytest.raises(IncompatibleError, match="was made for tokenizer"):
        load_drafter(str(draft), tokenizer=Tokenizer(inner, name="other"))


def test_a_damaged_draft_is_refused_by_the_edge(target: Path, draft: Path, tmp_path: Path) -> None:
    copy = tmp_path / "draft"
    shutil.copytree(draft, copy)
    (copy / "model.safetensors").write_bytes(b"damaged")
    tokenizer = load_tokenizer(resolve(str(target)))
    with pytest.raises(ConfigError, match=r"model.safetensors: its sha256"):
        load_drafter(str(copy), tokenizer=tokenizer)


@pytest.mark.parametrize("head", ["frozen", "trained"])
def test_a_packed_draft_is_small_and_guesses_the_same(run: Path, tmp_path: Path, head: str) -> None:
    folder = train_draft(
        run, replace(TRAINING, name=f"{head}-head", head=head), progress=Progress()
    )
    file = tmp_path / "tiny.draft"
    low = pack_draft(folder, tmp_path / "low.draft", types=CompactTypes())
    size = pack_draft(folder, file, types=CompactTypes(layers="Q8_0", frequent="Q8_0", rare="Q8_0"))
    assert low < size == file.stat().st_size
    assert size < 0.8 * (folder / "model.safetensors").stat().st_size
    assert read_description(file)["layers"] == [0]
    tokens, positions = torch.arange(30, 60), torch.arange(30)
    with unpacked(file) as opened, torch.inference_mode():
        got = EvaluatedDraft(opened).student
        expected = EvaluatedDraft(folder).student
        assert torch.equal(got.output_ids, expected.output_ids)
        laws = [student(tokens, positions, [30]) for student in (got, expected)]
    assert not opened.exists()
    # Eight bits are worth about 1 % of a weight; the spread of these logits is over 1.
    assert float((laws[0] - laws[1]).square().mean().sqrt()) < 0.1
    assert float((laws[0].argmax(1) == laws[1].argmax(1)).float().mean()) > 0.85
    assert pack_draft(folder, tmp_path / "usual.draft") == size, "it learned with exact weights"
    content = file.read_bytes()
    for place in (len(content) // 2, len(content) - 1):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(
            ConfigError, match=r"tiny.draft: damaged: checksum [0-9a-f]{64}, expected"
        ):
            read_levels(file)
    file.write_bytes(content[:-1])
    with pytest.raises(ConfigError, match=r"tiny.draft: cannot be read"), unpacked(file):
        pass
    file.write_bytes(b"no draft")
    with pytest.raises(ConfigError, match=r"tiny.draft: cannot be read"):
        read_description(file)


@pytest.mark.parametrize(
    ("bits", "types"),
    [
        (3, CompactTypes(layers="L3", frequent="L3", rare="L3")),
        (6, CompactTypes(layers="L6", frequent="L6", rare="L3")),
        (None, CompactTypes(layers="Q8_0", frequent="Q8_0", rare="Q8_0")),
    ],
)
def test_a_draft_is_packed_as_it_learned(bits: int | None, types: CompactTypes) -> None:
    assert CompactTypes.of({"training": {"training": {"bits": bits}}}) == types


def test_the_report_says_what_the_draft_is_worth(run: Path, draft: Path) -> None:
    path = write_report(run, ReportStage(draft=draft, dtype="float32"), progress=Progress())
    report = json.loads(path.read_text())
    everything = report["temperature_0"]["all"]
    assert everything["positions"] > 0
    assert everything["within"] == sorted(everything["within"])
    parts = [row["positions"] for name, row in report["temperature_0"].items() if name != "all"]
    assert sum(parts) == everything["positions"]
    assert all(parts)
    assert report["costs"]["draft_s"] > 0
    chain = everything["chain"]
    assert 0 < chain["starts"] < everything["positions"]
    assert len(chain["by_position"]) == len(chain["by_position_coupled"]) == 8
    rounds = report["tokens_per_round"]["all"]
    assert rounds["chain_2"] >= 1 + chain["by_position"][0] - 1e-3
    assert 1 <= rounds["chain_2"] <= rounds["chain_4"] <= rounds["tree_2x4"] <= rounds["tree_4x4"]
    # Hot answers of so few tokens may all be too short for chains.
    for name, coupled in report["tokens_per_round_coupled"].items():
        hot = report["temperature_1"][name]["chain"]["by_position_coupled"]
        assert coupled["chain_2"] == pytest.approx(1 + hot[0] + hot[0] * hot[1], abs=2e-3)
    assert set(report["best_chain"]) == {"rtt_20_ms", "rtt_60_ms", "rtt_200_ms"}
    assert (draft / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_draft_is_where_the_next_begins(run: Path, draft: Path) -> None:
    first = first_loss(run, "shared")
    short = TrainSettings(
        num_tokens=512, batch_tokens=256, batches_per_step=2, rate=1e-9, bfloat16=False
    )
    stage = replace(TRAINING, name="next", continue_from=draft, settings=short)
    onward = train_draft(run, stage, progress=Progress())
    assert first_loss(run, "next") < 0.95 * first
    before, after = (read_trained(folder) for folder in (draft, onward))
    assert before.output_ids.tolist() == after.output_ids.tolist()
    assert all(torch.allclose(after.weights[k], v, atol=1e-6) for k, v in before.weights.items())


def test_training_that_is_cut_goes_on_to_the_same_weights(run: Path) -> None:
    whole = replace(TRAINING, name="whole")
    cut = replace(TRAINING, name="cut")
    expected = train_draft(run, whole, progress=Progress())
    # In the first step, between two states, and right before one.
    for steps in (1, 7, 4):
        killed(train_draft, run, cut, progress=KillingProgress(steps))
    got = train_draft(run, cut, progress=Progress())
    assert log(run, "cut") == log(run, "whole")
    for name in ("trained.safetensors", "head.safetensors"):
        assert (got / name).read_bytes() == (expected / name).read_bytes()


def test_the_command_does_all_stages_and_then_has_nothing_left_to_do(
    target: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = f"distil --target {target} --out {out} --dtype float32 --threads 1 --batch 6 --max-length 240"
    arguments += (
        " --scripts-per-shard 12 --write-tokens 500 --train-tokens 1 --num-layers 1 --outputs 100"
    )
    assert run_command(arguments.split()) == 0
    said = capfd.readouterr().err
    assert "held out, temperature 0: acceptance" in said
    assert (out / "draft.draft").stat().st_size > 0
    before = (out / "draft" / "trained.safetensors").read_bytes()
    assert run_command(arguments.split()) == 0
    assert (out / "draft" / "trained.safetensors").read_bytes() == before
    assert run_command([*arguments.split(), "--seed", "1"]) == 2
    assert "seed: got 1" in capfd.readouterr().err
