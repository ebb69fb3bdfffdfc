"""What a test wants, as a world of `simulator.virtual` has it."""

from pathlib import Path

from edge.drafters import LOOKUP
from edge.steering import LengthPolicy
from paceline.client.settings import DraftingSettings
from paceline.errors import ConfigError
from simulator.testing.parts import Parts
from simulator.testing.timed_drafter import TimedDrafter
from simulator.virtual.draft import DraftSettings, RealDraftSettings
from simulator.virtual.edge import EdgeSettings
from simulator.virtual.parts import AnyDraftSettings, AnyTarget
from simulator.virtual.real_target import RealTarget
from simulator.virtual.target import ToyTarget
from simulator.virtual.verifier import VerifierSettings


def virtual_target(parts: Parts) -> AnyTarget:
    """Return what the verifiers serve.

    Raises:
        ConfigError: it is no target.
        ModelError: there is no such model.
    """
    match parts.target:
        case None:
            return ToyTarget()
        case str() | Path():
            target = RealTarget(model=str(parts.target))
            _ = target.tokenizer  # loads it: an error belongs to whoever asks for the world
            return target
        case ToyTarget() | RealTarget():
            return parts.target
    raise ConfigError(
        f"target: got {parts.target!r}, expected a model as --target names it, or ToyTarget(...)"
    )


def virtual_edges(parts: Parts) -> tuple[EdgeSettings, ...]:
    """Return edges that can be asked at any time.

    Raises:
        ConfigError: one comes with requests of its own.
    """
    if isinstance(parts.edges, int):
        return (_edge(parts),) * parts.edges
    for one in parts.edges:
        if one.requests or not one.is_open:
            raise ConfigError(
                f"edges: got requests={one.requests!r}, is_open={one.is_open}, expected none and True: the test asks"
            )
    return tuple(parts.edges)


def virtual_verifiers(parts: Parts) -> tuple[VerifierSettings, ...]:
    """Return the verifiers."""
    if isinstance(parts.verifiers, int):
        return (VerifierSettings(),) * parts.verifiers
    return tuple(parts.verifiers)


def _edge(parts: Parts) -> EdgeSettings:
    drafting, policy = DraftingSettings(), LengthPolicy.CLOSED_FORM
    if parts.draft_length is not None:
        drafting = DraftingSettings(draft_length=parts.draft_length)
        policy = LengthPolicy.FIXED
    draft = _draft(parts)
    own = draft if isinstance(draft, TimedDrafter) else None
    return EdgeSettings(
        requests=(),
        draft=None if isinstance(draft, TimedDrafter) else draft,
        drafting=drafting,
        length_policy=policy,
        is_open=True,
        make_drafter=None if own is None else own.on,
    )


def _draft(parts: Parts) -> AnyDraftSettings | TimedDrafter | None:
    match parts.draft:
        case None | "none":
            return None
        case "usual":
            is_toy = isinstance(virtual_target(parts), ToyTarget)
            return DraftSettings() if is_toy else RealDraftSettings(model=LOOKUP)
        case str() | Path():
            return RealDraftSettings(model=str(parts.draft))
        case DraftSettings() | RealDraftSettings() | TimedDrafter():
            return parts.draft
        case _:
            return TimedDrafter(drafter=parts.draft)
