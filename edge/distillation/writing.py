"""Writes a shard: many conversations in step until all are done. The same settings give the same text.

A shard is the unit of resumption: which conversations share a step decides how sums are rounded, so a shard that was
killed half way begins again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.distillation.conversation import Conversation, begin
from edge.distillation.exclusion import Exclusion
from edge.distillation.frame import ChatFrame
from edge.distillation.laws import draw, top_laws
from edge.distillation.scripts import Script
from edge.distillation.slots import Feed, Slots
from paceline.engine.tokenizer import Tokenizer
from paceline.tokens import TokenId

PIECE_ROWS = 384
"""Prompt tokens that run beside the others' next tokens in one step."""
DRAINED = 0.2
"""When no conversation waits and this share of the slots is left, the rest is cut: few rows cost as much as many."""

OnStep = Callable[[int], None]
"""Told how many tokens have run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingSettings:
    """How text is written."""

    num_slots: int = 96
    max_length: int = 1024
    """Most tokens of a conversation."""
    top_k: int = 24
    """Likeliest tokens whose log-probabilities are kept at each position."""


class Writer:
    """Writes conversations with a target.

    Args:
        slots: the target.
        tokenizer: the target's.
        settings: the same that `slots` was made with.
        exclusion: conversations that share a run of words with it are dropped.
    """

    def __init__(
        self, slots: Slots, *, tokenizer: Tokenizer, settings: WritingSettings, exclusion: Exclusion
    ) -> None:
        self._slots = slots
        self._tokenizer = tokenizer
        self._settings = settings
        self._exclusion = exclusion
        self._frame = ChatFrame(tokenizer)

    def write(
        self, scripts: Sequence[Script], on_step: OnStep = lambda _: None
    ) -> tuple[list[Conversation], dict[str, int]]:
        """Write all of some scripts; return those kept in order of their numbers, and counts by what became of them."""
        counts: Counter[str] = Counter()
        ready = [
            begin(
                script,
                frame=self._frame,
                tokenizer=self._tokenizer,
                max_length=self._settings.max_length,
            )
            for script in scripts
        ]
        waiting = [item for item in ready if item is not None]
        counts["too_long"] = len(ready) - len(waiting)
        self._run(deque(_ordered(waiting)), on_step)
        kept = []
        for item in sorted(waiting, key=lambda item: item.script.number):
            fate = self._fate(item)
            counts[fate] += 1
            if fate == "kept":
                kept.append(item)
        return kept, dict(counts)

    def _fate(self, item: Conversation) -> str:
        if item.num_run < 1 or len(item.tokens) < 2:
            return "empty"
        return (
            "overlapping"
            if self._exclusion.matches(self._tokenizer.decode(item.tokens))
            else "kept"
        )

    def _run(self, waiting: deque[Conversation], on_step: OnStep) -> None:
        running: dict[int, Conversation] = {}
        few = max(1.0, DRAINED * min(self._settings.num_slots, len(waiting)))
        while True:
            for slot in range(self._settings.num_slots):
                if waiting and slot not in running:
                    running[slot] = waiting.popleft()
            if len(running) < few and not waiting:
                _cut(running)
                return
            on_step(self._step(running))
            for slot in [slot for slot, item in running.items() if item.is_done]:
                del running[slot]

    def _step(self, running: dict[int, Conversation]) -> int:
        """Run one step of all conversations; return its number of rows."""
        budget = PIECE_ROWS
        feeds: list[Feed] = []
        for slot, item in sorted(running.items()):
            pending = item.pending
            if len(pending) > 1:
                pending = pending[:budget]
                budget -= len(pending)
            if pending:
                feeds.append(Feed(slot=slot, start=item.num_run, tokens=pending))
        logits = self._slots.run(feeds)
        ids, logprobs = top_laws(logits, k=self._settings.top_k)
        kept_ids, kept_logprobs = ids.cpu().numpy(), logprobs.cpu().numpy()
        drawing: list[tuple[int, Conversation]] = []
        row = 0
        for feed in feeds:
            item = running[feed.slot]
            end = row + len(feed.tokens)
            item.note_laws(kept_ids[row:end], kept_logprobs[row:end])
            if item.num_run == len(item.tokens) and item.draws:
                drawing.append((end - 1, item))
            row = end
        if drawing:
            temperatures = [item.temperature for _, item in drawing]
            noise = [float(item.rng.random()) for _, item in drawing]
            drawn = draw(
                logits[[place for place, _ in drawing]], temperatures=temperatures, noise=noise
            )
            for (_, item), token in zip(drawing, drawn, strict=True):
                item.note_draw(TokenId(token))
        return row


def _longest(item: Conversation) -> int:
    """Most tokens that a conversation may still take."""
    return len(item.tokens) + sum(turn.max_tokens for turn in item.script.turns)


def _ordered(waiting: Sequence[Conversation]) -> list[Conversation]:
    """Long ones first, so that all end at about the same time; those that are only read, evenly between them.

    Reading fills steps up; many readers at once would hold slots and wait for each other.
    """
    writers = sorted(
        (item for item in waiting if item.draws),
        key=lambda item: (-_longest(item), item.script.number),
    )
    readers = [item for item in waiting if not item.draws]
    places = [((i + 0.5) / max(1, len(writers)), 0, item) for i, item in enumerate(writers)]
    places += [((i + 0.5) / max(1, len(readers)), 1, item) for i, item in enumerate(readers)]
    return [item for _, _, item in sorted(places, key=lambda place: place[:2])]


def _cut(running: dict[int, Conversation]) -> None:
    """Keep what has run; a conversation that is still being fed ends where it stands."""
    for item in running.values():
        del item.tokens[item.num_run + 1 :], item.roles[item.num_run + 1 :]
