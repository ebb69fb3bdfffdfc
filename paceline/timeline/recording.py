"""Facts of a session as JSON lines: one object a line, the first one tells the format.

    {"format": "paceline-timeline/1", "prompt_length": 35, "has_tokens": false, "num_left_out": 0}
    {"fact": "Forward", "at_s": 0.1021, "end_s": 0.1093, "position": 36, "num_tokens": 4}

Times are seconds from the session's start. Unless they are asked for, token ids are not in it: they are the user's text.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

from paceline.errors import ConfigError
from paceline.timeline.facts import (
    Downward,
    Fact,
    Facts,
    Forward,
    Step,
    StreamChange,
    Upward,
    whole_parents,
)

FORMAT = "paceline-timeline/1"
MOST_LINES = 1_000_000
"""A longer recording is refused."""

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Fact)}
_HEAD = {"format", "prompt_length", "has_tokens", "num_left_out"}
_TIMES = {"at_s", "end_s", "arrives_s", "sent_s"}


def lines(facts: Facts) -> Iterator[str]:
    """Return the facts as lines, without line ends."""
    head = {
        "format": FORMAT,
        "prompt_length": facts.prompt_length,
        "has_tokens": facts.has_tokens,
        "num_left_out": facts.num_left_out,
    }
    yield json.dumps(head)
    for fact in facts.facts:
        told: dict[str, Any] = {"fact": type(fact).__name__}
        for item in fields(fact):
            value = getattr(fact, item.name)
            if item.name in _TIMES and value is not None:
                value = round(value - facts.began_s, 9)
            if item.name == "at_s" or value != item.default:
                told[item.name] = value
        yield json.dumps(told)


def parse(text: Iterable[str], *, where: str) -> Facts:
    """Return the facts that lines tell.

    Args:
        text: the lines.
        where: where they come from, for messages.

    Raises:
        ConfigError: a line is not what it should be; names it.
    """
    numbered = enumerate(text, start=1)
    head = _object(next(numbered, (1, ""))[1], where=f"{where}:1")
    if head.get("format") != FORMAT:
        raise ConfigError(
            f"{where}:1: format: got {head.get('format')!r}, expected {FORMAT!r}; give a file that --timeline wrote"
        )
    if set(head) != _HEAD:
        raise ConfigError(f"{where}:1: got {sorted(head)}, expected {sorted(_HEAD)}")
    facts: list[Fact] = []
    for number, line in numbered:
        if number > MOST_LINES:
            raise ConfigError(f"{where}: got more than {MOST_LINES} lines")
        facts.append(_fact(_object(line, where=f"{where}:{number}"), where=f"{where}:{number}"))
    _check_shapes(facts, where=where)
    if not isinstance(head["prompt_length"], int) or not isinstance(head["num_left_out"], int):
        raise ConfigError(f"{where}:1: prompt_length, num_left_out: expected whole numbers")
    return replace(
        Facts(began_s=0.0, prompt_length=head["prompt_length"], facts=tuple(facts)),
        has_tokens=bool(head["has_tokens"]),
        num_left_out=head["num_left_out"],
    )


def _object(line: str, *, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: got {type(value).__name__}, expected an object")
    return value


def _fact(value: dict[str, Any], *, where: str) -> Fact:
    kind = _KINDS.get(str(value.pop("fact", None)))
    if kind is None:
        raise ConfigError(f"{where}: fact: expected one of {', '.join(_KINDS)}")
    types = {item.name: str(item.type) for item in fields(kind)}
    for name, given in value.items():
        if name not in types or not _is_right(given, types[name]):
            raise ConfigError(f"{where}: {name}: got {given!r}, which is not of a {kind.__name__}")
        if isinstance(given, list):
            value[name] = tuple(given)
    try:
        fact: Fact = kind(**value)
    except TypeError as error:  # a field is missing
        raise ConfigError(f"{where}: {error}") from error
    return fact


def _check_shapes(facts: Sequence[Fact], *, where: str) -> None:
    """Refuse what goes back in time, parents that were never sent, and flags that belong to no token."""
    num_names, last_s = 0, 0.0
    for number, fact in enumerate(facts, start=2):
        if fact.at_s < last_s:
            raise ConfigError(
                f"{where}:{number}: at_s: got {fact.at_s}, expected at least {last_s}, that of the line before"
            )
        last_s = fact.at_s
        if isinstance(fact, Forward | Step) and fact.end_s < fact.at_s:
            raise ConfigError(f"{where}:{number}: end_s: got {fact.end_s}, expected at least at_s")
        if isinstance(fact, StreamChange) and fact.is_up:
            num_names = 0
        if isinstance(fact, Upward):
            if len(fact.parents) > len(fact.tokens):
                raise ConfigError(f"{where}:{number}: parents: got more than tokens")
            for parent in whole_parents(fact):
                if not 0 <= parent <= num_names:
                    raise ConfigError(
                        f"{where}:{number}: parents: got {parent}, expected 0 to {num_names}, the nodes before it"
                    )
                num_names += 1
        if isinstance(fact, Downward) and len(fact.accepted) not in {0, len(fact.tokens)}:
            raise ConfigError(f"{where}:{number}: accepted: expected one for each token, or none")


def _is_right(given: object, wanted: str) -> bool:
    """Whether a value of JSON fits a field's type as it is written in `paceline.timeline.facts`."""
    match wanted.removeprefix("<class '").removesuffix("'>"):
        case "tuple[int, ...]":
            return isinstance(given, list) and all(type(one) is int for one in given)
        case "tuple[bool, ...]":
            return isinstance(given, list) and all(type(one) is bool for one in given)
        case "bool":
            return isinstance(given, bool)
        case "str":
            return isinstance(given, str)
        case "int":
            return type(given) is int and given >= 0
        case _:  # seconds
            is_number = isinstance(given, int | float) and not isinstance(given, bool)
            return is_number and math.isfinite(float(given))  # type: ignore[arg-type]
