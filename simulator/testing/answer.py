"""What a question brings, in virtual and in real time alike."""

from dataclasses import dataclass

from paceline.client.outcome import EndReason, Statistics
from paceline.errors import PacelineError

DEFAULT_TOKENS = 64


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
