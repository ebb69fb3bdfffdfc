"""`paceline distil`, the command itself: one seed gives the same draft twice, also if the second run is killed again and again."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.kills import killed_on_open
from harness.models import llama_config, save_tiny

from edge.distillation.train_state import STATE
from paceline.command import run as run_command

pytestmark = pytest.mark.slow

CONFIG = llama_config(hidden_size=16, intermediate_size=16, num_hidden_layers=2)
NUM_STEPS = 6


def command(target: Path, out: Path, *, seed: int = 3) -> list[str]:
    stages = f"distil --target {target} --out {out} --dtype float32 --threads 1 --seed {seed}"
    writing = "--batch 8 --max-length 240 --scripts-per-shard 8 --write-tokens 2000"
    student = "--num-layers 1 --outputs 64 --fit-tokens 2048 --bits none"
    training = f"--train-tokens {NUM_STEPS * 2048} --batches-per-step 1"
    return f"{stages} {writing} {student} {training} --documents {target / 'document.txt'}".split()


def run_stages(arguments: list[str]) -> None:
    for stage in ("write", "train"):
        assert run_command([*arguments, "--only", stage]) == 0


def contents(out: Path) -> dict[str, bytes]:
    """The text, the curve of losses and the draft."""
    wanted = [*(out / "text").rglob("*.npy"), out / "training" / "log.jsonl"]
    wanted += (out / "draft").glob("*.safetensors")
    return {str(path.relative_to(out)): path.read_bytes() for path in wanted}


def test_killed_three_times_it_makes_the_draft_that_it_makes_in_one_go(tmp_path: Path) -> None:
    target = save_tiny(tmp_path / "target", config=CONFIG)
    lines = [f"def number_{i}():\n    return {i * i}\n" for i in range(40)]
    (target / "document.txt").write_text("".join(lines))
    run_stages(command(target, tmp_path / "whole"))
    arguments = command(target, tmp_path / "cut")
    # While the second piece of text is written, between two states, and while the second state is written.
    for opened, times in (
        (r"000001\.unfinished", 1),
        (r"training/log\.jsonl", 5),
        (rf"training/\.unfinished-{STATE}", 1),
    ):
        killed_on_open(opened, times, run_stages, arguments)
    run_stages(arguments)
    whole, cut = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert [name for name in whole if whole[name] != cut[name]] == []
    assert whole["training/log.jsonl"].count(b'"loss"') >= NUM_STEPS
    assert "text/000001/tokens.npy" in whole
    assert "draft/trained.safetensors" in whole
