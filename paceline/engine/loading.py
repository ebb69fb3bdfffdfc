"""From a source to a model that runs. What a name means is decided in `paceline.engine.source`.

Weights come from safetensors or GGUF only, never from pickles, and no code that comes with a model is run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from paceline.engine import attention
from paceline.engine.architecture import check_architecture, context_length
from paceline.engine.engine import Engine
from paceline.engine.fingerprint import weights_fingerprint
from paceline.engine.gguf_header import quantisation_of
from paceline.engine.gguf_once import reading_once
from paceline.engine.lean_form import lean_form
from paceline.engine.rows import EngineSettings
from paceline.engine.self_check import check_logits, plain_logits
from paceline.engine.source import (
    DType,
    ModelSource,
    Progress,
    load_tokenizer,
    resolve,
    translated,
)
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError, ModelError
from paceline.messages import ModelIdentity

__all__ = [
    "DType",
    "ModelSource",
    "Progress",
    "load_model",
    "load_tokenizer",
    "load_weights",
    "resolve",
]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(
    source: ModelSource,
    *,
    dtype: DType,
    device: Literal["cpu", "cuda"] = "cpu",
    settings: EngineSettings | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Progress | None = None,
) -> Engine:
    """Load a model and wrap it in an engine.

    Args:
        source: from `resolve`.
        dtype: arithmetic of the forward pass.
        device: where it runs.
        settings: memory and sharing.
        tokenizer: the model's, if it is loaded already; saves loading it for its fingerprint.
        progress: told each stage.

    Raises:
        ConfigError: no such device or type here.
        ModelError: not there, not safetensors or GGUF, or an architecture that the engine cannot run.
    """
    tell = progress or (lambda _: None)
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype: got {dtype!r}, expected one of: {', '.join(_DTYPES)}")
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device: got {device!r}, expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: got cuda, but PyTorch sees no CUDA device; use cpu")
    with reading_once():
        tell(f"{source.name}: reading its configuration")
        with translated(source, "configuration"):
            config = AutoConfig.from_pretrained(**source.arguments)
        check_architecture(config, name=source.name)
        quantisation = _quantisation(source, config)
        tell(f"{source.name}: loading its tokenizer")
        tokenizer = tokenizer or load_tokenizer(source)
        tell(f"{source.name}: loading weights as {dtype}")
        model = _load_weights(source, config, dtype=dtype, device=device)
    tell(f"{source.name}: fingerprinting weights")
    identity = ModelIdentity(
        name=source.name,
        weights_fingerprint=weights_fingerprint(model, name=source.name),
        dtype=dtype,
        quantisation=quantisation,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocabulary_size=min(tokenizer.vocabulary_size, model.get_input_embeddings().num_embeddings),
        context_length=context_length(config),
    )
    with translated(source, "attention"):
        expected = plain_logits(model, vocabulary_size=identity.vocabulary_size)
        engine = Engine(lean_form(model) or model, identity=identity, settings=settings)
        check_logits(engine, expected, name=f"{source.name} ({config.model_type})")
    return engine


def load_weights(
    source: ModelSource, *, dtype: DType, device: Literal["cpu", "cuda"] = "cpu"
) -> Any:
    """Load a transformers model with our attention, in evaluation mode and without an engine around it.

    For what needs the model itself: writing text with many sequences in step, initialising a student from its layers.

    Raises:
        ModelError: not there, not safetensors or GGUF, or an architecture that our attention cannot serve.
    """
    with reading_once():
        with translated(source, "configuration"):
            config = AutoConfig.from_pretrained(**source.arguments)
        check_architecture(config, name=source.name)
        return _load_weights(source, config, dtype=dtype, device=device)


def _load_weights(source: ModelSource, config: Any, *, dtype: DType, device: str) -> Any:
    """A transformers model in evaluation mode, with our attention."""
    attention.register()
    with translated(source, "weights"), _quiet():
        model = AutoModelForCausalLM.from_pretrained(
            **source.arguments,
            config=config,
            dtype=_DTYPES[dtype],
            attn_implementation=attention.NAME,
            **_format_arguments(source),
        )
    model.requires_grad_(requires_grad=False)
    return model.eval().to(device)


def _format_arguments(source: ModelSource) -> dict[str, Any]:
    """Keywords that keep transformers from reading pickles and from fetching kernels."""
    if source.gguf_file is None:
        return {"use_safetensors": True}
    # Packed weights need kernels that transformers would fetch from the hub: code from elsewhere. Versions without
    # this class always unpack.
    settings = getattr(transformers, "GgufConfig", None)
    return {} if settings is None else {"quantization_config": settings(dequantize=True)}


def _quantisation(source: ModelSource, config: Any) -> str:
    """How stored weights are quantised; empty if they are not."""
    if source.gguf_file is not None:
        path = Path(source.location) / source.gguf_file
        try:
            return quantisation_of(path)
        except (OSError, ValueError, struct.error) as error:
            raise ModelError(f"{source.name}: {path} is no GGUF file: {error}") from error
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return ""
    get = settings.get if isinstance(settings, dict) else vars(settings).get
    return str(get("quant_method", "unknown"))


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers' own."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()
