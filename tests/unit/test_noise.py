"""The shared noise is what docs/sampling.md says, to the bit where bits are promised."""

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import noise_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.sampling.hashing import MASK_64, choice_seed, signed
from paceline.sampling.noise import (
    CPU_CHUNK,
    NoiseCache,
    _negated_uniforms,
    hash_tokens,
    noise,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "noise_vectors.json").read_text()
)
SEEDS = st.integers(min_value=0, max_value=MASK_64)
POSITIONS = st.integers(min_value=0, max_value=2**31)
TOKENS = st.integers(min_value=0, max_value=2**18)


def uniforms(hashes: list[int], device: str) -> list[float]:
    bits = torch.tensor([signed(value) for value in hashes], device=device)
    out = torch.empty(len(hashes), device=device)
    return [-value for value in _negated_uniforms(bits, out=out).tolist()]


def check(entry: dict[str, Any], *, device: str) -> None:
    seed, position, token = int(entry["seed"], 16), entry["position"], entry["token"]
    hashed = hash_tokens(seed, position=position, tokens=torch.tensor([token], device=device))
    assert int(hashed) & MASK_64 == int(entry["hash"], 16)
    assert uniforms([int(hashed)], device) == [float.fromhex(entry["uniform"])]
    values = noise(seed, position=position, vocabulary_size=token + 1, device=device)
    assert float(values[token]) == pytest.approx(entry["gumbel"], rel=5e-7, abs=5e-7)


def test_vectors_of_the_noise() -> None:
    for entry in VECTORS["noise"]:
        check(entry, device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_vectors_of_the_noise_on_a_gpu() -> None:
    for entry in VECTORS["noise"]:
        check(entry, device="cuda")


@pytest.mark.parametrize("entry", VECTORS["uniform_edges"])
def test_vectors_of_the_uniform(entry: dict[str, Any]) -> None:
    assert uniforms([int(entry["hash"], 16)], "cpu") == [float.fromhex(entry["uniform"])]
    assert 0.0 < float.fromhex(entry["uniform"]) < 1.0


@pytest.mark.parametrize("entry", VECTORS["choice_seed"])
def test_vectors_of_choices(entry: dict[str, Any]) -> None:
    assert choice_seed(int(entry["seed"], 16), entry["choice"]) == int(entry["result"], 16)


def test_the_reference_still_gives_the_vectors() -> None:
    for entry in VECTORS["noise"]:
        hashed = reference.hash64(int(entry["seed"], 16), entry["position"], entry["token"])
        assert hashed == int(entry["hash"], 16)
        assert reference.uniform(hashed) == float.fromhex(entry["uniform"])


@settings(deadline=None)
@given(seed=SEEDS, position=POSITIONS, tokens=st.lists(TOKENS, min_size=1, max_size=20))
def test_integers_equal_the_reference(seed: int, position: int, tokens: list[int]) -> None:
    hashed = hash_tokens(seed, position=position, tokens=torch.tensor(tokens))
    expected = [reference.hash64(seed, position, token) for token in tokens]
    assert [value & MASK_64 for value in hashed.tolist()] == expected


@settings(deadline=None)
@given(hashes=st.lists(SEEDS, min_size=1, max_size=40))
def test_uniforms_equal_the_reference(hashes: list[int]) -> None:
    assert uniforms(hashes, "cpu") == [reference.uniform(value) for value in hashes]


@settings(deadline=None)
@given(seed=SEEDS, position=POSITIONS)
def test_floats_are_close_to_the_reference(seed: int, position: int) -> None:
    values = noise(seed, position=position, vocabulary_size=64).tolist()
    for token, value in enumerate(values):
        expected = reference.gumbel(reference.hash64(seed, position, token))
        assert math.isclose(value, expected, rel_tol=5e-7, abs_tol=5e-7)


def test_the_vocabulary_size_does_not_change_a_token() -> None:
    whole = noise(7, position=3, vocabulary_size=2 * CPU_CHUNK + 1001)
    for size in (1, 2, 17, 1000, 49155, CPU_CHUNK, CPU_CHUNK + 1):
        assert torch.equal(noise(7, position=3, vocabulary_size=size), whole[:size])


def test_the_scale_is_one_rounded_product() -> None:
    plain = noise(7, position=3, vocabulary_size=500)
    assert torch.equal(noise(7, position=3, vocabulary_size=500, scale=0.8), plain * 0.8)


def test_inference_mode_and_other_threads_share_nothing_they_write_to() -> None:
    with torch.inference_mode():
        first = noise(1, position=1, vocabulary_size=1234)
    results: list[torch.Tensor] = []

    def work() -> None:
        results.append(noise(1, position=1, vocabulary_size=1234))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=30)
    assert torch.equal(first, results[0])
    assert torch.equal(first, noise(1, position=1, vocabulary_size=1234))


def cache(max_bytes: int) -> NoiseCache:
    return NoiseCache(
        seed=5, scale=0.5, vocabulary_size=100, device=torch.device("cpu"), max_bytes=max_bytes
    )


def test_cache_computes_once_and_counts_bytes() -> None:
    kept = cache(4000)
    assert kept.prepare(3)
    assert not kept.prepare(3)
    assert kept.get(3) is kept.get(3)
    assert torch.equal(kept.get(3), noise(5, position=3, vocabulary_size=100, scale=0.5))
    assert kept.num_bytes == 400


def test_cache_is_bounded_and_gives_up_the_farthest() -> None:
    kept = cache(1200)
    near, middle, far = (kept.get(position) for position in (10, 11, 12))
    assert not kept.prepare(13)
    kept.get(9)
    assert kept.num_bytes == 1200
    assert kept.get(10) is near
    assert kept.get(11) is middle
    assert kept.get(12) is not far
    assert torch.equal(kept.get(12), far)


def test_cache_forgets_what_is_committed() -> None:
    kept = cache(4000)
    for position in (1, 2, 3):
        kept.prepare(position)
    kept.forget_before(3)
    assert kept.num_bytes == 400
    kept.forget_before(1)
    assert not kept.prepare(2)
    assert kept.get(2).numel() == 100
    assert kept.num_bytes == 400


def test_cache_holds_one_position_whatever_the_bound() -> None:
    kept = cache(1)
    assert kept.get(4) is kept.get(4)
    assert kept.num_bytes == 400
