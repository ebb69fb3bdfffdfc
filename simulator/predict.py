"""What an answer will take: from the costs of a machine, recorded guesses and a network to tokens per second.

    calibration = read_costs(Path("costs.toml"))
    trace = read_trace(Path("guesses-lookup.json"))
    settings = PredictionSettings(calibration=calibration, trace=trace, network=parse_network("lte"))
    predict(settings)[0].tokens_per_s

Each recorded answer is given once more, in a world of its own: one edge, one verifier, the programs themselves in
virtual time. What was measured for comparison, and how well it fits: docs/validation.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edge.steering import LengthPolicy
from paceline.client.outcome import Statistics
from paceline.client.settings import DraftingSettings
from paceline.tokens import TokenId
from simulator.acceptance.guess_trace import GuessedText, GuessTrace
from simulator.calibration.cost_file import Calibration
from simulator.network import NetworkSettings
from simulator.virtual.costs import with_costs
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.model import ModelSettings
from simulator.virtual.target import ToyTarget
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run

CONNECTED_S = 30.0
"""An edge is connected before it is asked: it asks for one token this long before, or when the link begins."""

TARGET = ToyTarget(vocabulary_size=30_000, context_length=1 << 20)
"""Ids as long on the wire as those of a real vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionSettings:
    """Machines, models and the network between them."""

    calibration: Calibration
    """Of the machines: the target's cost, and the draft's under the name that it has in the trace."""
    trace: GuessTrace
    """The answers to predict, and how the draft guesses them. Those of another temperature are left out."""
    network: NetworkSettings
    """Its weather is that of `paceline link --seed 0`."""
    temperature: float = 0.0
    drafts: bool = True
    """False: the edge drafts nothing."""
    drafting: DraftingSettings = field(default_factory=DraftingSettings)
    length_policy: LengthPolicy = LengthPolicy.FIXED
    min_step_s: float = 0.0
    """As `paceline cloud --min-step`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedAnswer:
    """One answer as it will be."""

    prompt: str
    """Its id in the trace."""
    statistics: Statistics
    """What the client will measure, from the moment it is asked."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens over the time from asking to the last one."""
        return self.statistics.tokens_per_s


def predict(settings: PredictionSettings, *, at_s: float = 0.0) -> tuple[PredictedAnswer, ...]:
    """Return how each recorded answer will go, alone at its verifier.

    Args:
        settings: everything that decides.
        at_s: when it is asked, in seconds since the link began: which part of a recorded link it meets.

    Raises:
        ConfigError: the costs know no such draft, or the trace has no such answer.
    """
    texts = settings.trace.chosen(temperature=settings.temperature)
    return tuple(predict_one(settings, text, at_s=at_s) for text in texts)


def predict_one(
    settings: PredictionSettings, text: GuessedText, *, at_s: float = 0.0
) -> PredictedAnswer:
    """Return how one of the answers will go; see `predict`."""
    model = ModelSettings(min_step_s=settings.min_step_s)
    world = WorldSettings(
        edges=(_edge(settings, text, at_s=at_s),),
        verifiers=(VerifierSettings(model=model),),
        network=settings.network,
        target=TARGET,
        longest_s=at_s + 3600.0,
    )
    draft = settings.trace.draft if settings.drafts else None
    result = run(with_costs(world, settings.calibration, draft=draft))
    statistics = result.asked[0][-1].statistics
    assert statistics is not None, "every request was answered"
    return PredictedAnswer(prompt=text.prompt, statistics=statistics)


def _edge(settings: PredictionSettings, text: GuessedText, *, at_s: float) -> EdgeSettings:
    alone = replace(settings.trace, texts=(text,))
    first = Request(prompt=(TokenId(1),), max_tokens=1, at_s=max(0.0, at_s - CONNECTED_S))
    prompt = tuple(TokenId(1 + index) for index in range(text.prompt_tokens))
    return EdgeSettings(
        requests=(first, Request(prompt=prompt, max_tokens=len(text.ranks), at_s=at_s)),
        draft=DraftSettings(trace=alone) if settings.drafts else None,
        drafting=settings.drafting,
        length_policy=settings.length_policy,
    )
