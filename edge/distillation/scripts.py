"""Plans what the target is to write: which prompt, how long, how hot. Pure: a script depends on seed and number alone.

Half of the answers are greedy or nearly so, because that is what most users run and where a draft earns most; the rest
spreads to 1.1, because the text of a hot target leaves the paths that greedy text knows, and drafts are to work there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from edge.distillation import templates, words
from edge.distillation.sentences import LANGUAGES, sentences
from edge.distillation.sums import word_problem

TEMPERATURES = (0.0, 0.3, 0.6, 0.8, 1.0, 1.1)
TEMPERATURE_WEIGHTS = (0.47, 0.12, 0.16, 0.12, 0.11, 0.02)
CATEGORIES = {
    "self": 0.07,
    "question": 0.07,
    "translation": 0.07,
    "summary": 0.055,
    "rag": 0.06,
    "math": 0.07,
    "code": 0.06,
    "extract": 0.02,
    "rewrite": 0.02,
    "writing": 0.03,
    "roleplay": 0.02,
    "passage": 0.025,
    "continuation": 0.03,
    "reading": 0.4,
}
"""Share of each kind of script. reading: licensed text, where the target writes nothing and only its laws are kept. That
takes less than a third of the time of writing, and what a student lacks first is text that it has not seen."""

_TEMPLATES = {
    "question": templates.QUESTION,
    "translation": templates.TRANSLATION,
    "summary": templates.SUMMARY,
    "rag": templates.RAG,
    "extract": templates.EXTRACT,
    "rewrite": templates.REWRITE,
    "writing": templates.WRITING,
    "roleplay": templates.ROLEPLAY,
    "code": templates.CODE,
    "passage": templates.PASSAGE,
}
_LENGTHS = {
    "translation": 96,
    "summary": 160,
    "rag": 128,
    "question": 192,
    "extract": 160,
    "passage": 448,
}
_USUAL_LENGTH = 256
FOLLOWED_UP = 0.2
"""Share of conversations that go on after the first answer."""
OWN_SYSTEM = 0.35
"""Share of conversations with a system prompt of ours; the others have the chat template's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One prompt and its answer."""

    prompt: str | None
    """What the user says; None: the target writes that itself."""
    max_tokens: int
    """Most tokens of the answer; 0: none is written."""
    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One conversation to be written, or a plain text to be continued."""

    number: int
    category: str
    seed: tuple[int, ...]
    """Of the noise of its draws."""
    system: str | None
    turns: tuple[Turn, ...]
    is_plain: bool = False
    """The prompt is a text to be continued as it stands, without the chat template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """Texts that scripts may quote."""

    passages: Sequence[str]
    """Written by the target itself in earlier shards."""
    documents: Sequence[str]
    """Licensed text, or the user's own; it is continued as it stands."""
    prose: Sequence[str] = ()
    """Those of the documents that are not code: fit to be asked about."""
    prompts: Sequence[str] = ()
    """The user's own prompts; a third of the scripts uses them if there are any."""


def script(number: int, *, seed: int, materials: Materials, can_chat: bool) -> Script:
    """Return script `number` of a run.

    Args:
        number: counts all scripts of the run.
        seed: of the run.
        materials: texts to quote.
        can_chat: whether the target has a chat template; without one everything is a plain text.
    """
    rng = np.random.default_rng((seed, number))
    category = _category(rng, materials)
    temperature = float(rng.choice(TEMPERATURES, p=TEMPERATURE_WEIGHTS))
    if category in ("continuation", "reading"):
        turns: tuple[Turn, ...] = (_excerpt(rng, category, temperature, materials),)
    else:
        prompt = None if category == "self" else _prompt(rng, category, materials)
        turns = (Turn(prompt=prompt, max_tokens=_length(rng, category), temperature=temperature),)
        while can_chat and rng.random() < FOLLOWED_UP and len(turns) < 4:
            turns += (_follow_up(rng, temperature, materials),)
    is_plain = category in ("continuation", "reading") or not can_chat
    system = None
    if not is_plain and rng.random() < OWN_SYSTEM:
        system = _pick(rng, words.SYSTEMS)
    return Script(
        number=number,
        category=category,
        seed=(seed, number, 1),
        system=system,
        turns=turns,
        is_plain=is_plain,
    )


