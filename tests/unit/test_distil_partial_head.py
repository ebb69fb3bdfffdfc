"""An engine that computes the logits of some tokens only."""

from __future__ import annotations

import pytest
import torch
from harness.models import llama_config, tiny_llama, tiny_model

from paceline.engine.engine import Engine
from paceline.engine.rows import RowGroup
from paceline.errors import ModelError
from paceline.tokens import TokenId

TOKENS = [TokenId(token) for token in (5, 6, 7)]


def logits_of(engine: Engine) -> torch.Tensor:
    sequence = engine.open(max_length=8, max_pending=4)
    return engine.forward([RowGroup(sequence=sequence, tokens=TOKENS)]).of(0)


def test_known_tokens_keep_their_logits_and_others_are_never_drawn() -> None:
    whole = logits_of(tiny_llama())
    engine = tiny_llama()
    ids = torch.tensor([200, 3, 77])
    rows = tiny_model(llama_config()).get_output_embeddings().weight.detach()[ids]
    engine.limit_output(ids, rows)
    got = logits_of(engine)
    assert got.shape == whole.shape
    assert torch.allclose(got[:, ids], whole[:, ids], atol=1e-5)
    others = torch.ones(whole.shape[1], dtype=torch.bool)
    others[ids] = False
    assert bool(torch.isneginf(got[:, others]).all())
    assert engine.step_split.head_ns > 0


@pytest.mark.parametrize(
    ("ids", "shape", "message"),
    [
        ([1, 1], (2, 32), "ids: expected different tokens below 260"),
        ([1, 260], (2, 32), "ids: expected different tokens below 260"),
        ([1, 2], (2, 31), r"rows: got shape \(2, 31\), expected \(2, 32\)"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    ids: list[int], shape: tuple[int, int], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        tiny_llama().limit_output(torch.tensor(ids), torch.zeros(shape))
