"""Fault schedules: what goes wrong in a small world, and when, drawn from one seed. Pure values.

    schedule = drawn(7)
    schedule.lines()                          # all of it, for a report
    schedule.without(2), schedule.cut_to(3)   # smaller ones

A schedule is complete in itself: the world it happens in and every fault. What a seed stands for may change when this
module does; a schedule that failed is kept as what it expanded to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from numpy.random import Generator, default_rng

from cloud.admission import SessionSettings
from cloud.scheduler import RaceDrafting, SchedulerSettings
from edge.steering import LengthPolicy
from paceline.client.settings import ConnectionSettings, DraftingSettings, RetryPolicy
from paceline.tokens import TokenId
from simulator.cost import StepCost
from simulator.link import LinkSettings
from simulator.network import NetworkSettings
from simulator.virtual.draft import DraftSettings
from simulator.virtual.drawn_pipelines import with_pipelines
from simulator.virtual.drawn_trees import with_trees
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.model import ModelSettings
from simulator.virtual.mqtt.house import BrokerSettings
from simulator.virtual.orchestrator import OrchestratorSettings
from simulator.virtual.poison import Poison
from simulator.virtual.target import ToyTarget
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings

NUM_EDGES = NUM_VERIFIERS = 2
NUM_TOKENS = (64, 32)  # of each edge's text: one ends while the other goes on
MIN_FAULTS, MAX_FAULTS = 3, 8

PATIENCE_S = 20.0
"""How long a fault waits for a token."""

LIVENESS_S = 300.0
"""Within this time after everything has healed all must be answered: several times the longest patience of any part."""


class FaultKind(StrEnum):
    """What can go wrong."""

    CUT = "cut"
    """Connections on a way are reset, new ones refused."""
    BLACK_HOLE = "black hole"
    """Nothing passes and nobody is told."""
    HALF_OPEN = "half open"
    """The edge's end of a connection is reset, and the verifier does not hear of it."""
    DELAY = "delay"
    """A way takes longer."""
    KILL_VERIFIER = "kill verifier"
    """Its program dies, and is started again."""
    DRAIN = "drain"
    """Its program ends in peace, and is started again."""
    SLOW_VERIFIER = "slow verifier"
    """Its steps take many times as long."""
    KILL_EDGE = "kill edge"
    """Its program dies, and is started again: it asks anew."""
    SKEW_VERIFIER = "skewed clock of a verifier"
    """Runs at another rate, after a jump ahead."""
    SKEW_EDGE = "skewed clock of an edge"
    DUPLICATE = "duplicated message"
    TRUNCATE = "truncated message"
    KILL_BROKER = "kill broker"
    """Its program dies with all that it retained, and is started again."""
    KILL_ORCHESTRATOR = "kill orchestrator"
    """Its program dies, and is started again: it knows nothing but its operator's orders."""
    CUT_BROKER = "cut from the broker"
    """Connections of a machine to the broker are reset, new ones refused."""
    HOLE_BROKER = "black hole to the broker"
    """Nothing passes between a machine and the broker, and nobody is told."""
    BAD_POLICY = "bad policy"
    """Somebody publishes a policy in the orchestrator's place: see `Poison`."""


MANGLES = frozenset({FaultKind.DUPLICATE, FaultKind.TRUNCATE})
"""No network that carries TCP does this: a program that meets it may fail with an error, and may not go on wrongly."""

CONTROL = frozenset(
    {
        FaultKind.KILL_BROKER,
        FaultKind.KILL_ORCHESTRATOR,
        FaultKind.CUT_BROKER,
        FaultKind.HOLE_BROKER,
        FaultKind.BAD_POLICY,
    }
)
"""What happens only where there is a control plane."""

CONTROL_SHARE = 0.25
"""Part of the worlds that have a control plane."""

MOST_CONTROL = 4
"""Most faults of it, besides the others."""

_KINDS = tuple(kind for kind in FaultKind if kind not in CONTROL)
_CONTROL_KINDS = tuple(kind for kind in FaultKind if kind in CONTROL)
_CONTROL_SEED = 0xC0
_RACE_SEED = 0xAC
_PIPELINE_SEED = 0x9B
_TREE_SEED = 0x7E
_BREAKS = frozenset({FaultKind.CUT, FaultKind.HALF_OPEN, FaultKind.KILL_VERIFIER})
"""What ends streams at once: soon after it sessions come back."""


