"""Which architectures the engine can run, decided from the configuration before any weight is read."""

from __future__ import annotations

from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from paceline.errors import ModelError

_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})

_LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})
"""Rotary embeddings that change for a whole batch once one text in it is long."""


def check_architecture(config: Any, *, name: str) -> None:
    """Raise unless models of this configuration can run.

    Raises:
        ModelError: recurrent state, which cannot be rolled back; not a decoder; attention of its own kind.
    """
    kind = f"{name} ({config.model_type})"
    text = config.get_text_config()
    if config.is_encoder_decoder:
        raise ModelError(f"{kind}: it has an encoder; only decoder-only models are supported")
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model is None:
        raise ModelError(f"{kind}: transformers knows no causal language model of this type")
    foreign = sorted(set(getattr(text, "layer_types", None) or ()) - _LAYER_TYPES)
    if getattr(model, "_is_stateful", False) or foreign:
        layers = f" (layers: {', '.join(foreign)})" if foreign else ""
        raise ModelError(
            f"{kind}: its layers keep a state that cannot be rolled back, or attention that is not supported{layers}; "
            "use a model with full or sliding-window attention in every layer"
        )
    if not getattr(model, "_supports_attention_backend", False):
        raise ModelError(
            f"{kind}: it does not use transformers' common attention interface; use another architecture"
        )


def context_length(config: Any) -> int:
    """Most tokens of a text for which rotary embeddings do not depend on who shares the batch."""
    text = config.get_text_config()
    length = int(text.max_position_embeddings)
    rope = getattr(text, "rope_parameters", None) or {}
    # Either the parameters themselves or one set of them per layer type.
    for parameters in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if parameters.get("rope_type") in _LENGTH_DEPENDENT_ROPE:
            original = parameters.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", None
            )
            length = min(length, int(original or length))
    return length
