"""A tiny Llama with random weights and a tokenizer of bytes, written without PyTorch: a first test needs no download.

It says printable ASCII only, never ends a text by itself, and soon repeats itself, so that prompt lookup has something to
find. The same files for the same seed.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN, INNER, LAYERS, HEADS, HEAD_SIZE = 32, 48, 2, 4, 8
CONTEXT_LENGTH = 2048
FIRST_PRINTABLE, LAST_PRINTABLE = "!", "~"
"""In an alphabet of bytes these stand for themselves."""


def write_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Write it as `--target` reads it; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    (folder / "config.json").write_text(json.dumps(_config(len(pieces))), encoding="utf-8")
    save_file(_weights(pieces, seed=seed), folder / "model.safetensors", metadata={"format": "pt"})
    _tokenizer(pieces).save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def _config(vocabulary_size: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary_size,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD_SIZE,
        "max_position_embeddings": CONTEXT_LENGTH,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": SPECIAL_TOKENS.index("<|endoftext|>"),
        "eos_token_id": SPECIAL_TOKENS.index("<|im_end|>"),
        "pad_token_id": SPECIAL_TOKENS.index("<|pad|>"),
        "dtype": "float32",
    }


def _weights(pieces: list[str], *, seed: int) -> dict[str, np.ndarray]:
    dice = np.random.default_rng(seed)

    def drawn(*shape: int, width: float = 0.1) -> np.ndarray:
        return (dice.standard_normal(shape) * width).astype(np.float32)

    # Wide embeddings and narrow layers: mostly the last token decides about the next, and a text comes back to itself.
    weights = {"model.embed_tokens.weight": drawn(len(pieces), HIDDEN, width=1.0)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{name}.self_attn.{part}.weight"] = drawn(HIDDEN, HIDDEN)
        weights[f"{name}.mlp.gate_proj.weight"] = drawn(INNER, HIDDEN)
        weights[f"{name}.mlp.up_proj.weight"] = drawn(INNER, HIDDEN)
        weights[f"{name}.mlp.down_proj.weight"] = drawn(HIDDEN, INNER)
        for part in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{name}.{part}.weight"] = np.ones(HIDDEN, dtype=np.float32)
    weights["model.norm.weight"] = np.ones(HIDDEN, dtype=np.float32)
    # A score of 0 for what is not printable, the end of the text too: among 94 others one is always above it.
    is_printable = [len(one) == 1 and FIRST_PRINTABLE <= one <= LAST_PRINTABLE for one in pieces]
    head = drawn(len(pieces), HIDDEN, width=1.0)
    weights["lm_head.weight"] = head * np.asarray(is_printable, dtype=np.float32)[:, None]
    return weights


def _tokenizer(pieces: list[str]) -> Tokenizer:
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in SPECIAL_TOKENS])
    return tokenizer