class Member(StrEnum):
    """Whose way to the broker."""

    EDGE = "edge"
    VERIFIER = "verifier"
    ORCHESTRATOR = "orchestrator"


_MEMBERS, _POISONS = tuple(Member), tuple(Poison)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong."""

    kind: FaultKind
    after_tokens: int = 0
    """Not before the edge has handed out so many tokens, unless that takes longer than PATIENCE_S."""
    at_s: float
    """Virtual time, or seconds after that."""
    lasts_s: float
    edge: int
    verifier: int
    amount: float = 0.0
    """DELAY: seconds more each way. SLOW_VERIFIER: factor. SKEW: rate."""
    is_up: bool = True
    """Which direction is mangled."""
    member: Member = Member.EDGE
    """CUT_BROKER, HOLE_BROKER: whose way."""
    poison: Poison = Poison.GARBAGE
    """BAD_POLICY: what is wrong with it; it is the edge's."""

    def line(self) -> str:
        """Return it in words."""
        more = f" by {self.amount:g}" if self.amount else ""
        if self.kind in {FaultKind.CUT_BROKER, FaultKind.HOLE_BROKER}:
            more = f" of the {self.member}"
        elif self.kind is FaultKind.BAD_POLICY:
            more = f": {self.poison}"
        way = f" ({'up' if self.is_up else 'down'})" if self.kind in MANGLES else ""
        after = f" after {self.after_tokens} tokens" if self.after_tokens else ""
        return (
            f"at {self.at_s:.6f} s{after} for {self.lasts_s:.6f} s: {self.kind}{more}{way}, "
            f"edge{self.edge}, verifier{self.verifier}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A world, and what goes wrong in it."""

    seed: int
    world: WorldSettings
    faults: tuple[Fault, ...]

    def without(self, index: int) -> "Schedule":
        """Return it without one fault."""
        return replace(self, faults=(*self.faults[:index], *self.faults[index + 1 :]))

    def lines(self) -> Sequence[str]:
        """Return all that was drawn, in words."""
        world = self.world
        return (
            f"seed {self.seed}",
            f"network: {_changed(world.network.up, LinkSettings())}",
            f"control plane: {'none' if world.orchestrator is None else _control(world)}",
            f"target: {_changed(world.target, ToyTarget())}",
            *(f"edge{i}: {_edge(one)}" for i, one in enumerate(world.edges)),
            *(f"verifier{i}: {_verifier(one)}" for i, one in enumerate(world.verifiers)),
            *(one.line() for one in self.faults),
        )


def drawn(seed: int) -> Schedule:
    """Return the schedule of a seed: 2 edges, 2 verifiers, texts of 64 and 32 tokens, at least 3 faults; in some a control plane."""
    dice = default_rng((seed, 0x5EED))
    world = _world(dice, seed)
    # Long enough for faults to meet the end of a text and what comes after it.
    steps = world.verifiers[0].model.cost.fixed_s * NUM_TOKENS[0]
    until_s = float(dice.choice((0.3, 0.8, 1.3))) * (steps + 4 * world.network.up.delay_s)
    num_faults = int(dice.integers(MIN_FAULTS, MAX_FAULTS + 1))
    faults: list[Fault] = []
    for _ in range(num_faults):
        fault = _fault(dice, until_s=until_s)
        if faults and dice.random() < 0.4:
            fault = _aftershock(dice, fault, faults[-1])
        elif dice.random() < 0.4:
            fault = _at_token(dice, fault)
        faults.append(fault)
    # Drawn apart, so that whether there is a control plane changes nothing else.
    dice = default_rng((seed, _CONTROL_SEED))
    if dice.random() < CONTROL_SHARE:
        world = replace(world, orchestrator=_drawn_orchestrator(dice))
        for _ in range(int(dice.integers(1, MOST_CONTROL + 1))):
            faults.append(_control_fault(dice, faults, until_s=until_s))
    verifiers = _racing(default_rng((seed, _RACE_SEED)), world.verifiers)
    edges = with_pipelines(default_rng((seed, _PIPELINE_SEED)), world.edges)
    edges = with_trees(default_rng((seed, _TREE_SEED)), edges)
    world = replace(world, verifiers=verifiers, edges=edges)
    return Schedule(seed=seed, world=world, faults=tuple(faults))


def _racing(dice: Generator, verifiers: Sequence[VerifierSettings]) -> tuple[VerifierSettings, ...]:
    """Return the verifiers with what they guess themselves; with a small vocabulary much of it is right."""
    kinds = [tuple(RaceDrafting)[int(dice.integers(len(RaceDrafting)))] for _ in verifiers]
    return tuple(
        replace(one, scheduler=replace(one.scheduler, race_drafts=kind))
        for one, kind in zip(verifiers, kinds, strict=True)
    )


def _drawn_orchestrator(dice: Generator) -> OrchestratorSettings:
    return OrchestratorSettings(
        is_apart=bool(dice.random() < 0.3),
        telemetry_interval_s=float(dice.choice((1.0, 5.0))),
    )


def _control_fault(dice: Generator, before: Sequence[Fault], *, until_s: float) -> Fault:
    """Return one of the control plane; sometimes soon after another fault, sometimes when there are policies already."""
    fault = replace(
        _fault(dice, until_s=until_s),
        kind=_CONTROL_KINDS[int(dice.integers(len(_CONTROL_KINDS)))],
        amount=0.0,
        member=_MEMBERS[int(dice.integers(len(_MEMBERS)))],
        poison=_POISONS[int(dice.integers(len(_POISONS)))],
    )
    chance = dice.random()
    breaks = [one for one in before if one.kind in _BREAKS] or before
    if chance < 0.5:
        return _aftershock(dice, fault, breaks[int(dice.integers(len(breaks)))])
    if chance < 0.65:
        return _at_token(dice, fault)
    if chance < 0.8:
        return replace(fault, at_s=1.0 + float(dice.exponential(2.0)))
    return fault


def _aftershock(dice: Generator, fault: Fault, before: Fault) -> Fault:
    """Return it at the same place, soon after another one began or ended: what was broken is being mended."""
    since_s = before.lasts_s if dice.random() < 0.7 else 0.0
    return replace(
        fault,
        at_s=before.at_s + since_s + float(dice.exponential(0.1)),
        after_tokens=before.after_tokens,
        edge=before.edge,
        verifier=before.verifier,
    )


def _at_token(dice: Generator, fault: Fault) -> Fault:
    """Return it at a place in the text, often at its very end."""
    at_end = dice.random() < 0.6
    length = NUM_TOKENS[fault.edge]
    tokens = length if at_end else int(dice.integers(1, length))
    soon_s = 0.0 if dice.random() < 0.5 else float(dice.exponential(0.02))
    return replace(fault, after_tokens=tokens, at_s=soon_s)


def _fault(dice: Generator, *, until_s: float) -> Fault:
    kind = _KINDS[int(dice.integers(len(_KINDS)))]
    lasts_s = float(dice.exponential(float(dice.choice((0.02, 0.3, 2.0)))))
    if dice.random() < 0.05:
        lasts_s = 45.0  # longer than the patience of keepalive
    amount = 0.0
    match kind:
        case FaultKind.DELAY:
            amount = float(dice.choice((0.05, 0.5, 3.0)))
        case FaultKind.SLOW_VERIFIER:
            amount = float(dice.choice((3.0, 30.0)))
        case FaultKind.SKEW_EDGE | FaultKind.SKEW_VERIFIER:
            amount = float(dice.choice((0.5, 0.9, 1.1, 2.0)))
        case _:
            pass
    return Fault(
        kind=kind,
        at_s=float(dice.random()) * until_s,
        lasts_s=lasts_s,
        edge=int(dice.integers(NUM_EDGES)),
        verifier=int(dice.integers(NUM_VERIFIERS)),
        amount=amount,
        is_up=bool(dice.random() < 0.5),
    )


def _world(dice: Generator, seed: int) -> WorldSettings:
    step_s = float(dice.choice((0.005, 0.02)))
    return WorldSettings(
        seed=seed,
        edges=tuple(_drawn_edge(dice, number) for number in range(NUM_EDGES)),
        verifiers=tuple(_drawn_verifier(dice, step_s) for _ in range(NUM_VERIFIERS)),
        target=ToyTarget(seed=seed, vocabulary_size=int(dice.choice((5, 512)))),
        network=_drawn_network(dice),
        longest_s=3600.0,
    )


def _drawn_edge(dice: Generator, number: int) -> EdgeSettings:
    length = int(dice.integers(3, 20))
    return EdgeSettings(
        requests=(
            Request(
                prompt=tuple(TokenId(1 + index % 4) for index in range(length)),
                max_tokens=NUM_TOKENS[number],
                seed=number,
                at_s=float(dice.choice((0.0, 0.05))),
            ),
        ),
        draft=DraftSettings(
            cost=StepCost(fixed_s=float(dice.choice((0.001, 0.006))), per_row_s=0.0),
            acceptance=float(dice.choice((0.0, 0.5, 0.8, 1.0))),
        )
        if dice.random() < 0.9
        else None,
        drafting=DraftingSettings(
            draft_length=int(dice.choice((0, 2, 8, 20))),
            window=int(dice.choice((1, 8, 64))),
            tokens_per_message=int(dice.choice((1, 4))),
        ),
        length_policy=LengthPolicy.CLOSED_FORM if dice.random() < 0.5 else LengthPolicy.FIXED,
        connection=ConnectionSettings(
            connect_s=float(dice.choice((1.0, 10.0))),
            silence_s=float(dice.choice((5.0, 60.0))),
            retry=RetryPolicy(give_up_after_s=3600.0),
        ),
    )


def _drawn_verifier(dice: Generator, step_s: float) -> VerifierSettings:
    return VerifierSettings(
        model=ModelSettings(cost=StepCost(fixed_s=step_s, per_row_s=step_s / 50.0)),
        sessions=SessionSettings(
            max_lead=int(dice.choice((8, 32, 256))),
            lease_s=float(dice.choice((0.1, 2.0, 20.0))),
            silence_s=float(dice.choice((2.0, 60.0))),
            max_sessions=int(dice.choice((1, 64))),
        ),
        scheduler=SchedulerSettings(
            row_budget=int(dice.choice((2, 8, 128))),
            race=bool(dice.random() < 0.7),
            patience_s=0.2,
        ),
        max_draft_rows=int(dice.choice((0, 4, 63))),
    )


def _drawn_network(dice: Generator) -> NetworkSettings:
    delay_s = float(dice.choice((0.0, 0.01, 0.04, 0.1)))
    rough = dice.random() < 0.2
    way = LinkSettings(
        delay_s=delay_s,
        bandwidth_bps=float(dice.choice((1e5, 1e7))) if dice.random() < 0.3 else None,
        jitter_s=delay_s / 4.0 if rough else 0.0,
        loss=0.02 if rough else 0.0,
    )
    return NetworkSettings(up=way, down=way, name="drawn")


def _changed(value: object, usual: object) -> str:
    """Return the fields that are not as usual."""
    names = [item.name for item in fields(value)]  # type: ignore[arg-type]
    told = [
        f"{name}={getattr(value, name)!r}"
        for name in names
        if getattr(value, name) != getattr(usual, name)
    ]
    return " ".join(told) or "as usual"


def _control(world: WorldSettings) -> str:
    assert world.orchestrator is not None
    return f"{_changed(world.orchestrator, OrchestratorSettings())}; broker: {_changed(world.broker, BrokerSettings())}"


def _edge(edge: EdgeSettings) -> str:
    usual = EdgeSettings(requests=())
    return _changed(replace(edge, connection=usual.connection), usual) + (
        f" connection: {_changed(edge.connection, usual.connection)}"
    )


def _verifier(verifier: VerifierSettings) -> str:
    usual = VerifierSettings()
    return (
        f"model: {_changed(verifier.model, usual.model)}; sessions: {_changed(verifier.sessions, usual.sessions)}; "
        f"scheduler: {_changed(verifier.scheduler, usual.scheduler)}; max_draft_rows={verifier.max_draft_rows}"
    )
