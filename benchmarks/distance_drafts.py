"""Recorded drafts of benchmarks/distance.py: guesses of the quality of a real pair of models, about a real target's text.

The drafter knows what the target will draw, from earlier answers to the same prompt, and has it among its candidates
where a recording of a real draft has (`simulator.acceptance`). So draft and target may be of any quality and speed that was ever
recorded, while all that the verifier, the client and the link do is real. It says nothing about how to make such a draft.
"""

import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from distance_cells import Draft

from paceline.tokens import TokenId
from simulator.acceptance.chances import RankChances
from simulator.acceptance.guess_trace import GuessedText, GuessTrace
from simulator.acceptance.recordings import recorded_trace
from simulator.cost import StepCost
from simulator.virtual.target import hashed
from simulator.virtual.tree_draft import MOST_CANDIDATES, SimulatedTreeDrafter


class Sleeping:
    """A call of a recorded draft takes its time asleep: the device that it stands for is another machine."""

    def spend(self, seconds: float) -> float:
        """See `Spends`."""
        time.sleep(seconds)
        return seconds


class KnownTexts:
    """What the target draws after a prompt, as far as that is known.

    Rounding may take a bfloat16 target one way or the other where two tokens are nearly equal, so there are several texts. Where
    they part, the one that came first counts, until the committed text says otherwise.

    Args:
        prompt_length: tokens.
        outputs: the likeliest first.
        vocabulary_size: ids are below it.
    """

    def __init__(
        self,
        prompt_length: int,
        outputs: Iterable[Sequence[TokenId]],
        *,
        vocabulary_size: int,
    ) -> None:
        self.vocabulary_size = vocabulary_size
        self._prompt_length = prompt_length
        self._outputs = [tuple(output) for output in outputs]
        self._found: tuple[tuple[TokenId, ...], tuple[TokenId, ...]] = ((), ())

    def draw(self, text: Sequence[TokenId], path: Sequence[TokenId] = ()) -> TokenId:
        """See `Draws`. Where nothing is known, some token that is hardly ever right."""
        begin = (*text[self._prompt_length :], *path)
        output = self._output(begin)
        if len(output) > len(begin):
            return output[len(begin)]
        return TokenId(hashed(2, len(begin), begin[-4:]) % self.vocabulary_size)

    def _output(self, begin: tuple[TokenId, ...]) -> tuple[TokenId, ...]:
        """Return the first output that begins so; empty if there is none."""
        before, output = self._found
        if len(before) <= len(begin) and output and output[: len(begin)] == begin:
            return output
        output = next((one for one in self._outputs if one[: len(begin)] == begin), ())
        self._found = (begin, output)
        return output


def trace_of(draft: Draft, *, temperature: float) -> GuessTrace:
    """Return the guesses of a recorded draft: of one pair, or of each position of the same text from one of two.

    Greedy answers have greedy guesses; others those recorded at temperature 1.
    """
    recorded = 0.0 if temperature == 0.0 else 1.0
    first, *rest = (recorded_trace(name) for name in draft.traces)
    texts = first.chosen(temperature=recorded)
    if rest:
        (other,) = rest
        assert first.confidence == other.confidence, "both in logits"
        partners = {text.prompt: text for text in other.chosen(temperature=recorded)}
        texts = tuple(
            _mixed(text, partners[text.prompt], share=draft.first_share) for text in texts
        )
    return replace(first, draft=draft.name, texts=texts)


def _mixed(first: GuessedText, other: GuessedText, *, share: float) -> GuessedText:
    """Take every position from one of two drafts that read the same text, as a coin says."""
    size = min(len(first.ranks), len(other.ranks))
    drawn = [
        zlib.crc32(f"{first.prompt} {index}".encode()) / 2**32 < share for index in range(size)
    ]
    ranks, confidence = (
        bytes(a if is_first else b for a, b, is_first in zip(one, two, drawn, strict=False))
        for one, two in ((first.ranks, other.ranks), (first.confidence, other.confidence))
    )
    return replace(first, ranks=ranks, confidence=confidence)


def recorded_drafter(
    draft: Draft, *, target: KnownTexts, category: str, temperature: float
) -> SimulatedTreeDrafter:
    """Return a drafter for one prompt; its forward passes take real time."""
    trace = trace_of(draft, temperature=temperature)
    return SimulatedTreeDrafter(
        target,
        trace=trace,
        chances=RankChances(trace, width=MOST_CANDIDATES),
        category=category or None,
        occupation=Sleeping(),
        cost=StepCost(fixed_s=draft.forward_s, per_row_s=0.0),
    )
