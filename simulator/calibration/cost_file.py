"""The file that `paceline calibrate` writes: a machine, what a step of the target and of drafters costs on it.

TOML, for people to read and to change: a slower target is a larger `fixed_s`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from paceline.errors import ConfigError
from simulator.cost import LEVELS, FittedCost, Spread, StepCost

FORMAT = "paceline-costs/1"
_COST = tuple(item.name for item in fields(StepCost))
_REQUIRED = {"name", "threads", "fixed_s", "per_row_s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A machine's costs."""

    machine: Mapping[str, str]
    """Processor, memory, versions."""
    target: FittedCost
    drafts: tuple[FittedCost, ...] = ()

    def draft(self, name: str) -> FittedCost:
        """Return a drafter's cost.

        Raises:
            ConfigError: it was not measured; says which were.
        """
        for draft in self.drafts:
            if draft.name == name:
                return draft
        known = ", ".join(draft.name for draft in self.drafts) or "none"
        raise ConfigError(f"draft: got {name!r}, expected one that was measured: {known}")


def write_costs(path: Path, calibration: Calibration) -> None:
    """Write a cost file."""
    lines = [
        "# Written by `paceline calibrate`; what each number means: docs/calibration.md. Times are in seconds.",
        f"format = {_toml(FORMAT)}",
        "",
        "[machine]",
        *(f"{key} = {_toml(str(value))}" for key, value in calibration.machine.items()),
        "",
        "[target]",
        *_lines(calibration.target),
    ]
    for draft in calibration.drafts:
        lines += ["", "[[draft]]", *_lines(draft)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_costs(path: Path) -> Calibration:
    """Read a cost file.

    Raises:
        ConfigError: it cannot be read, is of another format, or a field is unknown, missing or wrong; names it.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"costs: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML in UTF-8: {error}") from error
    if content.get("format") != FORMAT:
        raise ConfigError(f"{path}: format: got {content.get('format')!r}, expected {FORMAT!r}")
    drafts = content.get("draft", [])
    if not isinstance(drafts, list):
        raise ConfigError(f"{path}: draft: expected tables, written [[draft]]")
    machine = content.get("machine", {})
    if not isinstance(machine, dict):
        raise ConfigError(f"{path}: machine: expected a table, written [machine]")
    return Calibration(
        machine={key: str(value) for key, value in machine.items()},
        target=_fitted(content.get("target"), where=f"{path}: target"),
        drafts=tuple(
            _fitted(draft, where=f"{path}: draft {index}")
            for index, draft in enumerate(drafts, start=1)
        ),
    )


def _lines(fitted: FittedCost) -> list[str]:
    quantiles = ", ".join(_toml(value) for value in fitted.spread.quantiles)
    return [
        f"name = {_toml(fitted.name)}",
        f"dtype = {_toml(fitted.dtype)}",
        f"threads = {fitted.threads}",
        *(f"{name} = {_toml(getattr(fitted.cost, name))}" for name in _COST),
        "# Measured / median of the same kind of step, at the quantiles "
        + ", ".join(map(str, LEVELS)),
        f"spread = [{quantiles}]",
        *_between(fitted),
        "# |predicted / measured - 1| over the kinds of step, and R squared of the seconds",
        f"median_error = {_toml(fitted.median_error)}",
        f"worst_error = {_toml(fitted.worst_error)}",
        f"r_squared = {_toml(fitted.r_squared)}",
        f"num_steps = {fitted.num_steps}",
        f"left_out = {_toml(fitted.left_out)}",
    ]


def _between(fitted: FittedCost) -> list[str]:
    measured = {
        "between_s": "What the program takes between two steps",
        "rested_s": "What a step takes longer after a pause",
    }
    return [
        line
        for name, meaning in measured.items()
        if (value := getattr(fitted, name))
        for line in (f"# {meaning}", f"{name} = {_toml(value)}")
    ]


def _fitted(table: Any, *, where: str) -> FittedCost:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table with {', '.join(sorted(_REQUIRED))} ...")
    own = {item.name for item in fields(FittedCost)} - {"cost"}
    unknown = table.keys() - own - set(_COST)
    if unknown:
        raise ConfigError(f"{where}: unknown: {', '.join(sorted(unknown))}")
    missing = _REQUIRED - table.keys()
    if missing:
        raise ConfigError(f"{where}: missing: {', '.join(sorted(missing))}")
    values = {name: table[name] for name in own - {"spread", "name", "dtype"} if name in table}
    try:
        return FittedCost(
            name=str(table["name"]),
            dtype=str(table.get("dtype", "")),
            cost=StepCost(**{name: table[name] for name in _COST if name in table}),
            spread=_spread(table.get("spread")),
            **values,
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _spread(value: Any) -> Spread:
    if value is None:
        return Spread()
    if not isinstance(value, list) or not all(isinstance(item, int | float) for item in value):
        raise ConfigError(f"spread: got {value!r}, expected a list of {len(LEVELS)} numbers")
    return Spread(quantiles=tuple(float(item) for item in value))


def _toml(value: str | float) -> str:
    """Return a basic string, or a number with six digits."""
    if isinstance(value, str):
        # JSON's strings are TOML's, but for one control character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{value:.6g}"
