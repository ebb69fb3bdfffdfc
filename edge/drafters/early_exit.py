"""Early exit: the target's first layers with its own norm and output matrix, as if the others would change nothing.

No training: all weights are the target's own (self-speculation). An edge reads the target's whole file once and drops the
later layers. How good it is depends on the model; those that were trained for it (LayerSkip) are good early.

Sources: Hooper et al., "SPEED", arXiv 2310.12072; Elhoushi et al., "LayerSkip", arXiv 2404.16710.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from edge.draft_spec import EARLY_EXIT, EarlyExit
from edge.drafters.target_copy import Change
from paceline.errors import ConfigError


def early_exit(spec: EarlyExit) -> Change:
    """Return what makes a target such a draft."""
    return Change(name=f"{EARLY_EXIT}{spec.num_layers}", apply=partial(_cut, spec))


def _cut(spec: EarlyExit, model: Any) -> None:
    config = model.config.get_text_config()
    total = config.num_hidden_layers
    if spec.num_layers >= total:
        raise ConfigError(
            f"draft: got {EARLY_EXIT}{spec.num_layers}, but the target has {total} layers; expected fewer"
        )
    base = model.base_model
    lists = [
        (name, child)
        for name, child in base.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == total
    ]
    if len(lists) != 1:
        raise ConfigError(
            f"draft: {EARLY_EXIT}{spec.num_layers}: {type(model).__name__} has {len(lists)} lists of {total} layers, "
            "expected one; this architecture cannot be cut"
        )
    name, layers = lists[0]
    setattr(base, name, nn.ModuleList(list(layers)[: spec.num_layers]))
    config.num_hidden_layers = spec.num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types)[: spec.num_layers]
