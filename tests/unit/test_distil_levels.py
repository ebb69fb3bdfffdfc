"""Weights on a few levels, and products with them."""

from __future__ import annotations

import pytest
import torch

from edge.distillation.levels import (
    BITS,
    GROUP,
    codes_from,
    codes_of,
    planes_of,
    rounded,
    rounded_weights,
    values_of,
)
from edge.distillation.packed_types import Levels
from edge.drafters.matrices import FEW_ROWS, LowBitMatrix, can_multiply


def matrix(rows: int = 32, width: int = 3 * GROUP, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 0.05


@pytest.mark.parametrize("bits", BITS)
def test_rounding_is_as_good_as_its_bits_and_rounds_no_further(bits: int) -> None:
    weights = matrix()
    once = rounded(weights, bits=bits)
    share = float((once - weights).square().mean() / weights.square().mean())
    # A normal law's best even levels lose 0.119, 0.037, 0.0115, 0.0035, 0.001 of the square (Max, 1960).
    assert share < (0.125, 0.039, 0.0121, 0.0037, 0.0011)[bits - 2]
    assert torch.equal(rounded(once, bits=bits), once)
    assert len(set(once.view(-1, GROUP)[0].tolist())) <= 2**bits


@pytest.mark.parametrize("bits", BITS)
def test_codes_survive_being_packed(bits: int) -> None:
    weights = matrix()
    codes, scales = codes_of(weights, bits=bits)
    planes = planes_of(codes, bits=bits)
    assert planes.numel() * 8 == bits * weights.numel()
    assert torch.equal(codes_from(planes, width=weights.shape[1]), codes)
    assert torch.equal(values_of(codes, scales, bits=bits), rounded(weights, bits=bits))
    assert torch.equal(scales.half().bfloat16(), scales), "float16 must hold the same scale"


def test_a_group_of_zeros_and_one_of_a_single_weight_are_kept() -> None:
    weights = torch.zeros(1, 2 * GROUP)
    weights[0, GROUP + 3] = 0.5
    kept = rounded(weights, bits=4)
    assert float(kept[0, :GROUP].abs().max()) < 1e-4
    # No level is zero, so the others pull the scale down.
    assert float(kept[0, GROUP + 3]) == pytest.approx(0.5, rel=0.15)


def test_rows_that_are_no_whole_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns: got 40, expected a multiple of 32"):
        codes_of(torch.zeros(2, 40), bits=4)


def test_weights_are_rounded_for_a_while_only_and_their_gradient_stays() -> None:
    weights = torch.nn.Parameter(matrix())
    norm = torch.nn.Parameter(torch.ones(5))
    before = weights.detach().clone()
    with rounded_weights([weights, norm], bits=3):
        assert torch.equal(weights.detach(), rounded(before, bits=3))
        (gradient,) = torch.autograd.grad(weights.square().sum() + norm.sum(), weights)
    assert torch.equal(weights.detach(), before)
    assert torch.allclose(gradient, 2 * rounded(before, bits=3))


@pytest.mark.parametrize("num_rows", [1, 3, FEW_ROWS, FEW_ROWS + 1, 40])
def test_products_are_those_of_the_rounded_weights(num_rows: int) -> None:
    parts, levels = [matrix(32, seed=1), matrix(16, seed=2)], []
    for part, bits in zip(parts, (4, 3), strict=True):
        codes, scales = codes_of(part, bits=bits)
        levels.append(Levels(codes=codes, scales=scales, bits=bits))
    if not can_multiply(levels):
        pytest.skip("this processor has no kernel for 4-bit weights")
    product = LowBitMatrix(levels)
    rows = matrix(num_rows, seed=3).bfloat16() * 20
    expected = rows.float() @ torch.cat([rounded(parts[0], bits=4), rounded(parts[1], bits=3)]).T
    got = product(rows).float()
    # bfloat16 keeps eight bits of each factor and of the result.
    assert float((got - expected).abs().max()) < 0.02 * float(expected.std()) * 3


def test_only_matrices_that_fit_the_kernel_are_multiplied_by_it() -> None:
    def levels(rows: int, bits: int) -> Levels:
        codes, scales = codes_of(matrix(rows), bits=bits)
        return Levels(codes=codes, scales=scales, bits=bits)

    assert not can_multiply([levels(32, 5)])
    assert not can_multiply([levels(24, 4)])
