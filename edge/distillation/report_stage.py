"""The last stage: what the draft is worth, on held-out text of the target, as JSON and as a plot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from edge.distillation.compact import SUFFIX, pack_draft, unpacked
from edge.distillation.costs import Costs, measure_costs
from edge.distillation.draft_reading import check_draft
from edge.distillation.evaluation import EvaluatedDraft, measure_draft, rows_of
from edge.distillation.measure import Tally
from edge.distillation.packing import Packer, Text
from edge.distillation.plot import plot_report
from edge.distillation.progress import Progress
from edge.distillation.recipe import write_atomically
from edge.distillation.shards import Shard, count_shards, read_shard
from edge.distillation.speedup import best_rate
from edge.distillation.write_stage import TEXT
from edge.drafters.distilled import load_distilled
from paceline.engine.loading import DType, load_model, load_tokenizer, resolve

ROUND_TRIPS_S = (0.02, 0.06, 0.2)
ROUND_LENGTHS = (2, 4, 8)
TREE_WIDTHS, TREE_DEPTH = (2, 4), 4
HOT = 0.8
"""Texts of at least this temperature stand for temperature 1."""
REPORT, PLOT = "report.json", "report.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStage:
    """What the report depends on."""

    draft: Path
    dtype: DType = "bfloat16"
    device: Literal["cpu", "cuda"] = "cpu"


def write_report(folder: Path, stage: ReportStage, *, progress: Progress) -> Path:
    """Measure a draft; return where the report is.

    Raises:
        ConfigError: no text or no draft.
        ModelError: a model cannot be loaded.
    """
    text = folder / TEXT
    shards = [read_shard(text, number) for number in range(count_shards(text))]
    record = check_draft(stage.draft)
    progress.note(f"measuring {stage.draft} on held-out text of {record['target']}")
    with _packed(stage.draft) as shipped:
        cold, hot = _tallies(shipped, stage, shards)
        costs = _costs(shipped, stage, target=record["target"])
    report = {
        "draft": str(stage.draft),
        "target": record["target"],
        "layers": record["layers"],
        "text_tokens": sum(len(shard.tokens) for shard in shards),
        "temperature_0": rows_of(cold),
        "temperature_1": rows_of(hot),
        "costs": asdict(costs) | {"share": round(costs.share, 4)},
        "tokens_per_round": _rounds(cold),
        "tokens_per_round_coupled": _coupled_rounds(hot),
        "best_chain": _best_chains(cold.total.acceptance, costs),
    }
    path = stage.draft / REPORT
    write_atomically(path, json.dumps(report, indent=1))
    if not plot_report(report, stage.draft / PLOT):
        progress.note("no plot: matplotlib is not installed")
    total = cold.total
    progress.note(
        f"held out, temperature 0: acceptance {total.acceptance:.3f}, within 4 {total.coverage[3]:.3f}; temperature 1 "
        f"coupled {hot.total.coupled:.3f}; a drafted token costs {costs.share:.3f} of a target step"
    )
    return path


def _tallies(shipped: Path, stage: ReportStage, shards: Sequence[Shard]) -> tuple[Tally, Tally]:
    """Greedy texts, and hot ones."""
    with unpacked(shipped) as folder:
        draft = EvaluatedDraft(folder, device=stage.device)

    def cold_texts(packer: Packer) -> list[Text]:
        return [text for text in packer.texts(is_held_out=True) if text.passage.temperature == 0]

    def hot_texts(packer: Packer) -> list[Text]:
        return [text for text in packer.texts(is_held_out=True) if text.passage.temperature >= HOT]

    return (
        measure_draft(draft, shards, choose=cold_texts),
        measure_draft(draft, shards, choose=hot_texts),
    )


def _costs(shipped: Path, stage: ReportStage, *, target: str) -> Costs:
    """Both engines as an edge and a verifier would load them."""
    source = resolve(target)
    tokenizer = load_tokenizer(source)
    large = load_model(source, dtype=stage.dtype, device=stage.device, tokenizer=tokenizer)
    small = load_distilled(shipped, tokenizer=tokenizer, dtype=stage.dtype, device=stage.device)
    return measure_costs(small, large)


@contextmanager
def _packed(draft: Path) -> Iterator[Path]:
    """The draft as `pack` makes it: what is used is what is measured."""
    with TemporaryDirectory(prefix="paceline-report-") as folder:
        file = Path(folder) / f"{draft.name}{SUFFIX}"
        pack_draft(draft, file)
        yield file


def _rounds(cold: Tally) -> dict[str, Any]:
    """Tokens per round by category, as the texts have it: chains, and trees of some width on every level.

    Categories without an answer that is long enough are left out.
    """
    rows: dict[str, Any] = {}
    for name, guesses in cold.rows().items():
        chains = guesses.chains
        if chains.num_starts == 0:
            continue
        rows[name] = {
            f"chain_{length}": round(chains.tokens_per_round(length), 3) for length in ROUND_LENGTHS
        } | {
            f"tree_{width}x{TREE_DEPTH}": round(chains.tokens_per_round(TREE_DEPTH, width=width), 3)
            for width in TREE_WIDTHS
        }
    return rows


def _coupled_rounds(hot: Tally) -> dict[str, Any]:
    """The same for chains at temperature 1. What trees cover there would have to be drawn."""
    return {
        name: {
            f"chain_{length}": round(guesses.chains.coupled_tokens_per_round(length), 3)
            for length in ROUND_LENGTHS
        }
        for name, guesses in hot.rows().items()
        if guesses.chains.num_starts
    }


def _best_chains(acceptance: float, costs: Costs) -> dict[str, Any]:
    return {
        f"rtt_{1000 * rtt_s:g}_ms": asdict(
            best_rate(acceptance, draft_s=costs.draft_s, target_s=costs.target_s, rtt_s=rtt_s)
        )
        for rtt_s in ROUND_TRIPS_S
    }
