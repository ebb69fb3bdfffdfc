"""What `simulator.virtual` says a line of benchmarks/distance.py should have taken, from measured costs and recorded guesses."""

import hashlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distance_cells import COLOCATED, DRAFTS, NO_DRAFT, SYSTEMS, Link, System, drafting
from distance_cells import Draft as DraftKind
from distance_drafts import trace_of
from distance_lines import Line

from cloud.scheduler import RaceDrafting, Schedule, SchedulerSettings
from edge.drafters import ModelDrafter, load_drafter
from paceline.client.outcome import Statistics
from paceline.drafter import Draft, Drafter
from paceline.engine.loading import DType, load_tokenizer, resolve
from paceline.prompts import PromptLine
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.acceptance.chances import RankChances
from simulator.acceptance.guess_trace import GuessTrace, read_trace, write_trace
from simulator.calibration.cost_file import Calibration
from simulator.calibration.record import LOGITS, OwnText, read_along
from simulator.cost import StepCost
from simulator.notation import parse_network
from simulator.predict import CONNECTED_S
from simulator.virtual.costs import with_costs
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.known_target import KnownTarget, KnownText
from simulator.virtual.machine import Occupation
from simulator.virtual.parts import AnyTarget
from simulator.virtual.tree_draft import MOST_CANDIDATES, SimulatedTreeDrafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run

PAUSE_S = 300.0
"""Between two questions, from one to the next."""

