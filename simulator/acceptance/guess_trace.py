"""How a real draft guessed a real target's text: for each token the draft's rank of it, and how sure the draft was.

No text is kept: a rank says nothing of the words. A trace is a JSON file:

    format      "paceline-guess-trace/1"
    sha256      of all else, written as JSON with sorted keys and without spaces
    draft, target, made      names, and how it was recorded
    width       most candidates that the draft has for a position: ranks are 1 to width
    abstains    whether the draft may have no guess: then confidence counts tokens, and is 0 where it had none
    confidence  {"unit": "logits", "step": 0.0625}: one byte counts steps, 255 is that or more
    texts       each with prompt (its id), category, temperature, seed, prompt_tokens, ended (by a stop token),
                ranks (one digit of base 17 for each token: 1 to 9, a to g are ranks 1 to 16, 0 is none of them)
                and confidence (one byte for each token, in base 64)

Each entry is conditioned on the target's own text up to there. A chain's later guesses are made after the draft's own
earlier ones instead; but they count only while those were right, and then both texts are the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paceline.errors import ConfigError

FORMAT = "paceline-guess-trace/1"
MOST_RANKS = 16
MOST_CONFIDENCE = 255
MAX_FILE_BYTES = 256 * 1024 * 1024
_DIGITS = "0123456789abcdefg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """What a byte of confidence means.

    Raises:
        ConfigError: the step is not a number above 0.
    """

    unit: str
    """logits: score of the best candidate minus that of the next. tokens: how far the draft would guess from there."""
    step: float
    """One byte counts this much."""

    def __post_init__(self) -> None:
        """Check the step."""
        if not isinstance(self.step, int | float) or not 0.0 < self.step < math.inf:
            raise ConfigError(f"confidence.step: got {self.step!r}, expected a number above 0")

    def byte(self, value: float) -> int:
        """Return the byte for a value; what is out of range becomes the nearest that there is."""
        return max(0, min(MOST_CONFIDENCE, round(min(value, 1e9) / self.step)))


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessedText:
    """The target's answer to one prompt, as the draft saw it.

    Raises:
        ConfigError: a field is out of its range; names it.
    """

    prompt: str
    """Its id in the prompt file."""
    category: str
    temperature: float
    seed: int
    prompt_tokens: int
    ended: bool
    """The answer ended by itself; else it was cut."""
    ranks: bytes
    """By position: 1 if the draft's best candidate was the target's token, 2 if the next was ...; 0: none was."""
    confidence: bytes
    """By position."""

    def __post_init__(self) -> None:
        """Check every field."""
        where = f"text {self.prompt!r}"
        if not 0.0 <= self.temperature <= 100.0:
            raise ConfigError(
                f"{where}: temperature: got {self.temperature}, expected a number from 0 to 100"
            )
        if self.prompt_tokens < 1:
            raise ConfigError(
                f"{where}: prompt_tokens: got {self.prompt_tokens}, expected at least 1"
            )
        if not self.ranks or max(self.ranks) > MOST_RANKS:
            raise ConfigError(f"{where}: ranks: expected at least one, all from 0 to {MOST_RANKS}")
        if len(self.confidence) != len(self.ranks):
            raise ConfigError(
                f"{where}: confidence: got {len(self.confidence)} values, expected {len(self.ranks)}, one for each rank"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessTrace:
    """A draft and a target on some prompts.

    Raises:
        ConfigError: a field is out of its range; names it.
    """

    draft: str
    target: str
    width: int = MOST_RANKS
    """Most candidates for a position."""
    abstains: bool = False
    """The confidence counts the tokens that the draft would guess in a row; at 0 it had no candidate."""
    confidence: Confidence
    made: Mapping[str, str] = field(default_factory=dict)
    """How: dtype, versions, command ..."""
    texts: tuple[GuessedText, ...]

    def __post_init__(self) -> None:
        """Check every field."""
        if not 1 <= self.width <= MOST_RANKS:
            raise ConfigError(f"width: got {self.width}, expected 1 to {MOST_RANKS}")
        if self.abstains and self.confidence.unit != "tokens":
            raise ConfigError(
                f"confidence.unit: got {self.confidence.unit!r}, expected 'tokens' of a draft that abstains"
            )
        if not self.texts:
            raise ConfigError("texts: got none, expected at least one")
        for text in self.texts:
            if max(text.ranks) > self.width:
                raise ConfigError(
                    f"text {text.prompt!r}: ranks: got {max(text.ranks)}, expected at most {self.width}, the width"
                )

    def chosen(
        self, *, category: str | None = None, temperature: float | None = None
    ) -> tuple[GuessedText, ...]:
        """Return the texts of a category and a temperature; None takes any.

        Raises:
            ConfigError: there are none; says what there is.
        """
        found = tuple(
            text
            for text in self.texts
            if category in (None, text.category) and temperature in (None, text.temperature)
        )
        if not found:
            categories = sorted({text.category for text in self.texts})
            temperatures = sorted({text.temperature for text in self.texts})
            raise ConfigError(
                f"trace of {self.draft}: no text of category {category!r} at temperature {temperature}; there are "
                f"categories {categories} and temperatures {temperatures}"
            )
        return found


def write_trace(path: Path, trace: GuessTrace) -> None:
    """Write a trace file."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "draft": trace.draft,
        "target": trace.target,
        "made": dict(trace.made),
        "width": trace.width,
        "abstains": trace.abstains,
        "confidence": {"unit": trace.confidence.unit, "step": trace.confidence.step},
        "texts": [_text_to_json(text) for text in trace.texts],
    }
    content = {"sha256": _checksum(content)} | content
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_trace(path: Path) -> GuessTrace:
    """Read a trace file.

    Raises:
        ConfigError: it cannot be read, is of another format, or its checksum or a field is wrong; names the field.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, expected a guess trace")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"guess trace: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON in UTF-8: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ConfigError(f"{path}: format: got {found!r}, expected {FORMAT!r}")
    if content.pop("sha256", None) != _checksum(content):
        raise ConfigError(f"{path}: sha256: not that of its content; the file is damaged")
    try:
        return GuessTrace(
            draft=str(content["draft"]),
            target=str(content["target"]),
            made={str(key): str(value) for key, value in content["made"].items()},
            width=int(content["width"]),
            abstains=bool(content["abstains"]),
            confidence=Confidence(
                unit=str(content["confidence"]["unit"]), step=content["confidence"]["step"]
            ),
            texts=tuple(_text_from_json(text) for text in content["texts"]),
        )
    except KeyError as error:
        raise ConfigError(f"{path}: {error.args[0]}: missing") from error
    except (TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise ConfigError(f"{path}: a field is not what it should be: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _text_to_json(text: GuessedText) -> dict[str, Any]:
    return {
        "prompt": text.prompt,
        "category": text.category,
        "temperature": text.temperature,
        "seed": text.seed,
        "prompt_tokens": text.prompt_tokens,
        "ended": text.ended,
        "ranks": "".join(_DIGITS[rank] for rank in text.ranks),
        "confidence": base64.b64encode(text.confidence).decode("ascii"),
    }


def _text_from_json(value: Mapping[str, Any]) -> GuessedText:
    return GuessedText(
        prompt=str(value["prompt"]),
        category=str(value["category"]),
        temperature=float(value["temperature"]),
        seed=int(value["seed"]),
        prompt_tokens=int(value["prompt_tokens"]),
        ended=bool(value["ended"]),
        ranks=bytes(_DIGITS.index(digit) for digit in value["ranks"]),
        confidence=base64.b64decode(value["confidence"], validate=True),
    )


def _checksum(content: Mapping[str, Any]) -> str:
    packed = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(packed.encode()).hexdigest()
