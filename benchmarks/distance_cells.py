"""Which systems, drafts, links and prompts meet in benchmarks/distance.py, and in which order. Pure."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edge.steering import LengthPolicy
from paceline.client.settings import DraftingSettings
from paceline.control.drafting import expected_tokens
from paceline.prompts import PromptLine
from paceline.session.growth import Growth
from paceline.session.pipeline import PipelineName, PipelineSettings

NAMES = (
    "spec-bench/85", "spec-bench/91", "spec-bench/101", "spec-bench/125", "spec-bench/131", "spec-bench/141",
    "spec-bench/161", "spec-bench/275", "spec-bench/321", "spec-bench/421", "spec-bench/507", "HumanEval/13",
)  # fmt: skip
"""Writing, roleplay, reasoning, coding, extraction, STEM, translation, summarization, questions, arithmetic, retrieval and
program completion: all of Spec-Bench's six tasks (of its first one six of eight kinds) and HumanEval."""

STEP_S, ROW_S = 0.055, 0.0006
"""Of the target on one core, about: chooses the length of a round, nothing else."""
MOST_ROUND = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link between user and cloud."""

    name: str
    network: str
    """As `--network` has it."""
    rtt_s: float
    """The shortest round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What guesses."""

    name: str
    label: str
    acceptance: float
    """Part of first guesses that are right, about: chooses the length of a round, nothing else."""
    forward_s: float
    """Time of a forward pass; of a recorded draft it is slept, of a model only about right."""
    spec: str = ""
    """As `--draft` has it; empty: a recorded draft."""
    traces: tuple[str, ...] = ()
    """Of `simulator.acceptance.recordings`."""
    first_share: float = 1.0
    """Part of the positions that come from the first of two traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A way to get the target's text to a distant user."""

    name: str
    label: str
    shape: Literal["none", "round", "cache", "chain", "tree"]
    """round: a chain of the length that is best for rounds; cache: the same, while a tree is drafted for answers; chain: as far ahead
    as a round trip needs."""
    pipeline: PipelineName = PipelineName.TREE_STREAM
    policy: LengthPolicy = LengthPolicy.FIXED
    """As `--length-policy`."""
    is_colocated: bool = False
    """The edge runs on the verifier's core, and its tokens go over the link to the user."""
    links: tuple[str, ...] = ()
    """Measured over these only; empty: over all."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `PipelineSettings`."""
    cloud: tuple[str, ...] = ()
    """Further options of `paceline cloud`."""

    @property
    def streams(self) -> bool:
        """Whether the verifier goes on whatever comes from the edge."""
        return self.shape in {"none", "tree"} or self.options.get("patience_s") == 0.0


NO_DRAFT = Draft(name="none", label="none", acceptance=0.0, forward_s=0.0)
PLAIN = ("--race-drafts", "off", "--schedule", "even")
"""A verifier that guesses nothing by itself and verifies all that it is sent, as the published systems have it."""
CLOUD_ONLY = System(name="cloud-only", label="cloud-only streaming", shape="none", cloud=PLAIN)

LINKS = tuple(
    Link(name=f"{ms} ms", network=f"rtt={ms}ms", rtt_s=ms / 1e3) for ms in (50, 100, 10, 200)
)
"""In the order in which they are measured: the middle first."""
NEAR = Link(name="0 ms", network="rtt=0ms", rtt_s=0.0)

DRAFTS = (
    Draft(
        name="shipped", label="the shipped draft", acceptance=0.45, forward_s=0.0055,
        spec="tree:smollm2-135m-draft",
    ),
    Draft(
        name="recorded-60", label="recorded draft, 0.60", acceptance=0.60, forward_s=0.004,
        traces=("low-bit-4-64", "smollm2-135m-draft-first"), first_share=0.58,
    ),
    Draft(
        name="recorded-79", label="recorded draft, 0.79", acceptance=0.79, forward_s=0.004,
        traces=("low-bit-4-64",),
    ),
    Draft(
        name="low-bit", label="the target's 4-bit copy", acceptance=0.79, forward_s=0.025,
        spec="tree:low-bit:4/64",
    ),
)  # fmt: skip
USUAL_DRAFTS = ("recorded-79", "recorded-60", "shipped")

SYSTEMS = (
    CLOUD_ONLY,
    System(name="paceline", label="Paceline", shape="tree", policy=LengthPolicy.MARGINAL),
    System(
        name="co-located", label="co-located speculation", shape="round",
        pipeline=PipelineName.STOP_AND_WAIT, is_colocated=True, cloud=PLAIN,
    ),
    System(
        name="stop-and-wait", label="stop-and-wait", shape="round",
        pipeline=PipelineName.STOP_AND_WAIT, cloud=PLAIN,
    ),
    System(
        name="run-ahead", label="run-ahead chain", shape="chain", pipeline=PipelineName.RUN_AHEAD,
        links=("100 ms",), cloud=PLAIN,
    ),
    System(
        name="edge-cache", label="edge outcome cache", shape="cache",
        pipeline=PipelineName.OUTCOME_CACHE, links=("100 ms",), cloud=PLAIN,
    ),
    System(
        name="run-ahead-race", label="run-ahead chain, with the race", shape="chain",
        pipeline=PipelineName.RUN_AHEAD, links=("100 ms",), options={"patience_s": 0.0},
        cloud=PLAIN,
    ),
    System(name="cloud-guesses", label="cloud-only, guessing from the text", shape="none"),
    System(
        name="no-cloud-guesses", label="Paceline without guesses in the cloud", shape="tree",
        policy=LengthPolicy.MARGINAL, cloud=("--race-drafts", "off"),
    ),
    System(name="fixed-floor", label="Paceline, sent by a fixed chance", shape="tree"),
    System(
        name="edge-cache-ahead", label="edge outcome cache, run-ahead", shape="chain",
        pipeline=PipelineName.OUTCOME_CACHE_AHEAD, links=("100 ms",), cloud=PLAIN,
    ),
)  # fmt: skip
COLOCATED = {system.name for system in SYSTEMS if system.is_colocated}
USUAL_SYSTEMS = ("cloud-only", "paceline", "co-located", "stop-and-wait", "run-ahead", "edge-cache")


