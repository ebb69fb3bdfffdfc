"""What users write after `--draft`, taken apart.

lookup                      prompt lookup
suffix                      suffix n-gram
low-bit:4/64                the target's copy with 4 bits in groups of 64
early-exit:20               the target's first 20 layers
MODEL                       a model or a distilled draft with the target's tokenizer
common:MODEL, text:MODEL    a model with another tokenizer: by common tokens, by its text
hierarchy:SMALL+MODEL       a model that SMALL drafts for
lookup+X, suffix+X          X where the first is not sure enough; X may go on so
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.drafters import early_exit, foreign, low_bit, spoken
from edge.drafters.early_exit import EarlyExit
from edge.drafters.low_bit import LowBit
from paceline.errors import ConfigError

LOOKUP = "lookup"
"""Names prompt lookup."""

SUFFIX = "suffix"
"""Names the suffix n-gram."""

HIERARCHY = "hierarchy:"
_CHEAP = (LOOKUP, SUFFIX)
"""What needs no model, and so may come first in a combination."""

_KINDS = "lookup, suffix, low-bit:BITS/GROUP, early-exit:LAYERS, a model, common:MODEL, text:MODEL"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model by its name, with the target's tokenizer or another one."""

    model: str
    how: str = ""
    """"": it has the target's tokenizer; `foreign.PREFIX` or `spoken.PREFIX`: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """A drafter without a model."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinationSpec:
    """Several drafters, the cheapest first."""

    parts: tuple[Spec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HierarchySpec:
    """A drafter that drafts for a model."""

    small: Spec
    large: Spec


Spec = TableSpec | ModelSpec | LowBit | EarlyExit | CombinationSpec | HierarchySpec


def parse(text: str) -> Spec:
    """Return what a user's word for a drafter means; looks at no file.

    Raises:
        ConfigError: it means nothing; says what would.
    """
    if text in ("", "none"):
        raise ConfigError(f"draft: {text!r} names no drafter; leave the drafter out instead")
    if text.startswith(HIERARCHY):
        return _hierarchy(text)
    parts = _split(text)
    if len(parts) > 1:
        return CombinationSpec(parts=tuple(_single(part, text) for part in parts))
    return _single(text, text)


def needs_model(spec: Spec) -> bool:
    """Return whether a model is loaded for it, which takes seconds."""
    match spec:
        case TableSpec():
            return False
        case CombinationSpec():
            return any(needs_model(part) for part in spec.parts)
        case _:
            return True


def _split(text: str) -> list[str]:
    """Split at each plus behind a drafter that needs no model; other names may have one in them."""
    parts = []
    while (first := text.partition("+"))[0] in _CHEAP and first[1]:
        parts.append(first[0])
        text = first[2]
    return [*parts, text]


def _hierarchy(text: str) -> HierarchySpec:
    small, plus, large = text.removeprefix(HIERARCHY).partition("+")
    if not plus or not small or not large:
        raise ConfigError(
            f"draft: got {text!r}, expected hierarchy:SMALL+MODEL, hierarchy:suffix+MODEL for example"
        )
    specs = _single(small, text), _single(large, text)
    if not isinstance(specs[1], LowBit | EarlyExit) and not (
        isinstance(specs[1], ModelSpec) and not specs[1].how
    ):
        raise ConfigError(
            f"draft: got {text!r}, but {large} draws no tokens of the target's vocabulary by itself; expected a model "
            "with the target's tokenizer, low-bit:BITS/GROUP or early-exit:LAYERS behind the plus"
        )
    return HierarchySpec(small=specs[0], large=specs[1])


def _single(part: str, whole: str) -> Spec:
    if part in _CHEAP:
        return TableSpec(name=part)
    if part.startswith(low_bit.PREFIX):
        return LowBit.parse(part)
    if part.startswith(early_exit.PREFIX):
        return EarlyExit.parse(part)
    for how in (foreign.PREFIX, spoken.PREFIX):
        if part.startswith(how) and len(part) > len(how):
            return ModelSpec(model=part.removeprefix(how), how=how)
    if part in ("", "none", foreign.PREFIX, spoken.PREFIX) or part.startswith(HIERARCHY):
        raise ConfigError(
            f"draft: got {whole!r}, in which {part!r} names no drafter; expected {_KINDS}"
        )
    return ModelSpec(model=part)
