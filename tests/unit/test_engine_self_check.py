"""An architecture whose text would be wrong without any error is refused by name when it is loaded."""

from pathlib import Path
from typing import Any

import pytest
from harness.models import CONFIGS, save_tiny, tiny_engine
from transformers import BertConfig, DiffLlamaConfig, DogeConfig, HrmTextConfig, PretrainedConfig

from paceline.engine import attention
from paceline.engine.loading import load_model, resolve
from paceline.engine.rows import EngineSettings
from paceline.engine.self_check import check_arithmetic
from paceline.errors import ModelError

SMALL: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 3,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_the_engine_can_run_proves_it_and_leaves_no_trace(name: str) -> None:
    engine = tiny_engine(CONFIGS[name](), settings=EngineSettings(sharing="all"))
    check_arithmetic(engine, engine._model, name="thing")
    assert engine._model.config._attn_implementation == attention.NAME
    memory = engine.memory
    assert (memory.reserved, memory.shared, memory.used) == (0, 0, 0)
    assert engine.work.rows_written == engine.step_split.num_steps == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        # Sees tokens to the right.
        (BertConfig(**SMALL), r"\(bert\): .* differ by .* of their spread"),
        # Two attentions in a layer, with the same keys and other values.
        (DiffLlamaConfig(**SMALL), r"layer 0 attends more than once per token"),
        # The same layers several times over.
        (HrmTextConfig(**SMALL), r"layer 0 attends more than once per token"),
        # A mask that depends on the values.
        (DogeConfig(**SMALL), r"DogeAttention makes a mask of its own"),
    ],
)
def test_what_it_cannot_is_refused(config: PretrainedConfig, message: str, tmp_path: Path) -> None:
    source = resolve(str(save_tiny(tmp_path, config=config)))
    with pytest.raises(ModelError, match=message):
        load_model(source, dtype="float32")
