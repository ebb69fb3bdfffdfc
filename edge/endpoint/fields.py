"""Reads single fields of a request: the right type, or an error that names the field."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

from edge.endpoint.failures import bad_request
from paceline.messages import MAX_LOGPROBS
from paceline.prompts import ROLES, Message
from paceline.tokens import TokenId

MAX_STOP_STRINGS = 16
"""OpenAI allows 4; other local servers allow more."""
MAX_STOP_CHARACTERS = 1000


def number(body: Mapping[str, Any], name: str, default: float) -> float:
    """Return a number; whoever uses it checks its range."""
    value = body.get(name)
    if value is None:
        return default
    return _finite(value, name, shown=_shown(value))


def _finite(value: Any, name: str, *, shown: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # JSON's whole numbers may have any length
            if math.isfinite(number := float(value)):
                return number
    raise bad_request(name, f"got {shown}, expected a number")


def integer(body: Mapping[str, Any], name: str, default: int | None) -> int | None:
    """Return a whole number; whoever uses it checks its range."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():  # JSON has one type of number
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_request(name, f"got {_shown(value)}, expected a whole number")
    return value


def boolean(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """Return true or false."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad_request(name, f"got {_shown(value)}, expected true or false")
    return value


def seed(body: Mapping[str, Any], default: int) -> int:
    """Return the seed; OpenAI's are signed 64-bit numbers, ours unsigned, so negative ones wrap round."""
    value = integer(body, "seed", default)
    assert value is not None
    if not -(2**63) <= value < 2**64:
        raise bad_request("seed", f"got {value}, expected a whole number of 64 bits")
    return value % 2**64


def stop_strings(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts that end the answer."""
    value = body.get("stop")
    strings = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(entry, str) for entry in strings):
        raise bad_request("stop", f"got {_shown(value)}, expected a text or a list of texts")
    if len(strings) > MAX_STOP_STRINGS:
        raise bad_request("stop", f"got {len(strings)} texts, at most {MAX_STOP_STRINGS} work")
    if not all(0 < len(entry) <= MAX_STOP_CHARACTERS for entry in strings):
        raise bad_request("stop", f"each text must have 1 to {MAX_STOP_CHARACTERS} characters")
    return tuple(strings)


def max_tokens(body: Mapping[str, Any], *names: str) -> int | None:
    """Return the bound on the answer's tokens; the first of `names` that is there counts."""
    for name in names:
        value = integer(body, name, None)
        if value is None:
            continue
        if value < 1:
            raise bad_request(name, f"got {value}, expected at least 1")
        return value
    return None


def logit_bias(body: Mapping[str, Any]) -> tuple[tuple[TokenId, float], ...]:
    """Return the biases by token, in ascending order; JSON's keys are texts."""
    value = body.get("logit_bias")
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise bad_request("logit_bias", f"got {_shown(value)}, expected an object")
    biases: dict[TokenId, float] = {}
    for key, bias in value.items():
        if not key.isascii() or not key.isdigit() or len(key) > 9:
            raise bad_request("logit_bias", f"got the key {_shown(key)}, expected a token id")
        shown = f"{_shown(bias)} for {key}"
        biases[TokenId(int(key))] = _finite(bias, "logit_bias", shown=shown)
    return tuple(sorted(biases.items()))


def num_chat_logprobs(body: Mapping[str, Any]) -> int | None:
    """Return how many alternatives are wanted beside each token's own probability; none: no probabilities."""
    wanted = boolean(body, "logprobs", default=False)
    value = integer(body, "top_logprobs", None)
    if value is None:
        return 0 if wanted else None
    if not wanted:
        raise bad_request("top_logprobs", "works only together with `logprobs: true`")
    if not 0 <= value <= MAX_LOGPROBS:
        raise bad_request("top_logprobs", f"got {value}, expected 0 to {MAX_LOGPROBS}")
    return value


def include_usage(body: Mapping[str, Any], *, stream: bool) -> bool:
    """Return whether the stream ends with a chunk that counts tokens."""
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise bad_request("stream_options", "works only together with `stream: true`")
    if not isinstance(options, dict):
        raise bad_request("stream_options", f"got {_shown(options)}, expected an object")
    # Obfuscation pads events against eavesdroppers who see only their sizes: needless on one machine.
    unknown = set(options) - {"include_usage", "include_obfuscation"}
    if unknown:
        raise bad_request("stream_options", f"{min(unknown)!r} is not known")
    return boolean(options, "include_usage", default=False)


def messages(body: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return the conversation. A developer is a system; the parts of a content must be texts."""
    value = body.get("messages")
    if not isinstance(value, list) or not value:
        raise bad_request("messages", "expected a list that is not empty")
    return tuple(_message(entry, where=f"messages[{index}]") for index, entry in enumerate(value))


def _message(entry: Any, *, where: str) -> Message:
    if not isinstance(entry, dict):
        raise bad_request(where, f"got {_shown(entry)}, expected an object")
    role = "system" if entry.get("role") == "developer" else entry.get("role")
    if role not in ROLES:
        known = ", ".join((*ROLES, "developer"))
        raise bad_request(f"{where}.role", f"got {_shown(role)}, expected one of {known}")
    for name in ("tool_calls", "function_call", "audio"):
        if entry.get(name):
            raise bad_request(f"{where}.{name}", "is not supported")
    return Message(role=role, content=_content(entry.get("content"), where=f"{where}.content"))


def _content(value: Any, *, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise bad_request(where, f"got {_shown(value)}, expected a text or a list of text parts")
    texts = []
    for index, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            raise bad_request(
                f"{where}[{index}]", f"got {_shown(kind)}, only parts of type 'text' work"
            )
        if not isinstance(part.get("text"), str):
            raise bad_request(f"{where}[{index}].text", "expected a text")
        texts.append(part["text"])
    return "".join(texts)


def _shown(value: Any) -> str:
    """Return a value for a message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
