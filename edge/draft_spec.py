"""What users write after `--draft`, taken apart. Reads no file and imports nothing heavy.

lookup                      prompt lookup
suffix                      suffix n-gram
low-bit:4/64                the target's copy with 4 bits in groups of 64
early-exit:20               the target's first 20 layers
MODEL                       a model or a distilled draft with the target's tokenizer
common:MODEL, text:MODEL    a model with another tokenizer: by common tokens, by its text
hierarchy:SMALL+MODEL       a model that SMALL drafts for
tree:MODEL                  a model with several guesses for each position, best first
llama:FILE                  a GGUF file with the target's vocabulary, computed by llama.cpp; also tree:llama:FILE
lookup+X, suffix+X          X where the first is not sure enough; X may go on so
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from paceline.errors import ConfigError

LOOKUP = "lookup"
"""Names prompt lookup."""

SUFFIX = "suffix"
"""Names the suffix n-gram."""

LOW_BIT = "low-bit:"
EARLY_EXIT = "early-exit:"
COMMON = "common:"
TEXT = "text:"
HIERARCHY = "hierarchy:"
TREE = "tree:"
LLAMA = "llama:"
_CHEAP = (LOOKUP, SUFFIX)
"""What needs no model, and so may come first in a combination."""

_LOW_BIT = re.compile(r"low-bit:([1-8])/([1-9][0-9]{0,4})")
_EARLY_EXIT = re.compile(r"early-exit:([1-9][0-9]{0,3})")
_KINDS = "lookup, suffix, low-bit:BITS/GROUP, early-exit:LAYERS, a model, common:MODEL, text:MODEL, llama:FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model by its name, with the target's tokenizer or another one."""

    model: str
    how: str = ""
    """"": it has the target's tokenizer; COMMON or TEXT: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """A drafter without a model."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LowBit:
    """The target's copy with rounded weights."""

    bits: int
    group: int
    """Weights that share a scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExit:
    """The target's first layers."""

    num_layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaSpec:
    """A GGUF file that llama.cpp computes."""

    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinationSpec:
    """Several drafters, the cheapest first."""

    parts: tuple[Spec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HierarchySpec:
    """A drafter that drafts for a model."""

    small: Spec
    large: Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSpec:
    """A model that drafts trees."""

    model: Spec


Spec = (
    TableSpec
    | ModelSpec
    | LowBit
    | EarlyExit
    | LlamaSpec
    | CombinationSpec
    | HierarchySpec
    | TreeSpec
)


def parse(text: str) -> Spec:
    """Return what a user's word for a drafter means; looks at no file.

    Raises:
        ConfigError: it means nothing; says what would.
    """
    if text in ("", "none"):
        raise ConfigError(f"draft: {text!r} names no drafter; leave the drafter out instead")
    if text.startswith(HIERARCHY):
        return _hierarchy(text)
    if text.startswith(TREE):
        return TreeSpec(model=_growing(text.removeprefix(TREE), text))
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


def needs_torch(spec: Spec) -> bool:
    """Return whether PyTorch computes any of it."""
    match spec:
        case TableSpec() | LlamaSpec():
            return False
        case CombinationSpec():
            return any(needs_torch(part) for part in spec.parts)
        case TreeSpec():
            return needs_torch(spec.model)
        case _:
            return True


def models_of(spec: Spec) -> tuple[ModelSpec, ...]:
    """Return the models that transformers reads for it besides the target."""
    match spec:
        case ModelSpec():
            return (spec,)
        case CombinationSpec():
            return tuple(model for part in spec.parts for model in models_of(part))
        case HierarchySpec():
            return (*models_of(spec.small), *models_of(spec.large))
        case TreeSpec():
            return models_of(spec.model)
        case _:
            return ()


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
    return HierarchySpec(small=_single(small, text), large=_drawing(large, text))


def _growing(part: str, whole: str) -> Spec:
    """Return what can have several guesses for a position."""
    return _single(part, whole) if part.startswith(LLAMA) else _drawing(part, whole)


def _drawing(part: str, whole: str) -> Spec:
    """Return what draws tokens of the target's vocabulary by itself."""
    spec = _single(part, whole)
    if not isinstance(spec, LowBit | EarlyExit) and not (
        isinstance(spec, ModelSpec) and not spec.how
    ):
        raise ConfigError(
            f"draft: got {whole!r}, but {part} draws no tokens of the target's vocabulary by itself; expected a model "
            "with the target's tokenizer, low-bit:BITS/GROUP or early-exit:LAYERS there"
        )
    return spec


def _single(part: str, whole: str) -> Spec:
    if part in _CHEAP:
        return TableSpec(name=part)
    if part.startswith(LOW_BIT):
        if (match := _LOW_BIT.fullmatch(part)) is None:
            raise ConfigError(
                f"draft: got {part!r}, expected low-bit:BITS/GROUP with 1 to 8 bits, low-bit:4/64 for example"
            )
        return LowBit(bits=int(match[1]), group=int(match[2]))
    if part.startswith(EARLY_EXIT):
        if (match := _EARLY_EXIT.fullmatch(part)) is None:
            raise ConfigError(
                f"draft: got {part!r}, expected early-exit:LAYERS, early-exit:20 for example"
            )
        return EarlyExit(num_layers=int(match[1]))
    if part.startswith(LLAMA) and len(part) > len(LLAMA):
        return LlamaSpec(file=part.removeprefix(LLAMA))
    for how in (COMMON, TEXT):
        if part.startswith(how) and len(part) > len(how):
            return ModelSpec(model=part.removeprefix(how), how=how)
    if part in ("", "none", COMMON, TEXT, LLAMA) or part.startswith((HIERARCHY, TREE)):
        raise ConfigError(
            f"draft: got {whole!r}, in which {part!r} names no drafter; expected {_KINDS}"
        )
    return ModelSpec(model=part)