def _category(rng: Generator, materials: Materials) -> str:
    if materials.prompts and rng.random() < 1 / 3:
        return "given"
    weights = np.array(list(CATEGORIES.values()))
    if not materials.documents:
        weights[[list(CATEGORIES).index(name) for name in ("continuation", "reading")]] = 0
    category = str(rng.choice(list(CATEGORIES), p=weights / weights.sum()))
    # What is to be quoted has to be written first.
    return "passage" if not materials.passages and category in ("summary", "rag") else category


def _length(rng: Generator, category: str) -> int:
    usual = _LENGTHS.get(category, _USUAL_LENGTH)
    return int(usual * rng.uniform(0.5, 1.25))


def _follow_up(rng: Generator, temperature: float, materials: Materials) -> Turn:
    prompt = _fill(rng, _pick(rng, templates.FOLLOW_UPS), materials)
    return Turn(prompt=prompt, max_tokens=int(rng.integers(48, 160)), temperature=temperature)


def _excerpt(rng: Generator, category: str, temperature: float, materials: Materials) -> Turn:
    """A piece of a document from some line on; characters, because tokens are the tokenizer's business."""
    text = _pick(rng, materials.documents)
    length = int(rng.integers(1200, 1800) if category == "reading" else rng.integers(150, 900))
    prompt = _piece(rng, text, length)
    max_tokens = 0 if category == "reading" else int(rng.integers(64, 224))
    return Turn(prompt=prompt, max_tokens=max_tokens, temperature=temperature)


def _prompt(rng: Generator, category: str, materials: Materials) -> str:
    if category == "given":
        return _pick(rng, materials.prompts)
    if category == "math":
        return word_problem(rng)
    return _fill(rng, _pick(rng, _TEMPLATES[category]), materials)


def _fill(rng: Generator, template: str, materials: Materials) -> str:
    """Put words into a template. Only what it names costs draws, so each field is drawn when it is asked for."""
    texts = sentences(rng, count=int(rng.integers(1, 4)))
    source = int(rng.choice(len(LANGUAGES), p=(0.25, 0.45, 0.1, 0.1, 0.1)))
    others = [name for name in LANGUAGES if name != LANGUAGES[source]]
    target = "English" if source and rng.random() < 0.8 else _pick(rng, others)
    needs_source = "{source}" in template or "{target}" in template
    values = {
        "topic": _pick(rng, words.TOPICS),
        "topic2": _pick(rng, words.TOPICS),
        "audience": _pick(rng, words.AUDIENCES),
        "format": _pick(rng, words.FORMATS),
        "kind": _pick(rng, words.KINDS),
        "job": _pick(rng, words.JOBS),
        "place": _pick(rng, words.PLACES),
        "name": _pick(rng, words.NAMES),
        "name2": _pick(rng, words.NAMES),
        "name3": _pick(rng, words.NAMES),
        "code": _pick(rng, words.CODE_LANGUAGES),
        "task": _pick(rng, words.CODE_TASKS),
        "question": _pick(rng, templates.PASSAGE_QUESTIONS),
        "number": str(rng.integers(1, 6)),
        "a": str(rng.integers(0, 20)),
        "b": str(rng.integers(0, 20)),
        "source": LANGUAGES[source],
        "target": target,
        "sentence": texts[source if needs_source else 0],
        "passage": _passage(rng, materials),
        "other": _passage(rng, materials),
    }
    return template.format(**values)


def _passage(rng: Generator, materials: Materials) -> str:
    """Some text to quote: mostly the target's own, sometimes licensed text; sentences if there is neither yet."""
    own, licensed = materials.passages, materials.prose
    if own and (not licensed or rng.random() < 0.8):
        return _pick(rng, own)[: int(rng.integers(500, 2200))]
    if licensed:
        return _piece(rng, _pick(rng, licensed), int(rng.integers(300, 1200)))
    return sentences(rng, count=8)[0]


def _piece(rng: Generator, text: str, length: int) -> str:
    """Return about `length` characters of a text, from the beginning of a line on."""
    start = int(rng.integers(max(1, len(text) - length)))
    line = text.rfind("\n", 0, start) + 1
    return text[line : line + length]


def _pick(rng: Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]
