"""What was measured, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from simulator.acceptance.bursts import LAGS, burstiness
from simulator.acceptance.guess_trace import GuessedText, GuessTrace
from simulator.cost import FittedCost, Work

CHAIN = 8
"""Length of the drafted chain for which tokens per round are told."""
BINS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Limits between bins of confidence."""
_RUNS = (4, 8)
_LAGS = (1, 4)
_HEADER = (
    *("tokens", "first", "within 4"),
    *(f"run of {length}" for length in _RUNS),
    *(f"r({lag})" for lag in _LAGS),
    f"round of {CHAIN}",
)


def cost_lines(role: str, fitted: FittedCost) -> list[str]:
    """Return what a cost is, in ms, and how well it fits."""
    cost = fitted.cost
    one = Work().with_sequence(num_rows=1, context=256)
    eight = Work().with_sequence(num_rows=8, context=256)
    arithmetic = f", {fitted.dtype}" if fitted.dtype else ""
    return [
        (
            f"{role} {fitted.name}{arithmetic}, {fitted.threads} thread(s): "
            f"a row after 256 tokens takes {_ms(cost.seconds(one))}, eight {_ms(cost.seconds(eight))}"
        ),
        (
            f"  fixed {_ms(cost.fixed_s)}, sequence {_ms(cost.per_sequence_s)}, row {_ms(cost.per_row_s)}, "
            f"prefill row {_ms(cost.per_prefill_row_s)}, 1,000 context tokens {_ms(1000 * cost.per_context_token_s)}, "
            f"1,000 attended by a row {_ms(1000 * cost.per_attended_s)}"
        ),
        (
            f"  fit: median error {fitted.median_error:.1%}, worst {fitted.worst_error:.1%}, R2 {fitted.r_squared:.4f}; "
            f"{fitted.num_steps} steps, {fitted.left_out:.0%} more were disturbed and left out"
        ),
    ]


def trace_lines(trace: GuessTrace) -> list[str]:
    """Return how often and in which bursts a draft was right, by temperature and category."""
    lines = []
    for temperature in sorted({text.temperature for text in trace.texts}):
        texts = trace.chosen(temperature=temperature)
        lines += [
            f"{trace.draft} for {trace.target} at temperature {temperature:g} (as recorded/if draws were independent)",
            _row(
                "category",
                [*_HEADER],
            ),
        ]
        by_category = sorted(texts, key=lambda text: text.category)
        for category, group in groupby(by_category, key=lambda text: text.category):
            lines.append(_category_row(category or "(none)", list(group)))
        lines.append(_category_row("all", texts))
        lines += _confidence_lines(trace, texts)
    return lines


def _category_row(name: str, texts: Sequence[GuessedText]) -> str:
    found = burstiness(texts)
    cells = [str(found.num_positions), f"{found.acceptance:.2f}", f"{found.within(4):.2f}"]
    # As it was, and as independent draws of the same rate would have it.
    cells += [f"{found.run_at_least(n):.2f}/{found.acceptance**n:.2f}" for n in _RUNS]
    cells += [f"{found.autocorrelation[LAGS.index(lag)]:+.2f}" for lag in _LAGS]
    cells += [
        f"{found.tokens_per_round(CHAIN):.2f}/{found.independent_tokens_per_round(CHAIN):.2f}"
    ]
    return _row(name, cells)


def _confidence_lines(trace: GuessTrace, texts: Sequence[GuessedText]) -> list[str]:
    """Return the part of right first guesses for each bin of confidence."""
    counts = [[0, 0] for _ in range(len(BINS) + 1)]
    for text in texts:
        for rank, byte in zip(text.ranks, text.confidence, strict=True):
            value = byte * trace.confidence.step
            if trace.abstains and byte == 0:
                continue
            place = sum(value >= limit for limit in BINS)
            counts[place][0] += 1
            counts[place][1] += rank == 1
    names = [f"below {BINS[0]:g}", *(f"from {limit:g}" for limit in BINS)]
    told = [
        f"{name} {right / total:.2f} ({total})"
        for name, (total, right) in zip(names, counts, strict=True)
        if total
    ]
    return [f"  right at a confidence ({trace.confidence.unit}): " + ", ".join(told)]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"  {name:<16}" + "".join(f"{cell:>11}" for cell in cells)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
