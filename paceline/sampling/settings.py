"""How tokens are drawn: the settings of one generation, checked when they are made."""

from dataclasses import dataclass
from math import isfinite

from paceline.errors import InvalidRequestError
from paceline.tokens import TokenId

MAX_SEED = 2**64 - 1
MAX_LOGIT_BIASES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """Filters and noise of one generation. The defaults draw from the target's own distribution.

    Raises:
        InvalidRequestError: a field is out of its range.
    """

    temperature: float = 1.0
    """0 draws the most likely token; at most 100."""

    top_k: int = 0
    """Keep this many most likely tokens; 0 keeps all."""

    top_p: float = 1.0
    """Keep the most likely tokens whose probabilities sum to this; in (0, 1]."""

    min_p: float = 0.0
    """Drop tokens less likely than this times the most likely one; in [0, 1)."""

    repetition_penalty: float = 1.0
    """Divide positive logits of tokens in the output by this, multiply negative ones; in (0, 100]."""

    presence_penalty: float = 0.0
    """Subtract from logits of tokens in the output; in [-100, 100]."""

    frequency_penalty: float = 0.0
    """Subtract from a token's logit once per occurrence in the output; in [-100, 100]."""

    logit_bias: tuple[tuple[TokenId, float], ...] = ()
    """Added to the logits of these tokens; each in [-1000, 1000], ids distinct and ascending."""

    seed: int = 0
    """Seed of the shared noise; 0 <= seed < 2**64. Same seed, same text."""

    def __post_init__(self) -> None:
        """Check every field."""
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 0, 2**31 - 1)
        _within("top_p", self.top_p, 0.0, 1.0, open_below=True)
        _within("min_p", self.min_p, 0.0, 1.0, open_above=True)
        _within("repetition_penalty", self.repetition_penalty, 0.0, 100.0, open_below=True)
        _within("presence_penalty", self.presence_penalty, -100.0, 100.0)
        _within("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        _within("seed", self.seed, 0, MAX_SEED)
        if len(self.logit_bias) > MAX_LOGIT_BIASES:
            raise InvalidRequestError(
                f"logit_bias: got {len(self.logit_bias)} entries, at most {MAX_LOGIT_BIASES} are allowed"
            )
        last = -1
        for token, bias in self.logit_bias:
            if token <= last:
                raise InvalidRequestError(
                    f"logit_bias: token ids must be distinct and ascending, got {token} after {last}"
                )
            last = token
            _within(f"logit_bias[{token}]", bias, -1000.0, 1000.0)

    @property
    def is_greedy(self) -> bool:
        """The draw has no noise."""
        return self.temperature == 0.0


def _within(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_below: bool = False,
    open_above: bool = False,
) -> None:
    """Raise unless low <= value <= high, with the open ends excluded."""
    below = value <= low if open_below else value < low
    above = value >= high if open_above else value > high
    if below or above or not isfinite(value):
        left, right = "(" if open_below else "[", ")" if open_above else "]"
        raise InvalidRequestError(
            f"{name}: got {value}, expected a number in {left}{low}, {high}{right}"
        )
