"""What a test says about the edges and verifiers that it wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.drafters import LOOKUP
from edge.steering import LengthPolicy
from paceline.client.settings import DraftingSettings
from paceline.drafter import Drafter
from paceline.errors import ConfigError
from simulator.testing.timed_drafter import TimedDrafter
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings
from simulator.virtual.parts import AnyDraftSettings, AnyTarget
from simulator.virtual.real_draft import RealDraftSettings
from simulator.virtual.real_target import RealTarget
from simulator.virtual.target import ToyTarget
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
            count = value if isinstance(value, int) else len(value)
            if isinstance(value, bool) or not 1 <= count <= MOST:
                raise ConfigError(f"{name}: got {count}, expected 1 to {MOST}")
        if self.draft_length is not None and not 0 <= self.draft_length <= 4096:
            raise ConfigError(f"draft_length: got {self.draft_length}, expected 0 to 4096")

    # --- as a world of simulator.virtual has it

    def virtual_target(self) -> AnyTarget:
        """Return what the verifiers serve."""
        if self.target is None:
            return ToyTarget()
        if isinstance(self.target, str | Path):
            return RealTarget(model=str(self.target))
        return self.target

    def virtual_edges(self) -> tuple[EdgeSettings, ...]:
        """Return edges that can be asked at any time.

        Raises:
            ConfigError: one comes with requests of its own.
        """
        if isinstance(self.edges, int):
            return (self._virtual_edge(),) * self.edges
        for one in self.edges:
            if one.requests or not one.is_open:
                raise ConfigError(
                    f"edges: got requests={one.requests!r}, is_open={one.is_open}, expected none and True: the test asks"
                )
        return tuple(self.edges)

    def virtual_verifiers(self) -> tuple[VerifierSettings, ...]:
        """Return the verifiers."""
        if isinstance(self.verifiers, int):
            return (VerifierSettings(),) * self.verifiers
        return tuple(self.verifiers)

    def _virtual_edge(self) -> EdgeSettings:
        drafting, policy = DraftingSettings(), LengthPolicy.CLOSED_FORM
        if self.draft_length is not None:
            drafting = DraftingSettings(draft_length=self.draft_length)
            policy = LengthPolicy.FIXED
        draft = self._virtual_draft()
        own = draft if isinstance(draft, TimedDrafter) else None
        return EdgeSettings(
            requests=(),
            draft=None if isinstance(draft, TimedDrafter) else draft,
            drafting=drafting,
            length_policy=policy,
            is_open=True,
            make_drafter=None if own is None else own.on,
        )

    def _virtual_draft(self) -> AnyDraftSettings | TimedDrafter | None:
        match self.draft:
            case None | "none":
                return None
            case "usual":
                is_toy = isinstance(self.virtual_target(), ToyTarget)
                return DraftSettings() if is_toy else RealDraftSettings(model=LOOKUP)
            case str() | Path():
                return RealDraftSettings(model=str(self.draft))
            case DraftSettings() | RealDraftSettings() | TimedDrafter():
                return self.draft
            case _:
                return TimedDrafter(drafter=self.draft)

    # --- as programs have it

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
                return LOOKUP
            case None:
                return "none"
            case str() | Path():
                return str(self.draft)
            case _:
                raise ConfigError(
                    f"draft: got {type(self.draft).__name__}, expected what --draft takes, or None: time is real here"
                )
