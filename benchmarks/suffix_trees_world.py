"""Real drafts on real answers in virtual time: edges with a tree, with and without n-gram, and verifiers that guess themselves or do not."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from math import log
from typing import Any

from adapter_memory import Answer
from race_drafts import COSTS, START, RecordedTarget, Text

from cloud.scheduler import RaceDrafting, SchedulerSettings
from edge.drafters.model import ModelDrafter
from edge.drafters.suffix_tree import SuffixTreeDrafter
from edge.drafters.tree import TreeDrafter, TreeModelDraft
from edge.steering import LengthPolicy
from paceline.client import DraftingSettings
from paceline.client.outcome import Statistics
from paceline.drafter import Drafter, Guess
from paceline.sampling.settings import SamplingSettings
from paceline.session.growth import Growth
from paceline.tokens import TokenId
from simulator.cost import StepCost, Work
from simulator.notation import parse_network
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.events import EventLog
from simulator.virtual.machine import Occupation
from simulator.virtual.model import ModelSettings
from simulator.virtual.parts import AnyTarget
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run

PASS = StepCost(fixed_s=0.0028, per_row_s=0.0009)
"""Of the draft, at 256 tokens of context (`benchmarks/draft_forward.py`)."""
RTTS_MS = (10, 100)
MOST_TOKENS = 48
DRAFTING = DraftingSettings(draft_length=32, window=256, growth=Growth())
KINDS: dict[str, type[TreeDrafter] | None] = {
    "no draft": None,
    "tree": TreeDrafter,
    "suffix+tree": SuffixTreeDrafter,
}


class Timed:
    """A drafter of trees whose passes take virtual time.

    Args:
        drafter: the real one.
        occupation: of the machine.
    """

    def __init__(self, drafter: TreeDrafter, occupation: Occupation) -> None:
        self._drafter = drafter
        self._occupation = occupation

    @property
    def name(self) -> str:
        """The drafter's own."""
        return self._drafter.name

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> TimedDraft:
        """See `Drafter`."""
        draft = self._drafter.open(
            prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )
        return TimedDraft(draft, self._occupation)


class TimedDraft:
    """One generation of it; the prompt is read for nothing, in both kinds."""

    def __init__(self, draft: TreeModelDraft, occupation: Occupation) -> None:
        self._draft = draft
        self._occupation = occupation

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`."""
        return self._draft.prepare(text)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`; trees have no use for it."""
        return self._draft.extend(text, limit, num_guessed=num_guessed)

    def branch(
        self, text: Sequence[TokenId], paths: Sequence[Sequence[TokenId]], *, width: int
    ) -> tuple[tuple[Guess, ...], ...]:
        """See `TreeDraft`."""
        work = Work().with_sequence(num_rows=len(paths), context=len(text))
        self._occupation.spend(PASS.seconds(work))
        return self._draft.branch(text, paths, width=width)

    def close(self) -> None:
        """See `Draft`."""
        self._draft.close()


def worlds(model: ModelDrafter, answers: Sequence[Answer]) -> dict[str, Any]:
    """Tokens per second of all answers, one after the other, at some round trips."""
    found: dict[str, Any] = {}
    for rtt_ms in RTTS_MS:
        for racing in (RaceDrafting.OFF, RaceDrafting.SUFFIX):
            told = {
                name: asked_for(model, answers, kind=kind, racing=racing, rtt_ms=rtt_ms)
                for name, kind in KINDS.items()
            }
            found[f"{rtt_ms} ms, --race-drafts {racing}"] = {
                **{name: round(tokens_per_s(one), 2) for name, one in told.items()},
                "suffix+tree against tree": against(told["suffix+tree"], told["tree"]),
            }
    return found


def tokens_per_s(told: Sequence[Statistics]) -> float:
    return sum(one.committed for one in told) / sum(one.duration_s for one in told)


def against(these: Sequence[Statistics], those: Sequence[Statistics]) -> dict[str, float]:
    """How many times as fast, of all together, and the standard error over answers of the mean of its logarithm."""
    logs = [log(b.duration_s / a.duration_s) for a, b in zip(these, those, strict=True)]
    error = statistics.stdev(logs) / len(logs) ** 0.5
    return {
        "speed": round(tokens_per_s(these) / tokens_per_s(those), 3),
        "mean_log": round(statistics.mean(logs), 4),
        "standard_error": round(error, 4),
    }


def asked_for(
    model: ModelDrafter,
    answers: Sequence[Answer],
    *,
    kind: type[TreeDrafter] | None,
    racing: RaceDrafting,
    rtt_ms: int,
) -> list[Statistics]:
    """What became of each answer in one world."""
    texts = [
        Text(category="", prompt=one.prompt, answer=one.output[:MOST_TOKENS]) for one in answers
    ]
    requests = tuple(Request(prompt=one.prompt, max_tokens=len(one.answer)) for one in texts)
    settings = WorldSettings(
        edges=(
            EdgeSettings(
                requests=requests,
                draft=None,
                make_drafter=kind and _maker(model, kind),
                drafting=DRAFTING if kind else DraftingSettings(),
                length_policy=LengthPolicy.MARGINAL if kind else LengthPolicy.FIXED,
            ),
        ),
        verifiers=(
            VerifierSettings(
                model=ModelSettings(cost=COSTS.cost),
                scheduler=SchedulerSettings(race_drafts=racing),
            ),
        ),
        network=parse_network(f"rtt={rtt_ms}ms"),
        target=RecordedTarget(
            vocabulary_size=49152, answers={text.prompt[:START]: text for text in texts}
        ),
    )
    (asked,) = run(settings, log=EventLog()).asked
    for one, text in zip(asked, texts, strict=True):
        assert tuple(one.pieces) == text.answer, "the text is another one"
    return [one.statistics for one in asked if one.statistics is not None]


def _maker(
    model: ModelDrafter, kind: type[TreeDrafter]
) -> Callable[[AnyTarget, Occupation], Drafter]:
    size = model.engine.identity.vocabulary_size

    def made(target: AnyTarget, occupation: Occupation) -> Drafter:
        del target
        return Timed(kind(model.engine, vocabulary_size=size), occupation)

    return made
