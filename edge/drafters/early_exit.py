"""Early exit: the target's first layers with its own norm and output matrix, as if the others would change nothing.

No training, and half of what the copy needs is the target's own: an edge that holds the first layers can draft with them
(self-speculation). How good it is depends on the model; those that were trained for it (LayerSkip) are good early.

Sources: Hooper et al., "SPEED", arXiv 2310.12072; Elhoushi et al., "LayerSkip", arXiv 2404.16710.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from edge.drafters.target_copy import Change
from paceline.errors import ConfigError

PREFIX = "early-exit:"
_PATTERN = re.compile(r"early-exit:([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExit:
    """After which layer the target's text is guessed."""

    num_layers: int

    @classmethod
    def parse(cls, spec: str) -> EarlyExit:
        """Return what "early-exit:20" means: the first 20 layers.

        Raises:
            ConfigError: it is not such a text.
        """
        match = _PATTERN.fullmatch(spec)
        if match is None:
            raise ConfigError(
                f"draft: got {spec!r}, expected early-exit:LAYERS, early-exit:20 for example"
            )
        return cls(num_layers=int(match[1]))

    def change(self) -> Change:
        """Return what makes a target such a draft."""
        return Change(name=f"{PREFIX}{self.num_layers}", apply=self._apply)

    def _apply(self, model: Any) -> None:
        config = model.config.get_text_config()
        total = config.num_hidden_layers
        if self.num_layers >= total:
            raise ConfigError(
                f"draft: got {PREFIX}{self.num_layers}, but the target has {total} layers; expected fewer"
            )
        base = model.base_model
        lists = [
            (name, child)
            for name, child in base.named_children()
            if isinstance(child, nn.ModuleList) and len(child) == total
        ]
        if len(lists) != 1:
            raise ConfigError(
                f"draft: {PREFIX}{self.num_layers}: {type(model).__name__} has {len(lists)} lists of {total} layers, "
                "expected one; this architecture cannot be cut"
            )
        name, layers = lists[0]
        setattr(base, name, nn.ModuleList(list(layers)[: self.num_layers]))
        config.num_hidden_layers = self.num_layers
        if getattr(config, "layer_types", None):
            config.layer_types = list(config.layer_types)[: self.num_layers]
