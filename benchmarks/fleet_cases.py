"""The small fleets that `fleet_validation.py` runs in both worlds, and what is asked there."""

from dataclasses import dataclass, replace

from numpy.random import default_rng

from cloud.scheduler import Schedule, SchedulerSettings
from edge.steering import LengthPolicy
from simulator.acceptance.recordings import recorded_costs, recorded_trace
from simulator.cost import StepCost
from simulator.fleet.settings import Ask, DrafterModel, VerifierModel

TOKEN = 300
"""Ids of the toy target are as long as this one."""
LASTS_S = 120.0
PLACES = ("wan", "lte", "starlink", "rtt=30ms,jitter=3ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One small fleet."""

    name: str
    num_edges: int
    every_s: float
    """Mean time from one question to the next."""
    draft: str
    """Whose guesses and costs, or empty."""
    acceptance: float = 0.0
    """Instead of recorded guesses."""
    draft_pass_s: float = 0.0
    policy: LengthPolicy = LengthPolicy.CLOSED_FORM
    places: tuple[str, ...] = PLACES
    seats: int = 64
    race: bool = True
    row_budget: int = 128
    mean_tokens: float = 100.0
    most_asks: int = 6
    """Of an edge; with questions one right after the other that is some minutes."""


FAST = Case(
    name="0.8 at 5 ms, busy",
    num_edges=8,
    every_s=20.0,
    draft="fast",
    acceptance=0.8,
    draft_pass_s=0.005,
)
ALWAYS_S = 0.01

CASES = (
    Case(name="plain, light", num_edges=4, every_s=40.0, draft=""),
    Case(name="plain, saturated", num_edges=8, every_s=ALWAYS_S, draft=""),
    Case(name="distilled, light", num_edges=4, every_s=40.0, draft="distilled-trial"),
    Case(name="distilled, busy", num_edges=8, every_s=20.0, draft="distilled-trial"),
    Case(name="distilled, saturated", num_edges=8, every_s=ALWAYS_S, draft="distilled-trial"),
    Case(name="lookup, busy", num_edges=8, every_s=20.0, draft="lookup"),
    FAST,
    replace(FAST, name="0.8 at 5 ms, saturated", every_s=ALWAYS_S),
    replace(FAST, name="0.8 at 5 ms, fixed length 8", policy=LengthPolicy.FIXED),
    replace(FAST, name="0.8 at 5 ms, race off", num_edges=6, race=False),
    replace(FAST, name="0.8 at 5 ms, 32 rows a step", every_s=ALWAYS_S, row_budget=32),
    replace(FAST, name="0.8 at 5 ms, 4 seats for 8", every_s=6.0, seats=4),
    Case(
        name="lookup, 32 edges at once",
        num_edges=32,
        every_s=ALWAYS_S,
        draft="lookup",
        most_asks=2,
    ),
    replace(
        FAST, name="0.8 at 5 ms, 32 edges at once", num_edges=32, every_s=ALWAYS_S, most_asks=2
    ),
    replace(FAST, name="0.8 at 5 ms, far and lossy", num_edges=6, places=("satellite", "bad-wifi")),
)


def asks(case: Case, seed: int) -> dict[int, tuple[Ask, ...]]:
    """Return what is asked, by edge."""
    questions = {}
    for edge in range(case.num_edges):
        generator = default_rng((seed, edge))
        at_s, found = 0.0, list[Ask]()
        while at_s < LASTS_S and len(found) < LASTS_S / 4:
            at_s += float(generator.exponential(case.every_s))
            length = int(min(400, max(8, generator.lognormal(0.0, 0.6) * case.mean_tokens)))
            prompt = int(generator.integers(20, 200))
            found.append(
                Ask(
                    at_s=at_s,
                    prompt_tokens=prompt,
                    max_tokens=length,
                    seed=int(generator.integers(512)),
                )
            )
        questions[edge] = tuple(found[: case.most_asks])
    return questions


def models(case: Case) -> tuple[VerifierModel, DrafterModel | None]:
    """Return the settings of both ends."""
    costs = recorded_costs("xeon-1-core")
    verifier = VerifierModel(
        cost=costs.target.cost,
        spread=costs.target.spread,
        scheduler=SchedulerSettings(
            race=case.race, row_budget=case.row_budget, schedule=Schedule.EVEN
        ),
        max_sessions=case.seats,
    )
    if not case.draft:
        return verifier, None
    if case.draft == "fast":
        cost = StepCost(fixed_s=case.draft_pass_s, per_row_s=0.0)
        return verifier, DrafterModel(
            cost=cost, acceptance=case.acceptance, length_policy=case.policy
        )
    fitted = costs.draft(case.draft)
    trace = recorded_trace(case.draft)
    return verifier, DrafterModel(
        cost=fitted.cost, spread=fitted.spread, trace=trace, length_policy=case.policy
    )
