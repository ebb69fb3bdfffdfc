"""Which parts stand for the models of a world: simulated ones for a toy target, real ones for a real target."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from cloud.stepper import StepModel
from paceline.errors import ConfigError
from simulator.virtual.draft import DraftSettings, RealDraftSettings, SimulatedDrafter
from simulator.virtual.events import Tell
from simulator.virtual.machine import Occupation
from simulator.virtual.model import ModelSettings, SimulatedModel
from simulator.virtual.real_target import RealTarget
from simulator.virtual.target import ToyTarget

if TYPE_CHECKING:
    from simulator.virtual.real_draft import RealDrafter

AnyTarget = ToyTarget | RealTarget
AnyDraftSettings = DraftSettings | RealDraftSettings


def check_parts(target: AnyTarget, draft: AnyDraftSettings | None) -> None:
    """Check that a drafter can guess what a target draws.

    Raises:
        ConfigError: it cannot.
    """
    if isinstance(draft, DraftSettings) and isinstance(target, RealTarget):
        raise ConfigError(
            f"draft: got a drafter that is right by chance or as recorded, which only a toy target tells it; for the "
            f"target {target.model} name a drafter that guesses: RealDraftSettings(model=...), or None"
        )


def make_model(
    target: AnyTarget,
    *,
    settings: ModelSettings,
    max_draft_rows: int,
    occupation: Occupation,
    seed: int,
    tell: Tell | None,
) -> StepModel:
    """Return what serves a target, with empty caches.

    Args:
        target: what is served.
        settings: what steps cost.
        max_draft_rows: of one session in a step.
        occupation: told how long steps take.
        seed: of the scatter of step times.
        tell: told of every step, if anybody wants to know.
    """
    match target:
        case ToyTarget():
            return SimulatedModel(
                target, settings=settings, occupation=occupation, seed=seed, tell=tell
            )
        case RealTarget():
            from simulator.virtual.real_model import RealModel  # noqa: PLC0415 - PyTorch

            return RealModel(
                target,
                meter=settings.meter(occupation, seed=seed, tell=tell),
                max_context_tokens=settings.max_context_tokens,
                max_draft_rows=max_draft_rows,
            )
        case _:
            assert_never(target)


def make_drafter(
    target: AnyTarget, *, settings: AnyDraftSettings, occupation: Occupation, tell: Tell | None
) -> SimulatedDrafter | RealDrafter:
    """Return a drafter without any memory.

    Args:
        target: what is guessed.
        settings: which drafter, and how fast it is.
        occupation: told how long calls take.
        tell: told of every call that guesses, if anybody wants to know.
    """
    check_parts(target, settings)
    match settings:
        case DraftSettings():
            assert isinstance(target, ToyTarget), "checked"
            return SimulatedDrafter(target, settings=settings, occupation=occupation, tell=tell)
        case RealDraftSettings():
            from simulator.virtual.real_draft import RealDrafter  # noqa: PLC0415 - PyTorch

            return RealDrafter(
                target.tokenizer, settings=settings, occupation=occupation, tell=tell
            )
        case _:
            assert_never(settings)
