"""What a forward pass of a model cannot do without: its matrix products, and attention over the text. The measure of all that comes on top.

Nothing here is run by itself: `draft_forward.py` and `target_forward.py` time it in turns with whole forward passes.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Product = Callable[[Tensor], Tensor]

IN_A_ROW = 4
"""Times that something is done before something else is. After fewer, the processor still holds less of its weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Of one layer, and how many layers there are."""

    num_layers: int
    num_keys: int
    queries_per_key: int
    head_dim: int

    @classmethod
    def of(cls, config: Any) -> AttentionShape:
        """Return that of a model of Llama's kind."""
        return cls(
            num_layers=config.num_hidden_layers,
            num_keys=config.num_key_value_heads,
            queries_per_key=config.num_attention_heads // config.num_key_value_heads,
            head_dim=config.hidden_size // config.num_attention_heads,
        )


class BareLayers:
    """Calls products one after another from Python on inputs that are there already, and the attention kernel once per layer.

    Args:
        products: each with its input width, in the order of a forward pass.
        shape: of the attention.
        dtype: of inputs, keys and values.
        num_keys: rows of keys and values that are seen.
    """

    def __init__(
        self,
        products: Sequence[tuple[Product, int]],
        shape: AttentionShape,
        *,
        dtype: torch.dtype,
        num_keys: int,
    ) -> None:
        self._products = products
        self._shape = shape
        self._dtype = dtype
        # Every layer has its own, as in a cache.
        buffer = torch.randn(2, shape.num_layers, 1, shape.num_keys, num_keys, shape.head_dim)
        self._keys, self._values = buffer.to(dtype).unbind(0)
        self._inputs: dict[int, dict[int, Tensor]] = {}
        self._queries: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.inference_mode()
    def multiply(self, num_rows: int, *, small: Callable[[int], object] | None = None) -> None:
        """Do all products, and after each of them `small` with its number."""
        inputs = self._inputs.get(num_rows)
        if inputs is None:
            widths = {width for _, width in self._products}
            inputs = {width: torch.randn(num_rows, width).to(self._dtype) for width in widths}
            self._inputs[num_rows] = inputs
        for number, (product, width) in enumerate(self._products):
            product(inputs[width])
            if small is not None:
                small(number)

    @torch.inference_mode()
    def attend(self, num_rows: int) -> None:
        """Attend in all layers; the rows see different keys, as those of a tree do."""
        found = self._queries.get(num_rows)
        if found is None:
            shape = self._shape
            folded = num_rows * shape.queries_per_key
            queries = torch.randn(1, shape.num_keys, folded, shape.head_dim).to(self._dtype)
            mask = torch.zeros(folded, self._keys.shape[3], dtype=self._dtype)
            found = self._queries[num_rows] = queries, mask
        for keys, values in zip(self._keys, self._values, strict=True):
            scaled_dot_product_attention(found[0], keys, values, attn_mask=found[1])

    def step(self, num_rows: int) -> None:
        """Do both."""
        self.multiply(num_rows)
        self.attend(num_rows)

    @torch.inference_mode()
    def step_between(self, num_rows: int, *, per_layer: int) -> None:
        """Do both, and in each layer so many of the cheapest operations there are, in turns with the products.

        Less than any real step: each adds one row of numbers to another in place, always by the same code.
        """
        row, other = torch.zeros(2, num_rows, self._products[0][1]).unbind(0)
        num_products = len(self._products)
        counts = [
            per_layer * self._shape.num_layers * (number + 1) // num_products
            - per_layer * self._shape.num_layers * number // num_products
            for number in range(num_products)
        ]

        def small(number: int) -> None:
            for _ in range(counts[number]):
                row.add_(other)

        self.multiply(num_rows, small=small)
        self.attend(num_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Something to be timed again and again."""

    step: Callable[[], object]
    ready: Callable[[], object] = lambda: None
    """Called before each step, untimed."""
    parts: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    """Tell how many ms parts of the last step took."""


def timed_ms(what: Mapping[str, Timed], *, rounds: int) -> dict[str, list[float]]:
    """Time each once per round, in turns, so that a busy machine slows all.

    Each is done four times in a row and the last one counts, because that is how an edge or a verifier does it: what the processor
    keeps of others' weights and code is not the matter. Processor time of this thread counts.
    """
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, timed in what.items():
            for _ in range(IN_A_ROW):
                timed.ready()
                started_s = time.thread_time()
                timed.step()
                took_s = time.thread_time() - started_s
            times.setdefault(name, []).append(1000 * took_s)
            for part, took_ms in timed.parts.items():
                times.setdefault(part, []).append(took_ms())
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, and where a tenth of all lies below and above."""
    tenths = statistics.quantiles(values, n=10)
    return {
        "median": round(statistics.median(values), 4),
        "p10": round(tenths[0], 4),
        "p90": round(tenths[-1], 4),
    }


def ratio(times: Mapping[str, Sequence[float]], whole: str, bare: str) -> dict[str, float]:
    """Return how much longer one takes than the other, round by round."""
    return spread([one / other for one, other in zip(times[whole], times[bare], strict=True)])


def machine() -> dict[str, Any]:
    """Return what ran this, and how."""
    names = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in names if line.startswith("model name")]
    return {
        "command": ["python", *sys.argv],
        "machine": {
            "processor": models[0] if models else platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