VOCABULARY_SIZE = 49_152
"""Of SmolLM2: ids of texts are below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """How a draft guesses one answer."""

    trace: GuessTrace
    chances: RankChances
    category: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What a line should have been."""

    committed: int
    duration_s: float
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A line to predict: of what was measured count when it was asked, and the text that came."""

    line: Line
    text: KnownText
    guesses: Guesses | None
    """How the draft guesses it; None where nothing is drafted."""


def predicted(
    asked: Sequence[Asked], *, calibration: Calibration, pass_s: float
) -> list[Predicted]:
    """Return how the generations of one tenant should have gone.

    Where the link is always the same they are asked one after the other in one world, so that edge and verifier know what they
    have learned of those before. Over a link with weather each meets its own in a world of its own.

    Args:
        asked: the generations, in the order in which they were measured.
        calibration: of the verifier's machine.
        pass_s: of the draft, as measured.
    """
    if is_steady(asked[0].line):
        times = [CONNECTED_S + PAUSE_S * index for index in range(len(asked))]
        return _in_a_world(asked, times, calibration=calibration, pass_s=pass_s)
    return [
        found
        for one in asked
        for found in _in_a_world([one], [one.line["at_s"]], calibration=calibration, pass_s=pass_s)
    ]


def predicted_together(
    asked: Sequence[Asked], *, calibration: Calibration, pass_s: float
) -> list[Predicted]:
    """Return how generations of as many edges should have gone that are asked all at once over a link that is always the same."""
    edges = [_edge([one], [CONNECTED_S], pass_s=pass_s) for one in asked]
    world = _world(asked, edges, calibration=calibration, until_s=CONNECTED_S)
    answers = [of_edge[1] for of_edge in run(world).asked]
    return [_predicted(answer.statistics, user_s=0.0) for answer in answers]


def _in_a_world(
    asked: Sequence[Asked],
    times_s: Sequence[float],
    *,
    calibration: Calibration,
    pass_s: float,
) -> list[Predicted]:
    edge = _edge(asked, times_s, pass_s=pass_s)
    world = _world(asked, [edge], calibration=calibration, until_s=times_s[-1])
    answers = run(world).asked[0][1:]
    # Of a co-located answer the question and the last token cross the link besides.
    line = asked[0].line
    user_s = line["rtt_s"] if line["system"] in COLOCATED else 0.0
    return [_predicted(answer.statistics, user_s=user_s) for answer in answers]


def _edge(asked: Sequence[Asked], times_s: Sequence[float], *, pass_s: float) -> EdgeSettings:
    """Return an edge that asks these one after the other, and first something else, so that it is connected."""
    line = asked[0].line
    system = _system(line)
    draft = next(one for one in (NO_DRAFT, *DRAFTS) if one.name == line["draft"])
    first_s = max(0.0, times_s[0] - CONNECTED_S)
    requests = [Request(prompt=(TokenId(1),), max_tokens=1, at_s=first_s)]
    requests += [_request(one, at_s) for one, at_s in zip(asked, times_s, strict=True)]
    by_seed = {one.line["seed"]: one.guesses for one in asked if one.guesses is not None}
    return EdgeSettings(
        requests=tuple(requests),
        draft=None,
        drafting=drafting(system, draft, Link(name="", network="", rtt_s=line["rtt_s"])),
        length_policy=system.policy,
        make_drafter=_maker(by_seed, pass_s=pass_s) if by_seed else None,
    )


def _world(
    asked: Sequence[Asked],
    edges: Sequence[EdgeSettings],
    *,
    calibration: Calibration,
    until_s: float,
) -> WorldSettings:
    """Return the world in which edges ask a verifier that runs as the system of the lines has it."""
    lines = [one.line for one in asked]
    cloud = _system(lines[0]).cloud
    scheduler = SchedulerSettings(
        race_drafts=RaceDrafting.OFF if "off" in cloud else RaceDrafting.SUFFIX,
        schedule=Schedule.EVEN if "even" in cloud else Schedule.GOODPUT,
    )
    world = WorldSettings(
        edges=tuple(edges),
        verifiers=(VerifierSettings(scheduler=scheduler),),
        network=parse_network(_network(lines)),
        target=KnownTarget(
            texts=tuple(one.text for one in asked),
            vocabulary_size=VOCABULARY_SIZE,
            context_length=1 << 20,
        ),
        longest_s=until_s + 3600.0,
    )
    return with_costs(world, calibration)


def _system(line: Line) -> System:
    return next(one for one in SYSTEMS if one.name == line["system"])


def _network(lines: Sequence[Line]) -> str:
    """Return the link as `--network` has it: where it is always the same with the round trip that was measured, programs included."""
    if lines[0]["system"] not in COLOCATED and not is_steady(lines[0]):
        return str(lines[0]["network"])
    rtt_s = statistics.median(line["statistics"]["rtt_s"] for line in lines)
    return f"rtt={1e3 * rtt_s:.3f}ms"


def is_steady(line: Line) -> bool:
    """Return whether a line's link is always the same."""
    return str(line["link"]).endswith(" ms")


def _request(asked: Asked, at_s: float) -> Request:
    return Request(
        prompt=asked.text.prompt,
        max_tokens=asked.line["committed"],
        seed=asked.line["seed"],
        at_s=at_s,
    )


def _predicted(found: Statistics | None, *, user_s: float) -> Predicted:
    assert found is not None, "every request was answered"
    return Predicted(
        committed=found.committed, duration_s=found.duration_s + user_s, steps=found.steps
    )


class OneAfterTheOther:
    """A `Drafter` that guesses each answer as it was guessed, by its seed.

    Args:
        target: knows the texts.
        guesses: by seed; another seed, that of a question without any, gets the first.
        occupation: of the edge's machine.
        pass_s: of a forward pass.
    """

    name = "recorded"

    def __init__(
        self,
        target: KnownTarget,
        guesses: Mapping[int, Guesses],
        *,
        occupation: Occupation,
        pass_s: float,
    ) -> None:
        self._target = target
        self._guesses = dict(guesses)
        self._occupation = occupation
        self._cost = StepCost(fixed_s=pass_s, per_row_s=0.0)

    def open(self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings) -> Draft:
        """See `Drafter`."""
        guesses = self._guesses.get(sampling.seed) or next(iter(self._guesses.values()))
        drafter = SimulatedTreeDrafter(
            self._target,
            trace=guesses.trace,
            chances=guesses.chances,
            category=guesses.category,
            occupation=self._occupation,
            cost=self._cost,
        )
        return drafter.open(prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling)


