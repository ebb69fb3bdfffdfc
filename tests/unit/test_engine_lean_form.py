"""A loaded model in its lean form: the same function, on weights that are there once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness.models import llama_config, qwen3_config, save_tiny, tiny_model
from torch import Tensor, nn

from paceline.engine import attention
from paceline.engine.engine import Engine
from paceline.engine.huge_pages import HugePages
from paceline.engine.lean import LeanModel
from paceline.engine.lean_form import lean_form
from paceline.engine.loading import load_model, resolve
from paceline.engine.rows import EngineSettings, RowGroup
from paceline.tokens import TokenId

TEXT = tuple(TokenId(5 + (7 * i) % 200) for i in range(40))
TREE = tuple(TokenId(9 + i) for i in range(20))


def logits_of(engine: Engine) -> Tensor:
    """The logits of small and of large groups, alone and together, of one piece of text and of two."""
    first = engine.open(max_length=80, max_pending=32, prompt=TEXT, tenant="a")
    found = [engine.forward([first.prefill_group(100)]).of(0)]
    second = engine.open(max_length=80, max_pending=32, prompt=(*TEXT[:30], *TREE), tenant="a")
    found.append(engine.forward([second.prefill_group(100)]).of(0))
    for rows in (1, 3, 20):
        parents = (-1, -1, *range(1, rows - 1))[:rows]
        groups = [
            RowGroup(sequence=sequence, tokens=TREE[:rows], parents=parents)
            for sequence in (first, second)
        ]
        for some in ([groups[0]], [groups[1]], groups):
            logits = engine.forward(some)
            for index, group in enumerate(some):
                found.append(logits.of(index))
                engine.rollback(group.sequence, group.sequence.length)
    for sequence in (first, second):
        engine.close(sequence)
    return torch.cat(found)


@pytest.mark.parametrize("tied", [True, False])
def test_it_computes_what_the_model_did(tied: bool, tmp_path: Path) -> None:
    config = llama_config(tie_word_embeddings=tied)
    save_tiny(tmp_path, config=config)
    engine = load_model(resolve(str(tmp_path)), dtype="float32")
    plain = Engine(tiny_model(config, implementation=attention.NAME), identity=engine.identity)
    assert isinstance(engine._model, LeanModel)
    expected = logits_of(plain)
    assert float(expected.std()) > 0.3
    assert torch.allclose(logits_of(engine), expected, atol=1e-4)
    twin = engine.twin(EngineSettings(sharing="none"))
    assert torch.allclose(logits_of(twin), expected, atol=1e-4)
    weights = [id(weight) for weight in engine._model.parameters()]
    assert [id(weight) for weight in twin._model.parameters()] == weights


def test_weights_are_there_once() -> None:
    model = tiny_model(llama_config(tie_word_embeddings=True), implementation=attention.NAME)
    count = sum(weight.numel() for weight in model.parameters())
    lean = lean_form(model)
    assert lean is not None
    left = sum(weight.numel() for weight in model.base_model.layers.parameters())
    norms = sum(weight.numel() for weight in model.parameters() if weight.dim() == 1)
    assert left <= norms
    assert sum(weight.numel() for weight in lean.parameters()) == count - norms
    assert lean.get_output_embeddings().weight is lean.get_input_embeddings().weight


def test_what_is_not_plain_stays_as_it_is() -> None:
    assert lean_form(tiny_model(qwen3_config(), implementation=attention.NAME)) is None
    model = tiny_model(llama_config(), implementation=attention.NAME)
    down = model.base_model.layers[0].mlp.down_proj
    model.base_model.layers[0].mlp.down_proj = nn.Linear(down.in_features, down.out_features)
    assert lean_form(model) is None
    assert all(weight.numel() for weight in model.parameters())


def test_tensors_on_huge_pages_are_what_they_were() -> None:
    pages = HugePages()
    tensors = [
        torch.randn(3, 5),
        torch.arange(7, dtype=torch.uint8),
        torch.randn(9, 2).T.bfloat16(),
    ]
    placed = [pages.place(values) for values in tensors]
    del pages
    for values, found in zip(tensors, placed, strict=True):
        assert torch.equal(found, values)
        assert found.is_contiguous()
        assert found.data_ptr() % 16 == 0
