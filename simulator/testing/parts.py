"""What a test says about the edges and verifiers that it wants. Cheap to import: nothing of any model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paceline.errors import ConfigError
from paceline.settings import unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paceline.drafter import Drafter
    from simulator.testing.timed_drafter import TimedDrafter
    from simulator.virtual.edge import EdgeSettings
    from simulator.virtual.parts import AnyDraftSettings, AnyTarget
    from simulator.virtual.verifier import VerifierSettings

USUAL = "usual"

MOST = 64
"""Machines of a kind in one test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Edges and verifiers.

    Raises:
        ConfigError: a field is out of its range.
    """

    edges: int | Sequence[EdgeSettings] = 1
    """How many, or in virtual time each one's settings, which then hold instead of `draft` and `draft_length`."""
    verifiers: int | Sequence[VerifierSettings] = 1
    """How many, or in virtual time each one's settings."""
    target: AnyTarget | str | Path | None = None
    """A model as `--target` names it, or in virtual time a toy. None: a toy, or in real time a tiny model with random
    weights."""
    draft: AnyDraftSettings | TimedDrafter | Drafter | str | Path | None = USUAL
    """What `--draft` takes, or in virtual time how well and fast a simulated drafter guesses, or a drafter of your own.
    None drafts nothing. Usual is prompt lookup, or for a toy a simulated one that is right 7 times in 10."""
    draft_length: int | None = None
    """Stays as it is; None: follows what the edge measures."""

    def __post_init__(self) -> None:
        """Check what both times have in common."""
        for name in ("edges", "verifiers"):
            value = getattr(self, name)
            count = len(value) if isinstance(value, list | tuple) else value
            if type(count) is not int or not 1 <= count <= MOST:
                raise ConfigError(
                    f"{name}: got {count!r}, expected 1 to {MOST}, or in virtual time a list of settings"
                )
        length = self.draft_length
        if length is not None and not (type(length) is int and 0 <= length <= 4096):
            raise ConfigError(f"draft_length: got {length!r}, expected 0 to 4096")

    def real_counts(self) -> tuple[int, int]:
        """Return how many edges and verifiers.

        Raises:
            ConfigError: they have settings of virtual time.
        """
        if isinstance(self.edges, int) and isinstance(self.verifiers, int):
            return self.edges, self.verifiers
        raise ConfigError(
            "edges, verifiers: got settings of virtual time, expected how many: they are processes here"
        )

    def real_target(self) -> str | None:
        """Return the model's name; none: a tiny one.

        Raises:
            ConfigError: it is one of virtual time.
        """
        if self.target is None or isinstance(self.target, str | Path):
            return None if self.target is None else str(self.target)
        raise ConfigError(
            f"target: got {type(self.target).__name__}, expected the name of a model: time is real here"
        )

    def real_draft(self) -> str:
        """Return what `--draft` takes.

        Raises:
            ConfigError: it is a drafter of virtual time.
        """
        match self.draft:
            case "usual":
                return "lookup"
            case None:
                return "none"
            case str() | Path():
                return str(self.draft)
            case _:
                raise ConfigError(
                    f"draft: got {type(self.draft).__name__}, expected what --draft takes, or None: time is real here"
                )


def made_parts(wanted: Mapping[str, Any]) -> Parts:
    """Return the parts that a test names.

    Raises:
        ConfigError: there is no such field, or a value is wrong.
    """
    known = [field.name for field in fields(Parts)]
    for name in wanted:
        if name not in known:
            raise unknown_name(name, known, what="world")
    return Parts(**wanted)
