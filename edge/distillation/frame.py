"""The tokens that a chat template puts around what user and model say.

Found by comparing two conversations that differ in one place, so that no template has to be understood.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.drafters.prefix import common_length
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import InvalidRequestError
from paceline.tokens import TokenId

Tokens = tuple[TokenId, ...]


class ChatFrame:
    """Turns prompts into tokens as the target's users do."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.stop_tokens = frozenset(tokenizer.stop_tokens)

    def opening(self, prompt: str, *, system: str | None) -> Tokens:
        """Return the tokens up to the answer; a template that knows no system prompt goes without."""
        user = {"role": "user", "content": prompt}
        if system is not None:
            try:
                return self._tokenizer.encode_chat([{"role": "system", "content": system}, user])
            except InvalidRequestError:
                pass
        return self._tokenizer.encode_chat([user])

    def blank_prompt(self, *, system: str | None) -> tuple[Tokens, Tokens]:
        """Return what stands before and after a user's first words, up to the answer."""
        one = self.opening("quick", system=system)
        two = self.opening("Zebra", system=system)
        before = common_length(one, two)
        after = common_length(one[::-1], two[::-1])
        return one[:before], one[len(one) - after :]

    def following(self, prompt: str) -> Tokens | None:
        """Return what stands between an answer's last word and the next answer, or None if that depends on the text.

        The first of these tokens ends the answer.
        """
        asked = [{"role": "user", "content": "quick"}]
        answered = [*asked, {"role": "assistant", "content": "Zebra"}]
        try:
            before = self._tokenizer.encode_chat(asked)
            whole = self._tokenizer.encode_chat([*answered, {"role": "user", "content": prompt}])
        except InvalidRequestError:
            return None
        rest = whole[len(before) :]
        ends = [place for place, token in enumerate(rest) if token in self.stop_tokens]
        if whole[: len(before)] != before or not ends:
            return None
        return rest[ends[0] :]


def is_looping(tokens: Sequence[TokenId], *, longest: int = 24, length: int = 72) -> bool:
    """Return whether the last `length` tokens repeat one run of at most `longest` tokens.

    Text that has run into a loop stays there and teaches nothing that its first rounds did not.
    """
    if len(tokens) < length:
        return False
    tail = list(tokens[-length:])
    return any(tail[period:] == tail[:-period] for period in range(1, longest + 1))
