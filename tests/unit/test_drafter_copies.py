"""Drafts made of the target's own weights: low-bit copies and its first layers."""

from pathlib import Path

import pytest
import torch
from harness.models import (
    CONFIGS,
    llama_config,
    save_tiny,
    tiny_model,
)

from edge.draft_spec import EarlyExit, LowBit, parse
from edge.drafters import ModelDrafter, load_drafter
from edge.drafters.early_exit import early_exit
from edge.drafters.low_bit import Codes, PackedLinear, can_pack, joined, low_bit_copy, rounded
from edge.drafters.model import SETTINGS
from paceline.engine.engine import Engine
from paceline.engine.lean import LeanModel
from paceline.engine.loading import load_tokenizer, load_weights, resolve
from paceline.engine.rows import RowGroup
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

GREEDY = SamplingSettings(temperature=0.0)
PROMPT = tuple(TokenId(4 + (7 * i) % 250) for i in range(20))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Of a tiny target whose matrices fit the packed kernel."""
    torch.set_num_threads(1)
    config = llama_config(hidden_size=64, intermediate_size=96, num_hidden_layers=3)
    folder = save_tiny(tmp_path_factory.mktemp("target"), config=config)
    return load_tokenizer(resolve(str(folder)))


def _guesses(drafter: object, count: int = 24) -> tuple[TokenId, ...]:
    assert isinstance(drafter, ModelDrafter)
    draft = drafter.open(prompt_length=len(PROMPT), max_tokens=count, sampling=GREEDY)
    found = draft.extend(PROMPT, count)
    draft.close()
    return found


def test_rounding_keeps_the_ends_of_each_group() -> None:
    weights = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    found = rounded(weights, bits=2, group=4)
    for row, original in zip(found, weights, strict=True):
        for piece, before in zip(row.split(4), original.split(4), strict=True):
            assert len(piece.unique()) <= 4
            assert piece.min() == pytest.approx(float(before.min()), abs=1e-6)
            assert piece.max() == pytest.approx(float(before.max()), abs=1e-6)
            step = (before.max() - before.min()) / 3
            assert float((piece - before).abs().max()) <= float(step) / 2 + 1e-6


def test_packed_weights_multiply_as_rounded_ones_do() -> None:
    torch.manual_seed(0)
    for rows, width, group, has_bias in ((32, 64, 32, False), (16, 128, 64, True)):
        whole = torch.nn.Linear(width, rows, bias=has_bias)
        packed = PackedLinear(Codes.of(whole.weight, group=group), bias=whole.bias)
        hidden = torch.randn(2, 3, width)
        with torch.inference_mode():
            whole.weight.copy_(rounded(whole.weight, bits=4, group=group))
            expected, found = whole(hidden), packed(hidden)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        # bfloat16 has 8 bits: errors of a sum of 64 or 128 products stay far below those of rounding to 4 bits.
        assert float((found - expected).abs().max() / expected.abs().max()) < 0.02


def test_what_the_kernel_cannot_do_is_not_packed() -> None:
    four = LowBit(bits=4, group=64)
    fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    assert can_pack(four, torch.empty(32, 128)) == fast
    assert not can_pack(four, torch.empty(32, 96))
    assert not can_pack(four, torch.empty(24, 128))
    assert not can_pack(LowBit(bits=5, group=64), torch.empty(32, 128))
    assert not can_pack(LowBit(bits=4, group=16), torch.empty(32, 128))


def test_an_edge_may_hold_the_first_layers_only(tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = resolve(tokenizer.name)
    model = load_weights(source, dtype="float32")
    early_exit(EarlyExit(num_layers=2)).apply(model)
    model.save_pretrained(tmp_path)
    for file in Path(tokenizer.name).glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = Path(tokenizer.name) / "model.safetensors"
    assert (tmp_path / "model.safetensors").stat().st_size < 0.9 * whole.stat().st_size
    held = load_drafter(str(tmp_path), tokenizer=tokenizer)
    assert _guesses(held) == _guesses(load_drafter("early-exit:2", tokenizer=tokenizer))


def test_many_bits_guess_as_the_target_and_few_do_not(tokenizer: Tokenizer) -> None:
    own = _guesses(load_drafter(tokenizer.name, tokenizer=tokenizer))
    agreed = {}
    for spec in ("low-bit:8/16", "low-bit:4/32", "low-bit:1/64"):
        drafter = load_drafter(spec, tokenizer=tokenizer)
        assert drafter.name == spec
        pairs = zip(own, _guesses(drafter), strict=True)
        agreed[spec] = next((i for i, (a, b) in enumerate(pairs) if a != b), len(own))
    assert agreed["low-bit:8/16"] > 8
    assert agreed["low-bit:1/64"] < agreed["low-bit:8/16"]


def test_the_copy_says_how_it_was_rounded(tokenizer: Tokenizer) -> None:
    drafter = load_drafter("low-bit:4/32", tokenizer=tokenizer, dtype="bfloat16")
    assert isinstance(drafter, ModelDrafter)
    identity = drafter.engine.identity
    assert identity.quantisation == "4 bits, groups of 32"
    assert identity.tokenizer_fingerprint == tokenizer.fingerprint
    assert _guesses(drafter, 4)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_the_first_layers_are_the_targets_own(kind: str) -> None:
    extra = {"n_layer": 3} if kind == "gpt2" else {"num_hidden_layers": 3}
    whole = tiny_model(CONFIGS[kind](**extra), seed=1)
    cut = tiny_model(CONFIGS[kind](**extra), seed=1)
    early_exit(EarlyExit(num_layers=2)).apply(cut)
    # Hidden states after the second layer, through the target's own norm and output matrix.
    states: list[torch.Tensor] = []
    layers = whole.transformer.h if kind == "gpt2" else whole.base_model.layers
    layers[1].register_forward_hook(
        lambda _module, _inputs, out: states.append(out[0] if isinstance(out, tuple) else out)
    )
    tokens = torch.tensor([PROMPT[:4]])
    norm = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(kind, "norm")
    with torch.inference_mode():
        whole(tokens, use_cache=False)
        hidden = getattr(whole.base_model, norm)(states[0])
        expected = whole.get_output_embeddings()(hidden)
        if (cap := getattr(whole.config, "final_logit_softcapping", None)) is not None:
            expected = torch.tanh(expected / cap) * cap
        found = cut(tokens, use_cache=False).logits
    assert torch.allclose(found, expected, atol=1e-4)


def test_early_exit_drafts_and_all_layers_would_be_the_target(tokenizer: Tokenizer) -> None:
    drafter = load_drafter("early-exit:2", tokenizer=tokenizer)
    assert isinstance(drafter, ModelDrafter)
    assert drafter.name == "early-exit:2"
    assert len(_guesses(drafter, 5)) == 5
    with pytest.raises(ConfigError, match="got early-exit:3, but the target has 3 layers"):
        load_drafter("early-exit:3", tokenizer=tokenizer)


def test_guesses_of_a_copy_with_all_its_bits_are_the_targets_at_temperature_one(
    tokenizer: Tokenizer,
) -> None:
    # Coupled: the same weights, nearly, and the same noise draw the same tokens.
    noisy = SamplingSettings(temperature=1.0, seed=3)
    drafts = [
        load_drafter(spec, tokenizer=tokenizer).open(
            prompt_length=len(PROMPT), max_tokens=64, sampling=noisy
        )
        for spec in (tokenizer.name, "low-bit:8/16")
    ]
    own = drafts[0].extend(PROMPT, 64)
    same = sum(
        drafts[1].extend((*PROMPT, *own[:index]), 1) == own[index : index + 1]
        for index in range(len(own))
    )
    # Two independent draws of this model agree in about one of five.
    assert same / len(own) > 0.8


def test_joined_codes_are_the_rows_of_both_in_the_order_given() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(rows, 64, generator=generator) for rows in (32, 16))
    order = torch.randperm(48, generator=generator)
    parts = [Codes.of(weights, group=32) for weights in (first, second)]
    expected = Codes.of(torch.cat((first, second))[order], group=32)
    found = joined(parts, order)
    for name in ("codes", "low", "step"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("spec", ["low-bit:5/64", "low-bit:4/32", "early-exit:2"])
def test_a_copy_runs_lean_and_says_what_it_says_otherwise(spec: str, tokenizer: Tokenizer) -> None:
    drafter = load_drafter(spec, tokenizer=tokenizer)
    assert isinstance(drafter, ModelDrafter)
    assert isinstance(drafter.engine._model, LeanModel)
    parsed = parse(spec)
    assert isinstance(parsed, EarlyExit | LowBit)
    change = early_exit(parsed) if isinstance(parsed, EarlyExit) else low_bit_copy(parsed)
    model = load_weights(resolve(tokenizer.name), dtype="float32")
    change.apply(model)
    plain = Engine(model, identity=drafter.engine.identity, settings=SETTINGS)
    expected, found = (_logits(engine) for engine in (plain, drafter.engine))
    assert float(expected.std()) > 0.1
    deviation = float((found - expected).square().mean().sqrt() / expected.std())
    # Packed products are rounded to bfloat16, and so is what goes into them: one bit more or less is the last of eight.
    assert deviation < (0.05 if spec == "low-bit:4/32" else 1e-4)


def test_what_has_no_lean_form_runs_as_it_is(tmp_path: Path) -> None:
    """Attention with biases, and a product of which one part cannot be packed."""
    for config in (
        llama_config(hidden_size=64, intermediate_size=96, attention_bias=True),
        llama_config(hidden_size=64, intermediate_size=104),
    ):
        folder = save_tiny(tmp_path / str(config.intermediate_size), config=config)
        tokenizer = load_tokenizer(resolve(str(folder)))
        drafter = load_drafter("low-bit:4/32", tokenizer=tokenizer)
        assert isinstance(drafter, ModelDrafter)
        assert not isinstance(drafter.engine._model, LeanModel)
        assert len(_guesses(drafter, 5)) == 5


def _logits(engine: Engine) -> torch.Tensor:
    """After each token of the prompt, and after a few rows of a tree."""
    sequence = engine.open(max_length=len(PROMPT) + 8, max_pending=8)
    prefill = RowGroup(sequence=sequence, tokens=PROMPT, commit=True)
    tree = RowGroup(sequence=sequence, tokens=PROMPT[:4], parents=(-1, 0, 0, 2))
    found = [engine.forward([group]).of(0) for group in (prefill, tree)]
    engine.rollback(sequence, 0)
    engine.close(sequence)
    return torch.cat(found)
