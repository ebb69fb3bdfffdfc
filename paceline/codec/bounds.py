"""The bounds of the schema, and checks that name the field."""

from collections.abc import Sequence
from typing import cast

from paceline.errors import RemoteProtocolError
from paceline.tokens import TokenId

MAX_LABEL_BYTES = 256
"""Names, arithmetic, quantisation and addresses."""
MAX_REASON_BYTES = 64
MAX_MESSAGE_BYTES = 1024
SMALLEST_FLOAT = 2.0**-149
"""The least float32 above 0: what is smaller would arrive as 0, which stands for the neutral value."""
BELOW_ONE = 1.0 - 2.0**-24
"""The greatest float32 below 1."""


def token_ids(ids: Sequence[int]) -> tuple[TokenId, ...]:
    """Return ids as the type the rest of the code uses."""
    # Not one by one: a message of 4 MiB has 800,000, and the event loop waits.
    return cast("tuple[TokenId, ...]", tuple(ids))


def exactly(field: str, value: bytes, size: int) -> bytes:
    """Return `value`, which must have this many bytes; raise RemoteProtocolError naming the field otherwise."""
    if len(value) != size:
        raise RemoteProtocolError(f"{field}: got {len(value)} bytes, expected {size}")
    return value


def at_most(field: str, value: int, bound: int) -> None:
    """Raise RemoteProtocolError naming the field if a value is above its bound."""
    if value > bound:
        raise RemoteProtocolError(f"{field}: got {value}, expected at most {bound}")


def at_least(field: str, value: int, bound: int) -> None:
    """Raise RemoteProtocolError naming the field if a value is below its bound."""
    if value < bound:
        raise RemoteProtocolError(f"{field}: got {value}, expected at least {bound}")


def short(field: str, text: str, bound: int) -> str:
    """Return `text`, which may have this many bytes of UTF-8; raise RemoteProtocolError naming the field otherwise."""
    size = len(text.encode())
    if size > bound:
        raise RemoteProtocolError(f"{field}: got {size} bytes, expected at most {bound}")
    return text


def cut(text: str, bound: int) -> str:
    """Return `text` without what goes beyond `bound` bytes of UTF-8, and without half a character."""
    return text.encode(errors="replace")[:bound].decode(errors="ignore")
