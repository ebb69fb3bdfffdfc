"""What a question brings, in virtual and in real time alike."""

from dataclasses import dataclass

from paceline.client.outcome import EndReason, Statistics
from paceline.errors import PacelineError

DEFAULT_TOKENS = 64

MANY = 1009
"""More edges, and more questions, than a test usually has; tells seeds apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A text, and what it took."""

    text: str
    num_tokens: int
    finish_reason: EndReason
    statistics: Statistics
    """Times are those that the test runs in."""


class AskingFailedError(PacelineError):
    """The edge gave up on an answer; its own words are the message."""

    reason = "ASKING_FAILED"


def asking_seed(seed: int, edge: int, number: int) -> int:
    """Return the seed of the draws of one question: the same in virtual and in real time.

    Args:
        seed: of the world.
        edge: number of the edge.
        number: how many were asked there before.
    """
    return ((seed * MANY + edge) * MANY + number) % 2**63
