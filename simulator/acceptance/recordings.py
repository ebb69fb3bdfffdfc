"""What ships with Paceline: guesses of a few pairs of models and the costs of one machine; see simulator/recordings."""

from __future__ import annotations

from pathlib import Path

from paceline.errors import ConfigError
from simulator.acceptance.guess_trace import GuessTrace, read_trace
from simulator.calibration.cost_file import Calibration, read_costs

FOLDER = Path(__file__).parent.parent / "recordings"
_GUESSES, _COSTS = "guesses-", "costs-"


def trace_names() -> tuple[str, ...]:
    """Return the names of the recorded guesses."""
    return _names(_GUESSES, ".json")


def cost_names() -> tuple[str, ...]:
    """Return the names of the recorded costs."""
    return _names(_COSTS, ".toml")


def recorded_trace(name: str) -> GuessTrace:
    """Return recorded guesses, "lookup" for example.

    Raises:
        ConfigError: there are none of that name; says which there are.
    """
    _check(name, trace_names(), what="guesses")
    return read_trace(FOLDER / f"{_GUESSES}{name}.json")


def recorded_costs(name: str) -> Calibration:
    """Return recorded costs.

    Raises:
        ConfigError: there are none of that name; says which there are.
    """
    _check(name, cost_names(), what="costs")
    return read_costs(FOLDER / f"{_COSTS}{name}.toml")


def _names(prefix: str, suffix: str) -> tuple[str, ...]:
    found = (path.name for path in FOLDER.glob(f"{prefix}*{suffix}"))
    return tuple(sorted(name.removeprefix(prefix).removesuffix(suffix) for name in found))


def _check(name: str, known: tuple[str, ...], *, what: str) -> None:
    if name not in known:
        raise ConfigError(f"recorded {what}: got {name!r}, expected one of: {', '.join(known)}")
