"""What `simulator.virtual` says a line of benchmarks/distance.py should have taken, from measured costs and recorded guesses."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distance_cells import DRAFTS, NO_DRAFT, SYSTEMS, Draft, Link, drafting
from distance_drafts import trace_of
from distance_lines import Line

from edge.drafters import ModelDrafter, load_drafter
from paceline.drafter import Drafter
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
from simulator.predict import CONNECTED_S, TARGET
from simulator.virtual.costs import with_costs
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.machine import Occupation
from simulator.virtual.parts import AnyTarget
from simulator.virtual.tree_draft import MOST_CANDIDATES, SimulatedTreeDrafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run

NOWHERE = "rtt=0ms"


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


def predicted(
    line: Line, *, calibration: Calibration, guesses: Guesses | None, pass_s: float
) -> Predicted:
    """Return how a generation should have gone.

    Args:
        line: what was measured; of it count what was asked, when, and how many tokens there were to come.
        calibration: of the verifier's machine.
        guesses: None where nothing is drafted.
        pass_s: of the draft, as measured.
    """
    system = next(one for one in SYSTEMS if one.name == line["system"])
    draft = next(one for one in (NO_DRAFT, *DRAFTS) if one.name == line["draft"])
    at_s, prompt_tokens = line["at_s"], line["prompt_tokens"]
    asked = Request(
        prompt=tuple(TokenId(1 + index) for index in range(prompt_tokens)),
        max_tokens=line["committed"],
        seed=line["seed"],
        at_s=at_s,
    )
    first = Request(prompt=(TokenId(1),), max_tokens=1, at_s=max(0.0, at_s - CONNECTED_S))
    link = Link(name="", network="", rtt_s=line["rtt_s"])
    edge = EdgeSettings(
        requests=(first, asked),
        draft=None,
        drafting=drafting(system, draft, link),
        make_drafter=None if guesses is None else _maker(guesses, pass_s=pass_s),
    )
    world = WorldSettings(
        edges=(edge,),
        verifiers=(VerifierSettings(),),
        network=parse_network(NOWHERE if system.is_colocated else line["network"]),
        target=TARGET,
        longest_s=at_s + 3600.0,
    )
    found = run(with_costs(world, calibration)).asked[0][-1].statistics
    assert found is not None, "every request was answered"
    # Of a co-located answer the question and the last token cross the link besides.
    user_s = line["rtt_s"] if system.is_colocated else 0.0
    return Predicted(
        committed=found.committed, duration_s=found.duration_s + user_s, steps=found.steps
    )


def _maker(guesses: Guesses, *, pass_s: float) -> Callable[[AnyTarget, Occupation], Drafter]:
    def made(target: AnyTarget, occupation: Occupation) -> Drafter:
        assert target is TARGET, "knows what it draws"
        return SimulatedTreeDrafter(
            TARGET,
            trace=guesses.trace,
            chances=guesses.chances,
            category=guesses.category,
            occupation=occupation,
            cost=StepCost(fixed_s=pass_s, per_row_s=0.0),
        )

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

    def read(self, draft: Draft, wanted: Iterable[Line]) -> None:
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

    def guesses(self, draft: Draft, line: Line) -> Guesses | None:
        """Return the guesses of a line's answer; None: there is no draft."""
        if draft.name == NO_DRAFT.name:
            return None
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

    def _path(self, draft: Draft) -> Path:
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
