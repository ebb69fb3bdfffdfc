"""Ids to text piece by piece.

Text comes out as soon as it cannot change any more. An unfinished character shows as U+FFFD at the end of what has
been decoded so far; it is held back until the bytes that finish it arrive, or until the end. Decoding starts again a
little before what is new, never at the beginning, because a decoder may treat a first token in its own way (many drop
a leading space).

The pieces joined are `Tokenizer.decode` of all ids. One exception: tokenizers with byte fallback (Llama 2) decode a run of
byte tokens as a whole, so a run that turns out broken only after a valid beginning has had that beginning sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from paceline.engine.tokenizer import Tokenizer
from paceline.tokens import TokenId

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """One text as it grows."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[TokenId] = []
        """The ids of the last stable piece, then those that came since."""
        self._num_settled = 0
        """Ids of the window that belong to the last stable piece."""
        self._sent = ""
        """What of the window's text was handed out."""

    def feed(self, tokens: Sequence[TokenId]) -> str:
        """Take the next ids; returns the text that became certain, often of several ids at once, perhaps none."""
        return "".join(self._feed_one(token) for token in tokens)

    def finish(self) -> str:
        """The text that was held back. Nothing may be fed afterwards."""
        return self._send(self._tokenizer.decode(self._window))

    def _feed_one(self, token: TokenId) -> str:
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        stable = text.rstrip(_UNFINISHED)
        if len(stable) < len(text):
            return self._send(stable)
        piece = self._send(text)
        if piece:
            # Settled: the next window starts with the ids of this piece.
            del self._window[: self._num_settled]
            self._num_settled = len(self._window)
            self._sent = self._tokenizer.decode(self._window)
        return piece

    def _send(self, text: str) -> str:
        if len(text) <= len(self._sent) or not text.startswith(self._sent):
            return ""
        piece = text[len(self._sent) :]
        self._sent = text
        return piece
