"""What users write after `--draft`, taken apart. Reads no file and imports nothing heavy.

lookup                      prompt lookup
suffix                      suffix n-gram
low-bit:4/64                the target's copy with 4 bits in groups of 64
early-exit:20               the target's first 20 layers
MODEL                       a model or a distilled draft with the target's tokenizer
common:MODEL, text:MODEL    a model with another tokenizer: by common tokens, by its text
hierarchy:SMALL+MODEL       a model that SMALL drafts for; more of those that are not files may stand before it
block:MODEL                 a distilled draft with mask slots, several positions in one pass; also tree:block:MODEL
tree:MODEL                  a model with several guesses for each position, best first
llama:FILE                  a GGUF file with the target's vocabulary, computed by llama.cpp; also tree:llama:FILE
adapt:MODEL                 a model that learns from what the target says; also adapt:tree:MODEL
suffix+tree:MODEL           the same, with what followed elsewhere in the text among the guesses
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
BLOCK = "block:"
ADAPT = "adapt:"
SUFFIX_TREE = f"{SUFFIX}+{TREE}"
TREES = (TREE, ADAPT + TREE, SUFFIX_TREE)
"""How words for drafters of trees begin."""
LLAMA = "llama:"
_CHEAP = (LOOKUP, SUFFIX)
"""What needs no model, and so may come first in a combination."""

_LOW_BIT = re.compile(r"low-bit:([1-8])/([1-9][0-9]{0,4})")
_EARLY_EXIT = re.compile(r"early-exit:([1-9][0-9]{0,3})")
_KINDS = (
    "lookup, suffix, low-bit:BITS/GROUP, early-exit:LAYERS, a model, common:MODEL, text:MODEL, block:MODEL, "
    "adapt:MODEL, llama:FILE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model by its name, with the target's tokenizer or another one."""

    model: str
    how: str = ""
    """"": it has the target's tokenizer; BLOCK: that and mask slots; COMMON or TEXT: any tokenizer."""


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
class BlockSpec:
    """A distilled draft that guesses several positions in one pass."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinationSpec:
    """Several drafters, the cheapest first."""

    parts: tuple[Spec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HierarchySpec:
    """A model and who drafts for it."""

    helpers: tuple[Spec, ...]
    """Cheapest first; at least one."""
    large: Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSpec:
    """A model that drafts trees."""

    model: Spec
    with_suffix: bool = False
    """The suffix n-gram has its say in each guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptSpec:
    """A model, chain or tree, that learns from what the target says."""

    model: ModelSpec | LowBit | EarlyExit | TreeSpec


Spec = (
    TableSpec
    | ModelSpec
    | LowBit
    | EarlyExit
    | LlamaSpec
    | BlockSpec
    | CombinationSpec
    | HierarchySpec
    | TreeSpec
    | AdaptSpec
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
    if text.startswith(ADAPT + TREE):
        return AdaptSpec(model=TreeSpec(model=_drawing(text.removeprefix(ADAPT + TREE), text)))
    if text.startswith(SUFFIX_TREE):
        return TreeSpec(model=_drawing(text.removeprefix(SUFFIX_TREE), text), with_suffix=True)
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
    """Return the models that transformers reads for it besides the target; of one behind block:, `how` says so."""
    match spec:
        case ModelSpec():
            return (spec,)
        case BlockSpec():
            return (ModelSpec(model=spec.model, how=BLOCK),)
        case CombinationSpec():
            return tuple(model for part in spec.parts for model in models_of(part))
        case HierarchySpec():
            parts = (*spec.helpers, spec.large)
            return tuple(model for part in parts for model in models_of(part))
        case TreeSpec() | AdaptSpec():
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
    *parts, large = _rungs(text.removeprefix(HIERARCHY))
    if not parts or not all(parts) or not large:
        raise ConfigError(
            f"draft: got {text!r}, expected hierarchy:SMALL+MODEL, hierarchy:suffix+MODEL for example"
        )
    return HierarchySpec(
        helpers=tuple(_single(helper, text) for helper in parts), large=_drawing(large, text)
    )


def _rungs(text: str) -> list[str]:
    """Split at each plus beside a word that is no name; of names, which may have one in them, only the first from the second."""
    first, last = list[str](), list[str]()
    while "+" in text and _is_plain(text.partition("+")[0]):
        part, _, text = text.partition("+")
        first.append(part)
    while "+" in text and _is_plain(text.rpartition("+")[2]):
        text, _, part = text.rpartition("+")
        last.insert(0, part)
    return [*first, *([text] if first or last else text.split("+", 1)), *last]


def _is_plain(part: str) -> bool:
    """Return whether a word is no name of a file or model."""
    return part in _CHEAP or part.startswith((LOW_BIT, EARLY_EXIT))


def _growing(part: str, whole: str) -> Spec:
    """Return what can have several guesses for a position."""
    return _single(part, whole) if part.startswith((LLAMA, BLOCK)) else _drawing(part, whole)


def _drawing(part: str, whole: str) -> ModelSpec | LowBit | EarlyExit:
    """Return what draws tokens of the target's vocabulary by itself."""
    spec = _single(part, whole)
    if isinstance(spec, LowBit | EarlyExit) or (isinstance(spec, ModelSpec) and not spec.how):
        return spec
    raise ConfigError(
        f"draft: got {whole!r}, but {part} draws no tokens of the target's vocabulary by itself; expected a model "
        "with the target's tokenizer, low-bit:BITS/GROUP or early-exit:LAYERS there"
    )


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
    if part.startswith(ADAPT):
        return AdaptSpec(model=_drawing(part.removeprefix(ADAPT), whole))
    for how in (LLAMA, BLOCK, COMMON, TEXT):
        if part.startswith(how) and len(part) > len(how):
            return _model(part.removeprefix(how), how)
    if part in ("", "none", COMMON, TEXT, LLAMA, BLOCK) or part.startswith((HIERARCHY, TREE)):
        raise ConfigError(
            f"draft: got {whole!r}, in which {part!r} names no drafter; expected {_KINDS}"
        )
    return ModelSpec(model=part)


def _model(name: str, how: str) -> Spec:
    """Return what a model is after the word before its name."""
    if how == LLAMA:
        return LlamaSpec(file=name)
    return BlockSpec(model=name) if how == BLOCK else ModelSpec(model=name, how=how)
