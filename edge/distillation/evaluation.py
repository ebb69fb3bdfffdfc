"""Measures a finished draft, from its folder, on text whose laws are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM

from edge.distillation.chains import Chains, by_position
from edge.distillation.draft_reading import check_draft, read_head
from edge.distillation.measure import Tally
from edge.distillation.packing import Packer, Text
from edge.distillation.progress import without_bars
from edge.distillation.shards import Shard
from edge.distillation.student import Student
from edge.distillation.training import measure_student

BATCH_TOKENS = 2048


class EvaluatedDraft:
    """A draft as it is shipped.

    Args:
        folder: of the draft.
        device: where to measure.
    """

    def __init__(self, folder: Path, *, device: Literal["cpu", "cuda"] = "cpu") -> None:
        self.record = check_draft(folder)
        ids, rows = read_head(folder)
        with without_bars():
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, attn_implementation="eager"
            ).to(device)
        self.student = Student(model, output_ids=ids.to(device), trains_head=False)
        with torch.no_grad():
            self.student.head.copy_(rows)


def measure_draft(
    draft: EvaluatedDraft,
    shards: Sequence[Shard],
    *,
    choose: Callable[[Packer], Iterable[Text]] | None = None,
    category: Callable[[Text], str] = lambda text: text.passage.category,
) -> Tally:
    """Count guesses at answers.

    Args:
        draft: the draft.
        shards: text of the target, none of which it learned from.
        choose: the conversations to look at; all of them if left out.
        category: under which name to count one.
    """
    ids = draft.student.output_ids.cpu().numpy()
    packer = Packer(shards, output_ids=ids, batch_tokens=BATCH_TOKENS)
    everything = [*packer.texts(is_held_out=True), *packer.texts(is_held_out=False)]
    texts = list(everything if choose is None else choose(packer))
    batches = (packer.pack(group) for group in packer.in_order(texts))
    return measure_student(draft.student, batches, category=category)


def rows_of(tally: Tally) -> dict[str, dict[str, Any]]:
    """Return a tally as JSON has it."""
    return {
        name: {
            "positions": guesses.num_positions,
            "within": [round(share, 4) for share in guesses.coverage],
            "coupled": round(guesses.coupled, 4),
            "divergence": round(guesses.mean_divergence, 4),
            "chain": _chain_row(guesses.chains),
        }
        for name, guesses in tally.rows().items()
    }


def _chain_row(chains: Chains) -> dict[str, Any]:
    """Acceptance at each place of a chain whose tokens before were right."""

    def rounded(shares: tuple[float, ...]) -> list[float | None]:
        return [None if share is None else round(share, 4) for share in by_position(shares)]

    return {
        "starts": chains.num_starts,
        "by_position": rounded(chains.shares()),
        "by_position_coupled": rounded(chains.coupled_shares()),
    }
