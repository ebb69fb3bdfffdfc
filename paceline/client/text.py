"""Stop strings, and text held back until it is certain that none begins in it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from paceline.client.outcome import Piece
from paceline.errors import InvalidRequestError

MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Pieces that are certain now, and whether a stop string ended the text."""

    pieces: tuple[Piece, ...] = ()
    stopped: bool = False


class StopStrings:
    """Passes pieces on as soon as no stop string can begin in their text any more.

    Works token by token, so where a text ends does not depend on how tokens were grouped into commits.

    Raises:
        InvalidRequestError: an empty or too long stop string, or too many.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if len(stops) > MAX_STOP_STRINGS:
            raise InvalidRequestError(
                f"stop: got {len(stops)} stop strings, at most {MAX_STOP_STRINGS} are allowed"
            )
        for stop in stops:
            if not 0 < len(stop) <= MAX_STOP_CHARACTERS:
                raise InvalidRequestError(
                    f"stop: got a string of {len(stop)} characters, expected 1 to {MAX_STOP_CHARACTERS}"
                )
        self._stops = tuple(stops)
        self._held: list[Piece] = []
        self._text = ""

    def push(self, piece: Piece) -> Progress:
        """Take the next piece."""
        self._held.append(piece)
        self._text += piece.text
        ends = [at for stop in self._stops if (at := self._text.find(stop)) >= 0]
        if ends:
            return Progress(pieces=self._cut(min(ends)), stopped=True)
        return Progress(pieces=self._release(len(self._text) - self._doubtful()))

    def flush(self) -> tuple[Piece, ...]:
        """Return what was held back: no stop string was completed."""
        held, self._held, self._text = tuple(self._held), [], ""
        return held

    def _doubtful(self) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        return max(
            (
                length
                for stop in self._stops
                for length in range(1, min(len(stop), len(self._text) + 1))
                if self._text.endswith(stop[:length])
            ),
            default=0,
        )

    def _release(self, certain: int) -> tuple[Piece, ...]:
        """Take the held pieces whose text lies within the first `certain` characters."""
        end = count = 0
        for piece in self._held:
            if end + len(piece.text) > certain:
                break
            end += len(piece.text)
            count += 1
        released, self._held = tuple(self._held[:count]), self._held[count:]
        self._text = self._text[end:]
        return released

    def _cut(self, end: int) -> tuple[Piece, ...]:
        """Take all held pieces, their text cut at `end`."""
        pieces = []
        for piece in self.flush():
            pieces.append(replace(piece, text=piece.text[: max(0, end)]))
            end -= len(piece.text)
        return tuple(pieces)