def drafting(system: System, draft: Draft, link: Link) -> DraftingSettings:
    """Return how far ahead to draft."""
    pipeline = PipelineSettings(name=system.pipeline, **system.options)
    match system.shape:
        case "none":
            return DraftingSettings(draft_length=0)
        case "round" | "cache":
            rtt_s = 0.0 if system.is_colocated else link.rtt_s
            length = best_round(draft, rtt_s=rtt_s, is_hidden=system.shape == "cache")
            return DraftingSettings(
                draft_length=length, tokens_per_message=length, pipeline=pipeline
            )
        case "chain":
            return DraftingSettings(
                draft_length=24, window=128, tokens_per_message=1, pipeline=pipeline
            )
        case "tree":
            # As `paceline edge --draft tree:...` has it.
            return DraftingSettings(draft_length=32, window=256, growth=Growth(), pipeline=pipeline)


def best_round(draft: Draft, *, rtt_s: float, is_hidden: bool = False) -> int:
    """Return how many tokens to draft before waiting for the verdict.

    The least time per token, (k (draft + row) + R + step) / E(a, k): Leviathan et al., arXiv 2211.17192, equation 1, with
    the round trip added.

    Args:
        draft: what guesses.
        rtt_s: round trip.
        is_hidden: the drafter works while the answer is on its way, and its time does not count.
    """
    forward_s = 0.0 if is_hidden else draft.forward_s

    def time_per_token_s(length: int) -> float:
        round_s = length * (forward_s + ROW_S) + rtt_s + STEP_S
        return round_s / expected_tokens(draft.acceptance, length)

    return min(range(1, MOST_ROUND + 1), key=time_per_token_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One generation to measure."""

    repetition: int
    link: Link
    temperature: float
    prompt: str
    system: System
    draft: Draft

    @property
    def key(self) -> str:
        """What names it in the lines of a run."""
        return "|".join(
            (
                str(self.repetition), self.link.name, f"T{self.temperature:g}", self.prompt, self.system.name,
                self.draft.name,
            )
        )  # fmt: skip

    @property
    def seed(self) -> int:
        """Of the noise, and of which recorded guesses a recorded draft has: the same for all systems."""
        return zlib.crc32(self.prompt.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to measure."""

    links: tuple[Link, ...]
    temperatures: tuple[float, ...]
    prompts: tuple[str, ...]
    systems: tuple[System, ...]
    drafts: tuple[Draft, ...]
    repetitions: int
    first_repetition: int = 0
    """Leave out those before: what is compared must be measured together."""


def blocks(wanted: Wanted) -> Iterator[tuple[Cell, ...]]:
    """Yield what is measured together: all systems of one prompt over one link.

    The first repetition comes first over all links, so that a run that is broken off has something of each. The order within a
    block turns, so that nobody is always the first or always behind the same one.
    """
    for repetition in range(wanted.first_repetition, wanted.repetitions):
        for temperature in wanted.temperatures:
            for link in wanted.links:
                for number, prompt in enumerate(wanted.prompts):
                    cells = [
                        Cell(
                            repetition=repetition,
                            link=link,
                            temperature=temperature,
                            prompt=prompt,
                            system=system,
                            draft=draft,
                        )
                        for system, draft in pairs(wanted, link)
                    ]
                    turn = (repetition + number) % len(cells) if cells else 0
                    yield (*cells[turn:], *cells[:turn])


def pairs(wanted: Wanted, link: Link) -> list[tuple[System, Draft]]:
    """Return the systems with their drafts over a link."""
    found = []
    for system in wanted.systems:
        if system.links and link.name not in system.links:
            continue
        drafts = (NO_DRAFT,) if system.shape == "none" else wanted.drafts
        found += [(system, draft) for draft in drafts]
    return found


def links(names: Sequence[str], *, recordings: Path | None) -> tuple[Link, ...]:
    """Return links by name: those of LINKS, "0 ms", and with a folder of recordings "LTE" and "Starlink"."""
    known = {link.name: link for link in (*LINKS, NEAR)}
    if recordings is not None:
        lte = ",".join(
            f"{way}.trace={recordings / 'ATT-LTE-driving-2016'}.{way}" for way in ("up", "down")
        )
        starlink = f"starlink,series={recordings / 'starlink_mobile_rtt.csv'}"
        known["LTE"] = Link(name="LTE", network=f"rtt=50ms,{lte}", rtt_s=0.05)
        known["Starlink"] = Link(name="Starlink", network=starlink, rtt_s=0.047)
    return tuple(known[name] for name in names)


def prompts(lines: Sequence[PromptLine], *, count: int) -> tuple[PromptLine, ...]:
    """Return the prompts of NAMES, or of another file the shortest of each category; at most `count`."""
    by_name = {line.name: line for line in lines}
    if all(name in by_name for name in NAMES):
        return tuple(by_name[name] for name in NAMES[:count])
    short = sorted(lines, key=lambda line: len(line.messages[-1].content))
    first = {line.category: line for line in reversed(short)}
    return tuple(first[category] for category in sorted(first))[:count]
