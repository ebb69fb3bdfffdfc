"""Which settings meet in benchmarks/identity.py: orthogonal arrays, so that every pair of settings is in some cell."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

WINDOWS = (8, 24, 64)
DRAFTERS = ("lookup", "copy", "wrong")
RTTS_S = (0.0, 0.06, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination of settings."""

    drafter: str
    window: int
    rtt_s: float
    race: bool
    concurrent: int


def greedy_cells() -> list[Cell]:
    """Nine rows in which every pair of (drafter, window, RTT) meets once: L9."""
    return [
        Cell(
            drafter=DRAFTERS[i],
            window=WINDOWS[j],
            rtt_s=RTTS_S[(i + j) % 3],
            race=True,
            concurrent=1,
        )
        for i in range(3)
        for j in range(3)
    ]


def sampled_cells() -> list[Cell]:
    """Every pair of drafter, window, race and concurrency meets; checked by `uncovered_pairs`."""
    race = {(i, j): (i + j) % 2 == 0 for i in range(3) for j in range(3)}
    many = {
        (0, 0): 8,
        (0, 1): 1,
        (0, 2): 8,
        (1, 0): 8,
        (1, 1): 8,
        (1, 2): 1,
        (2, 0): 1,
        (2, 1): 8,
        (2, 2): 1,
    }
    return [
        Cell(
            drafter=DRAFTERS[i],
            window=WINDOWS[j],
            rtt_s=0.06,
            race=race[i, j],
            concurrent=many[i, j],
        )
        for i in range(3)
        for j in range(3)
    ]


def uncovered_pairs(cells: Sequence[Cell]) -> list[str]:
    """Return the pairs of settings that no cell has, of all that occur."""
    rows = [asdict(cell) for cell in cells]
    axes = [axis for axis in rows[0] if len({row[axis] for row in rows}) > 1]
    return [
        f"{a}={x}, {b}={y}"
        for k, a in enumerate(axes)
        for b in axes[k + 1 :]
        for x in sorted({row[a] for row in rows})
        for y in sorted({row[b] for row in rows})
        if not any(row[a] == x and row[b] == y for row in rows)
    ]
