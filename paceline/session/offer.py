"""What a session has to verify now."""

from dataclasses import dataclass

from paceline.tokens import TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Live nodes below the committed text, a parent before its children, ready to be rows of a forward."""

    tokens: tuple[TokenId, ...]
    parents: tuple[int, ...]
    """Index into `tokens`, or -1 for the committed end."""
