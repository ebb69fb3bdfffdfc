"""Keys and values of one generation in llama.cpp: cells that belong to one or more sequences, and what is computed over them.

A row sees the cells of its own sequence that stand before it. Sequences share cells, so branches of a tree share what is above
them (`llama_memory_seq_cp` marks cells, it copies nothing).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.drafters.llama.gguf_model import GgufModel
from edge.drafters.llama.library import library
from edge.drafters.llama.noise import Floats
from paceline.errors import ModelError
from paceline.tokens import TokenId

MOST_ROWS = 512
"""Rows of one call."""

ROWS_AT_ONCE = 128
"""Rows that llama.cpp computes together; its buffers grow with them."""

END = -1
"""Stands for the end of a sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A token to be computed."""

    token: TokenId
    position: int
    sequence: int
    wants_logits: bool = False


class Cells:
    """Made for one text at a time. Used from the drafting thread only.

    Args:
        model: whose keys and values.
        num_cells: tokens that fit, guesses included.
        num_sequences: 1 for a chain; of a tree one for the text and one for each branch.
        threads: that compute; None: half as many as this machine has.

    Raises:
        ModelError: no memory for so many.
    """

    def __init__(
        self, model: GgufModel, *, num_cells: int, num_sequences: int = 1, threads: int | None
    ) -> None:
        self._api = library()
        self._vocabulary_size = model.vocabulary_size
        threads = threads or max(1, (os.cpu_count() or 1) // 2)
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx = num_cells
        parameters.n_batch = MOST_ROWS
        parameters.n_ubatch = ROWS_AT_ONCE
        parameters.n_seq_max = parameters.n_outputs_max = num_sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = True
        # Sliding windows keep all their cells: a text that is taken back needs those that have slid out.
        parameters.swa_full = True
        self._context: Any = self._api.llama_init_from_model(model.handle, parameters)
        if not self._context:
            raise ModelError(
                f"draft: llama.cpp has no memory for {num_cells} tokens of {model.path}; ask for shorter answers, or take a "
                "smaller draft"
            )
        self._memory = self._api.llama_get_memory(self._context)
        self._batch = self._api.llama_batch_init(MOST_ROWS, 0, 1)
        self.num_cells = num_cells

    def compute(self, rows: Sequence[Row]) -> None:
        """Compute rows and keep their keys and values.

        Args:
            rows: at most MOST_ROWS; those of a sequence in order, from its end on.

        Raises:
            ModelError: llama.cpp failed; what the cells hold is not known any more.
        """
        assert 0 < len(rows) <= MOST_ROWS
        batch = self._batch
        batch.n_tokens = len(rows)
        for index, row in enumerate(rows):
            batch.token[index] = row.token
            batch.pos[index] = row.position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = row.sequence
            batch.logits[index] = row.wants_logits
        status = self._api.llama_decode(self._context, batch)
        if status != 0:
            reason = "no cell is free" if status == 1 else f"status {status}; the log says why"
            raise ModelError(f"drafting: llama.cpp failed to compute {len(rows)} rows: {reason}")

    def logits(self, index: int) -> Floats:
        """Return the logits after a row of the last `compute` that wanted them, [V]; valid until the next one."""
        pointer = self._api.llama_get_logits_ith(self._context, index)
        assert pointer, "the row wanted logits"
        return np.ctypeslib.as_array(pointer, shape=(self._vocabulary_size,))

    def share(self, source: int, target: int, *, first: int = 0, end: int) -> None:
        """Make the cells of a sequence at positions from `first` to before `end` another one's as well."""
        self._api.llama_memory_seq_cp(self._memory, source, target, first, end)

    def remove(self, sequence: int, *, first: int = 0) -> bool:
        """Take the cells at positions from `first` on from a sequence; return whether that can be done."""
        return bool(self._api.llama_memory_seq_rm(self._memory, sequence, first, END))

    def clear(self) -> None:
        """Forget everything."""
        self._api.llama_memory_clear(self._memory, False)  # noqa: FBT003 - a C function; the data need not be zeroed

    def close(self) -> None:
        """Free the memory."""
        if self._context:
            self._api.llama_batch_free(self._batch)
            self._api.llama_free(self._context)
            self._context = None
