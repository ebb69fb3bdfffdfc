"""A target that says texts which were written down: what they repeat is there to be guessed, as it was when they came about."""

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.tokens import TokenId
from simulator.virtual.target import ToyTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownText:
    """A prompt and what was answered."""

    prompt: tuple[TokenId, ...]
    output: tuple[TokenId, ...]


@dataclass(frozen=True, kw_only=True)
class KnownTarget(ToyTarget):
    """Draws as the texts go on, the first that begins so; anywhere else as a `ToyTarget` does.

    Args:
        texts: with ids below `vocabulary_size`.
    """

    texts: tuple[KnownText, ...]

    def draw(self, text: Sequence[TokenId], path: Sequence[TokenId] = ()) -> TokenId:
        """See `ToyTarget`."""
        said = (*text, *path)
        for known in self.texts:
            begin, output = len(known.prompt), known.output
            place = len(said) - begin
            # What differs at once differs in the last token; most texts are told apart by that.
            if not 0 <= place < len(output) or (place and said[-1] != output[place - 1]):
                continue
            if said[begin:] == output[:place] and said[:begin] == known.prompt:
                return output[place]
        return super().draw(text, path)
