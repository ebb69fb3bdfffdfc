"""A lean model computes what the transformers model does whose weights it has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from harness.models import CONFIGS, llama_config, tiny_engine, tiny_model
from torch import nn

from paceline.engine import attention
from paceline.engine.engine import Engine
from paceline.engine.lean import LeanModel, is_lean
from paceline.engine.rows import RowGroup
from paceline.tokens import TokenId


def lean_engine(**changes: object) -> tuple[Engine, Engine]:
    """An engine on a transformers model, and one on its lean form."""
    config = llama_config(**changes)
    plain = tiny_engine(config)
    model = tiny_model(config, implementation=attention.NAME)
    weights = dict(model.named_parameters())

    def make(names: Sequence[str], order: torch.Tensor | None) -> nn.Module:
        joined = torch.cat([weights[name] for name in names]).detach()
        joined = joined if order is None else joined[order]
        product = nn.Linear(joined.shape[1], joined.shape[0], bias=False)
        product.weight = nn.Parameter(joined, requires_grad=False)
        return product

    assert is_lean(config)
    return plain, Engine(LeanModel(model, make=make), identity=plain.identity)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4, "tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}},
        {"rms_norm_eps": 1e-2},
    ],
)
def test_a_lean_model_computes_the_same(changes: dict[str, object]) -> None:
    text = [TokenId(5 + (7 * i) % 200) for i in range(40)]
    results = []
    for engine in lean_engine(**changes):
        sequence = engine.open(max_length=64, max_pending=8)
        engine.forward([RowGroup(sequence=sequence, tokens=text, logits="none", commit=True)])
        tree = RowGroup(
            sequence=sequence, tokens=[TokenId(9), TokenId(10), TokenId(11)], parents=(-1, -1, 1)
        )
        results.append(engine.forward([tree]).of(0))
    assert torch.allclose(results[0], results[1], atol=1e-4)
    assert float(results[0].std()) > 0.3


@pytest.mark.parametrize("kind", sorted(set(CONFIGS) - {"llama"}))
def test_other_architectures_are_left_to_transformers(kind: str) -> None:
    assert not is_lean(CONFIGS[kind]())


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}},
    ],
)
def test_models_with_operations_of_their_own_are_left_too(changes: dict[str, object]) -> None:
    assert not is_lean(llama_config(**changes))
