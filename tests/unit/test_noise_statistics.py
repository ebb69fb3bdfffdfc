"""The noise looks independent over tokens, positions and seeds, and exact in the tail that decides a draw.

Seeds are fixed, so a test gives the same answer every time; ALARM bounds the chance that a perfect generator would
have failed with the seed that was picked. There are about 40 comparisons, so all together that is below 1e-6.
"""

from collections.abc import Iterator

import pytest
import torch
from harness.false_alarm import chi_square_p, uniform_p
from torch import Tensor

from paceline.sampling.hashing import choice_seed
from paceline.sampling.noise import hash_tokens, noise

ALARM = 2e-8
SINGLE_BITS = torch.tensor([1 << bit for bit in range(63)] + [-(2**63)])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Thousands of tiny operations are slower on several threads, and far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def table(direction: str) -> Tensor:
    """Return 2**20 hashes such that neighbours differ in one input only."""
    if direction == "tokens":
        rows = [hash_tokens(11, position=p, tokens=torch.arange(4096)) for p in range(256)]
        return torch.stack(rows).flatten()
    tokens = torch.arange(64)
    if direction == "positions":
        rows = [hash_tokens(11, position=p, tokens=tokens) for p in range(16384)]
    elif direction == "seeds":
        rows = [hash_tokens(seed, position=9, tokens=tokens) for seed in range(16384)]
    else:
        rows = [hash_tokens(choice_seed(3, c), position=9, tokens=tokens) for c in range(16384)]
    return torch.stack(rows).T.flatten()


def bits(values: Tensor) -> Tensor:
    """Return the bits of int64 values, [..., 64] float64."""
    return values[..., None].bitwise_and(SINGLE_BITS).ne(0).double()


def flat_p(cells: Tensor, num_cells: int) -> float:
    """Return the p-value of cell numbers against the uniform law."""
    counts = torch.bincount(cells, minlength=num_cells)
    return chi_square_p(counts, torch.full((num_cells,), cells.numel() / num_cells))


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["tokens", "positions", "seeds", "choices"])
def test_hashes_are_uniform_and_neighbours_independent(direction: str) -> None:
    hashes = table(direction)
    for shift in (0, 20, 31, 32, 55):
        assert flat_p((hashes >> shift) & 0xFF, 256) > ALARM
    top = (hashes >> 59) & 15
    for lag in (1, 2, 64):
        assert flat_p(top[:-lag] * 16 + top[lag:], 256) > ALARM


@pytest.mark.slow
@pytest.mark.parametrize("part", ["seed", "position", "token"])
def test_one_input_bit_flips_every_output_bit_half_of_the_time(part: str) -> None:
    size = 4096
    tokens = torch.arange(size)
    base = hash_tokens(77, position=1000, tokens=tokens)
    for bit in range({"seed": 64, "position": 20, "token": 18}[part]):
        flip = 1 << bit
        other = hash_tokens(
            77 ^ flip if part == "seed" else 77,
            position=1000 ^ flip if part == "position" else 1000,
            tokens=tokens ^ flip if part == "token" else tokens,
        )
        # A hash pair is counted twice where both tokens are in range: the variance at most doubles.
        rates = bits(base ^ other).mean(0)
        # Hoeffding: 64 output bits and 102 input bits share an alarm of 1e-8.
        bound = (2 * torch.log(torch.tensor(2 * 64 * 102 / 1e-8)) / (2 * size)) ** 0.5
        assert float((rates - 0.5).abs().max()) < float(bound)


@pytest.mark.slow
def test_bits_of_one_hash_are_pairwise_independent() -> None:
    centred = bits(table("positions")[: 2**17]) * 2 - 1
    products = (centred.T @ centred) / centred.shape[0]
    products.fill_diagonal_(0.0)
    # Hoeffding over 2016 pairs: 2 exp(-n c^2 / 2) each.
    bound = (2 * torch.log(torch.tensor(2 * 2016 / ALARM)) / centred.shape[0]) ** 0.5
    assert float(products.abs().max()) < float(bound)


@pytest.mark.slow
def test_the_tail_for_a_large_vocabulary() -> None:
    """What a 24-bit uniform gets wrong: it ties in 0.8 % of draws here, and has few values below 1e-5 at all."""
    vocabulary_size, num_positions = 262_144, 1500
    smallest, tail, winners, ties = [], [], [], 0
    for position in range(num_positions):
        values = noise(2024, position=position, vocabulary_size=vocabulary_size)
        best = values.topk(2)
        ties += int(best.values[0] == best.values[1])
        smallest.append(torch.exp(-best.values[0].double()))
        winners.append(best.indices[0])
        tail.append(torch.exp(-values[values > 11.5].double()))
    # The smallest of V exponentials is exponential with rate V.
    assert uniform_p(-torch.expm1(-torch.stack(smallest) * vocabulary_size)) > ALARM
    # Given that it is small, an exponential is uniform, up to its own size (1e-5).
    limit = torch.exp(torch.tensor(-11.5, dtype=torch.float64))
    below = torch.cat(tail)
    assert below.numel() > 3000
    assert uniform_p(torch.expm1(-below) / torch.expm1(-limit)) > ALARM
    # Two of 1500 tie within float32's step at 12.5 (1e-6) with a chance of 1e-6, three with 6e-10; a 24-bit grid
    # would give 12.
    assert ties <= 2
    assert flat_p(torch.stack(winners) * 16 // vocabulary_size, 16) > ALARM


@pytest.mark.slow
def test_winners_of_neighbouring_positions_are_independent() -> None:
    winners = torch.stack(
        [noise(5, position=p, vocabulary_size=64).max(0).indices for p in range(20_000)]
    )
    assert flat_p(winners, 64) > ALARM
    coarse = winners // 8
    assert flat_p(coarse[:-1] * 8 + coarse[1:], 64) > ALARM


@pytest.mark.slow
def test_noise_has_the_gumbel_law() -> None:
    values = torch.cat([noise(8, position=p, vocabulary_size=5000) for p in range(100)])
    assert uniform_p(torch.exp(-torch.exp(-values.double()))) > ALARM
