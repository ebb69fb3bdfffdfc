"""Tiny Llama models as GGUF files in float32, so that llama.cpp computes what the engine does but for rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from harness.models import llama_config, tiny_model, tiny_tokenizer
from transformers import PretrainedConfig

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def save_tiny_gguf(
    path: Path,
    *,
    config: PretrainedConfig | None = None,
    seed: int = 0,
    renamed: dict[int, str] | None = None,
) -> Path:
    """Write the Llama that `tiny_model` makes of the same configuration and seed; returns the path.

    Args:
        path: of the file.
        config: a Llama's.
        seed: of its weights.
        renamed: what the file calls some tokens instead of what the tiny tokenizer calls them.
    """
    config = config or llama_config()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_vocabulary(writer, renamed or {})
    _add_weights(writer, tiny_model(config, seed=seed).state_dict(), config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: Any, renamed: dict[int, str]) -> None:
    data = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    special = {token["id"] for token in data["added_tokens"]}
    named = sorted((index, piece) for piece, index in data["model"]["vocab"].items())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([renamed.get(index, piece) for index, piece in named])
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[index in special] for index, _ in named])
    writer.add_token_merges(["a b"])  # llama.cpp wants one; nothing is cut into tokens with it
    writer.add_eos_token_id(2)


def _add_weights(writer: Any, state: dict[str, torch.Tensor], config: PretrainedConfig) -> None:
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    writer.add_tensor("output.weight", state["lm_head.weight"].numpy())
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for name, ours in _LAYER.items():
            weight = state[f"model.layers.{layer}.{ours}.weight"]
            if name in heads:
                weight = _interleaved(weight, heads[name])
            writer.add_tensor(f"blk.{layer}.{name}.weight", weight.contiguous().numpy())


def _interleaved(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Put rows that are turned together by position next to each other, as the format has them."""
    halves = weight.view(num_heads, 2, -1, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)