def _maker(
    guesses: Mapping[int, Guesses], *, pass_s: float
) -> Callable[[AnyTarget, Occupation], Drafter]:
    def made(target: AnyTarget, occupation: Occupation) -> Drafter:
        assert isinstance(target, KnownTarget), "knows what it draws"
        return OneAfterTheOther(target, guesses, occupation=occupation, pass_s=pass_s)

    return made


class Reading:
    """How drafts guess the texts that came: recorded ones as they did, models by reading along what was written.

    Args:
        folder: what was read along is kept here.
        lines: the prompts by name.
        target: its tokenizer counts.
        dtype: of draft models.
    """

    def __init__(
        self, folder: Path, *, lines: dict[str, PromptLine], target: str, dtype: DType
    ) -> None:
        self._folder = folder
        self._lines = lines
        self._tokenizer = load_tokenizer(resolve(target))
        self._dtype = dtype
        self._traces: dict[tuple[str, float], tuple[GuessTrace, RankChances]] = {}

    def read(self, draft: DraftKind, wanted: Iterable[Line]) -> None:
        """Let a draft model read along every text that it has not read yet."""
        path = self._path(draft)
        texts = read_trace(path).texts if path.exists() else ()
        known = {text.prompt for text in texts}
        missing = {_name(line): line for line in wanted if _name(line) not in known}
        if not missing:
            return
        drafter = load_drafter(
            draft.spec.removeprefix("tree:"), tokenizer=self._tokenizer, dtype=self._dtype
        )
        assert isinstance(drafter, ModelDrafter), draft.spec
        fresh = read_along(drafter.engine, [self._own(line) for line in missing.values()])
        named = (replace(text, prompt=name) for name, text in zip(missing, fresh, strict=True))
        trace = GuessTrace(draft=draft.name, target="", confidence=LOGITS, texts=(*texts, *named))
        write_trace(path, trace)

    def guesses(self, draft: DraftKind, line: Line) -> Guesses:
        """Return the guesses of a line's answer."""
        key = (draft.name, line["temperature"])
        if key not in self._traces:
            trace = (
                read_trace(self._path(draft))
                if draft.spec
                else trace_of(draft, temperature=line["temperature"])
            )
            self._traces[key] = (trace, RankChances(trace, width=MOST_CANDIDATES))
        trace, chances = self._traces[key]
        if not draft.spec:
            return Guesses(trace=trace, chances=chances, category=line["category"] or None)
        texts = tuple(text for text in trace.texts if text.prompt == _name(line))
        return Guesses(trace=replace(trace, texts=texts), chances=chances)

    def text(self, line: Line) -> KnownText:
        """Return what was said in a line."""
        own = self._own(line)
        return KnownText(prompt=tuple(own.prompt), output=own.output)

    def _path(self, draft: DraftKind) -> Path:
        return self._folder / f"read-{draft.name}.json"

    def _own(self, line: Line) -> OwnText:
        prompt = self._lines[line["prompt"]]
        messages = [{"role": each.role, "content": each.content} for each in prompt.messages]
        return OwnText(
            line=prompt,
            prompt=self._tokenizer.encode_chat(messages),
            output=tuple(TokenId(token) for token in line["output"]),
            sampling=SamplingSettings(temperature=line["temperature"], seed=line["seed"]),
            ended=False,
        )


def _name(line: Line) -> str:
    digest = hashlib.sha256(repr(tuple(line["output"])).encode()).hexdigest()[:12]
    return f"{line['prompt']} T{line['temperature']:g} {digest}"


def speed(found: Sequence[Predicted]) -> float:
    """Return tokens per second, a ratio of sums."""
    return sum(one.committed for one in found) / sum(one.duration_s for one in found)
