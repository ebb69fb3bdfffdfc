"""One forward pass, as the attention of every layer sees it.

Shape suffixes: R = rows of the step; H = query heads; G = key heads; Q = H / G; D = head dim; K = keys.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from paceline.clock import MonotonicClock
from paceline.engine.attention import AttentionBackend, AttentionCall, SdpaBackend
from paceline.engine.plan import GroupPlan


class Step:
    """Receives the attention calls of one forward pass.

    Args:
        plans: of its groups.
        backend: attends.
        clock: tells how long that takes.
    """

    def __init__(
        self, plans: tuple[GroupPlan, ...], *, backend: AttentionBackend, clock: MonotonicClock
    ) -> None:
        self._plans = plans
        self._backend = backend
        self._clock = clock
        self._targets = [
            (run.start, run.start + run.num_rows, run.targets())
            for plan in plans
            for run in plan.runs
        ]
        self._pieces: _Pieces | None = None
        self.attention_ns = 0

    @property
    def is_folded(self) -> bool:
        """`attend_folded` can be used: one small group, whose text lies in one piece."""
        plan = self._plans[0]
        return (
            len(self._plans) == len(plan.runs) == len(plan.reads) == 1
            and plan.folds
            and isinstance(self._backend, SdpaBackend)
        )

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> Tensor:
        """Write the rows' keys and values of one layer, then attend."""
        started_ns = self._clock.now_ns()
        new = torch.stack((key[0], value[0]))
        for start, stop, targets in self._targets:
            targets[call.layer].copy_(new[:, :, start:stop])
        out = self._backend.attend(query[0], self._plans, call)
        self.attention_ns += self._clock.now_ns() - started_ns
        return out[None]

    def attend_folded(
        self, query_GND: Tensor, new_2GRD: Tensor, *, layer: int, scale: float
    ) -> Tensor:
        """Do the same for a model that brings its rows as the kernel takes them: no tensor is copied on the way.

        Only if `is_folded`, and for layers that see the whole text and do not cap scores.

        Args:
            query_GND: [1, G, R * Q, D], the Q rows of one token next to each other.
            new_2GRD: the rows' keys and values; of any type.
            layer: its number.
            scale: of the scores.

        Returns:
            Attention output [1, G, R * Q, D].
        """
        started_ns = self._clock.now_ns()
        if self._pieces is None:
            self._pieces = _Pieces(self._plans[0])
        pieces = self._pieces
        self._targets[0][2][layer].copy_(new_2GRD)
        out = scaled_dot_product_attention(
            query_GND,
            pieces.keys[layer],
            pieces.values[layer],
            attn_mask=pieces.mask,
            scale=scale,
        )
        self.attention_ns += self._clock.now_ns() - started_ns
        return out


class _Pieces:
    """What the only group of a step sees: keys and values [1, G, K, D] of each layer, and the mask [R * Q, K]."""

    __slots__ = ("keys", "mask", "values")

    def __init__(self, plan: GroupPlan) -> None:
        storage, num_keys = plan.reads[0]
        num_layers, _, num_heads, _, head_dim = storage.shape
        seen = storage.narrow(3, 0, num_keys)
        pieces = seen.view(2 * num_layers, 1, num_heads, num_keys, head_dim).unbind(0)
        self.keys, self.values = pieces[::2], pieces[1::2]
        self.mask: Tensor | None = None
        if not plan.new_visible.all():
            num_rows, num_new = plan.new_visible.shape
            hidden_RK = np.zeros((num_rows, num_keys), dtype=np.float32)
            hidden_RK[:, num_keys - num_new :][~plan.new_visible] = -np.inf
            hidden_NK = hidden_RK.repeat(plan.queries_per_key, axis=0)
            self.mask = torch.from_numpy(hidden_NK).to(storage.device, storage.dtype)
