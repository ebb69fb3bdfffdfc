"""A draft with mask slots from training to a text that a real verifier gives back, on tiny models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness.event_loop import run_async
from harness.kills import KillingProgress, killed
from harness.models import llama_config, save_tiny, tiny_model
from harness.raw_edge import serving
from harness.reference import reference_output

from cloud.scheduler import SchedulerSettings
from edge.distillation.compact import CompactTypes, pack_draft
from edge.distillation.draft_reading import check_draft, read_slots, read_trained
from edge.distillation.progress import Progress
from edge.distillation.train_stage import TrainStage, train_draft
from edge.distillation.training import TrainSettings
from edge.distillation.write_stage import WriteStage, write_text
from edge.distillation.writing import WritingSettings
from edge.drafters import load_drafter
from edge.drafters.block import BlockDrafter
from paceline import Client
from paceline.client.settings import DraftingSettings
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.session.growth import Growth

pytestmark = pytest.mark.slow

CONFIG = llama_config(num_hidden_layers=2, intermediate_size=64)
PLAIN = TrainStage(
    name="plain",
    num_layers=1,
    num_outputs=208,
    fit_tokens=0,
    save_every=2,
    measure_every=4,
    settings=TrainSettings(
        num_tokens=2 * 256, batch_tokens=256, batches_per_step=1, rate=1e-2, bfloat16=False
    ),
)
COUNT = 32
SAMPLINGS = (SamplingSettings(temperature=0.0), SamplingSettings(temperature=0.9, seed=7))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny(tmp_path_factory.mktemp("target"), config=CONFIG)
    lines = [f"def number_{i}():\n    return {i * i}\n" for i in range(60)]
    (folder / "document.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def run(target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    stage = WriteStage(
        target=str(target),
        num_tokens=1500,
        seed=3,
        documents=(target / "document.txt",),
        dtype="float32",
        scripts_per_shard=12,
        settings=WritingSettings(num_slots=6, max_length=200, top_k=8),
    )
    write_text(folder, stage, progress=Progress())
    return folder


@pytest.fixture(scope="module")
def plain(run: Path) -> Path:
    return train_draft(run, PLAIN, progress=Progress())


@pytest.fixture(scope="module")
def slotted(run: Path, plain: Path) -> Path:
    return train_draft(run, _with_slots(plain, "slotted"), progress=Progress())


def _with_slots(plain: Path, name: str) -> TrainStage:
    settings = replace(PLAIN.settings, num_tokens=10 * 256)
    return replace(PLAIN, name=name, continue_from=plain, block=4, settings=settings)


def test_a_plain_draft_learns_slots_and_a_kill_changes_nothing(
    run: Path, plain: Path, slotted: Path
) -> None:
    log = (run / "slotted" / "log.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    measured = [line["block"] for line in lines if "block" in line]
    assert [len(one) for one in measured] == [4, 4, 4]
    assert all(place["positions"] > 0 for place in measured[0])
    for early, late in zip(measured[0], measured[-1], strict=True):
        assert late["divergence"] < early["divergence"]
    assert "slots" not in read_trained(plain).weights
    slots = read_slots(slotted)
    assert slots is not None
    assert slots.shape == (3, CONFIG.hidden_size)
    assert torch.equal(slots, read_trained(slotted).weights["slots"])
    cut = _with_slots(plain, "cut")
    killed(train_draft, run, cut, progress=KillingProgress(5))
    again = train_draft(run, cut, progress=Progress())
    assert (run / "cut" / "log.jsonl").read_text() == log
    name = "trained.safetensors"
    assert (again / name).read_bytes() == (slotted / name).read_bytes()


def test_a_longer_block_begins_with_the_slots_there_are(run: Path, slotted: Path) -> None:
    settings = replace(PLAIN.settings, num_tokens=256, rate=1e-9)
    stage = replace(PLAIN, name="longer", continue_from=slotted, block=6, settings=settings)
    before, after = read_slots(slotted), read_slots(train_draft(run, stage, progress=Progress()))
    assert before is not None
    assert after is not None
    assert after.shape == (5, CONFIG.hidden_size)
    assert torch.allclose(after[:3], before, atol=1e-6)
    assert not torch.allclose(after[3], after[4], atol=1e-3)


def test_slots_are_part_of_the_draft(plain: Path, slotted: Path, tmp_path: Path) -> None:
    assert check_draft(slotted)["training"]["block"] == 4
    assert "block" not in check_draft(plain)["training"]
    tokenizer = load_tokenizer(resolve(check_draft(slotted)["target"]))
    with pytest.raises(ConfigError, match="has no mask slots"):
        load_drafter(f"block:{plain}", tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="got block:nowhere, expected a draft"):
        load_drafter("block:nowhere", tokenizer=tokenizer)
    copy = shutil.copytree(slotted, tmp_path / "copy")
    slots = copy / "slots.safetensors"
    slots.write_bytes(slots.read_bytes()[:-1] + b"!")
    with pytest.raises(ConfigError, match=r"slots.safetensors: its sha256"):
        load_drafter(f"block:{copy}", tokenizer=tokenizer)


@pytest.mark.parametrize("kind", ["folder", "L4"])
def test_the_text_is_the_targets_own(
    target: Path, slotted: Path, tmp_path: Path, kind: str
) -> None:
    named = slotted
    if kind != "folder":
        named = tmp_path / "tiny.draft"
        pack_draft(slotted, named, types=CompactTypes(layers=kind, frequent=kind, rare=kind))
    run_async(_generate(target, named))


async def _generate(target: Path, named: Path) -> None:
    tokenizer = load_tokenizer(resolve(str(target)))
    engine = load_model(resolve(str(target)), dtype="float32", tokenizer=tokenizer)
    prompt = tokenizer.encode("one two one two three one two")
    stops = tuple(tokenizer.stop_tokens)
    scheduler = SchedulerSettings(race=False, patience_s=30.0)
    for growth in (None, Growth()):
        drafter = load_drafter(f"{'tree:' if growth else ''}block:{named}", tokenizer=tokenizer)
        assert isinstance(drafter, BlockDrafter)
        assert drafter.num_positions == 4
        drafting = DraftingSettings(draft_length=6, growth=growth)
        async with (
            serving(engine, scheduler=scheduler) as verifier,
            Client(
                verifiers=[verifier.address],
                tokenizer=tokenizer,
                drafter=drafter,
                drafting=drafting,
            ) as client,
        ):
            for sampling in SAMPLINGS:
                async with client.generate(
                    prompt_ids=prompt, max_tokens=COUNT, sampling=sampling
                ) as generation:
                    result = await generation.complete()
                expected = reference_output(
                    tiny_model(CONFIG),
                    prompt,
                    sampling=sampling,
                    max_tokens=COUNT,
                    stop_tokens=stops,
                    vocabulary_size=260,
                )
                assert list(result.token_ids) == list(expected)
                assert result.statistics.judged > 0
