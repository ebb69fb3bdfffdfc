"""Edges and verifiers that only tell: plausible values that change, told over a real broker by the real link.

No tokens flow. An edge's figures follow from its link, its drafter and the draft length it was told, roughly as real ones do, so
that plans have something to work on. A seed decides everything but the time.
"""

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from paceline.control.messages import (
    EdgeCounters,
    EdgeGauges,
    EdgePolicy,
    EdgeTelemetry,
    Presence,
    VerifierCounters,
    VerifierDistance,
    VerifierStatus,
)
from paceline.messages import ModelIdentity
from paceline.mqtt.link import ControlLink, Will, control_link
from paceline.mqtt.settings import BrokerSettings
from paceline.topics import EDGE_POLICY, EDGE_PRESENCE, EDGE_TELEMETRY, VERIFIER_STATUS

TOKENIZER = bytes(range(32))
TARGET = ModelIdentity(
    name="Qwen3-32B",
    weights_fingerprint=bytes(32),
    dtype="bfloat16",
    quantisation="",
    tokenizer_fingerprint=TOKENIZER,
    vocabulary_size=151_936,
    context_length=32_768,
)


@dataclass(slots=True, kw_only=True)
class SimulatedEdge:
    """One edge's figures over time."""

    edge_id: str
    rtt_s: float = 0.03
    acceptance: float = 0.75
    draft_s: float = 0.012
    step_s: float = 0.04
    duty: float = 0.8
    """Part of the time in which it generates."""
    verifier: str = "gpu-a:50051"
    seed: int = 0
    draft_length: int = 4
    window: int = 16
    revision: int = 0
    steps_at_s: tuple[float, ...] = ()
    """Moments at which the round trip switches between its own and six times that."""
    counters: dict[str, float] = field(default_factory=dict)
    sequence: int = 0
    elapsed_s: float = 0.0
    drift: float = 0.0
    rng: random.Random = field(init=False)
    incarnation: int = field(init=False)
    phase: float = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.incarnation = self.rng.getrandbits(63) + 1
        self.phase = self.rng.random() * 6.28

    def follow(self, policy: EdgePolicy) -> None:
        """Do as told."""
        if policy.revision > self.revision:
            self.revision = policy.revision
            self.draft_length, self.window = policy.draft_length, policy.window

    def now(self) -> EdgeGauges:
        """Return how it is doing."""
        wave = math.sin(self.elapsed_s / 40.0 + self.phase)
        far = sum(moment <= self.elapsed_s for moment in self.steps_at_s) % 2 == 1
        rtt_s = self.rtt_s * (6.0 if far else 1.0) * (1.0 + 0.12 * wave + self.drift)
        acceptance = min(0.98, max(0.05, self.acceptance + 0.06 * wave - 0.2 * self.drift))
        return EdgeGauges(
            num_generations=1 if self.duty > 0 else 0,
            rtt_s=rtt_s,
            rtt_jitter_s=rtt_s * (0.06 + abs(self.drift)),
            draft_s=self.draft_s,
            step_s=self.step_s,
            acceptance_probability=acceptance,
            num_judged=200,
            draft_length=self.draft_length,
            window=self.window,
            policy_revision=self.revision,
            verifier=self.verifier,
        )

    def advance(self, seconds: float) -> EdgeTelemetry:
        """Let time pass and return what the edge tells then."""
        self.elapsed_s += seconds
        self.drift = max(-0.3, min(0.5, 0.8 * self.drift + self.rng.gauss(0.0, 0.05)))
        gauges = self.now()
        a, length = gauges.acceptance_probability, gauges.draft_length
        cover = length * self.draft_s / (gauges.rtt_s + 2 * self.step_s)
        useful = min(length, self.step_s / self.draft_s * min(1.0, cover))
        tokens_per_s = (1 - a ** (useful + 1)) / (1 - a) / self.step_s
        busy_s = seconds * self.duty * (0.85 + 0.3 * self.rng.random())
        committed = tokens_per_s * busy_s
        judged = committed * 0.8
        drafted = judged / max(0.3, a ** (length / 10))
        late = max(0.0, 1.0 - cover) * drafted * 0.15
        self._count(
            committed=committed,
            drafted=drafted,
            judged=judged,
            accepted=judged * a,
            late=late,
            stale=max(0.0, drafted - judged - late) * 0.9,
            steps=busy_s / self.step_s,
            busy_ns=busy_s * 1e9,
            drafting_tokens=drafted,
            payload_bytes_up=drafted * 4,
        )
        self.sequence += 1
        return EdgeTelemetry(
            incarnation=self.incarnation,
            sequence=self.sequence,
            tokenizer_fingerprint=TOKENIZER,
            counters=EdgeCounters(**{name: int(value) for name, value in self.counters.items()}),
            gauges=gauges,
            verifiers=(VerifierDistance(address=self.verifier, rtt_s=gauges.rtt_s),),
            drafter="SmolLM2-135M",
        )

    def _count(self, **more: float) -> None:
        for name, value in more.items():
            self.counters[name] = self.counters.get(name, 0.0) + value


@dataclass(slots=True, kw_only=True)
class SimulatedVerifier:
    """One verifier's figures over time."""

    verifier_id: str
    address: str
    max_sessions: int = 64
    num_sessions: int = 10
    step_s: float = 0.04
    draining: bool = False
    seed: int = 0
    target: ModelIdentity = TARGET
    sequence: int = 0
    committed: float = 0.0
    rng: random.Random = field(init=False)
    incarnation: int = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.incarnation = self.rng.getrandbits(63) + 1

    def advance(self, seconds: float) -> VerifierStatus:
        """Let time pass and return what the verifier tells then."""
        self.sequence += 1
        sway = self.rng.choice((-1, 0, 0, 1))
        self.num_sessions = max(0, min(self.max_sessions, self.num_sessions + sway))
        load = self.num_sessions / self.max_sessions
        self.committed += seconds * self.num_sessions * 2.6 / self.step_s
        return VerifierStatus(
            online=True,
            incarnation=self.incarnation,
            sequence=self.sequence,
            address=self.address,
            target=self.target,
            draining=self.draining,
            max_sessions=self.max_sessions,
            num_sessions=self.num_sessions,
            row_budget=256,
            step_s=self.step_s * (1.0 + 0.25 * load),
            queue_s=self.step_s * load * load * (0.6 + 0.2 * self.rng.random()),
            busy=min(0.99, 0.2 + 0.75 * load + 0.02 * self.rng.random()),
            row_price_s=0.0002 * load,
            counters=VerifierCounters(committed=int(self.committed), steps=self.sequence * 50),
            version="0.1.0",
        )


def small_fleet(number: int = 18, *, seed: int = 1) -> list[SimulatedEdge]:
    """Return edges as different as those of a real fleet; the link of the first becomes long for two minutes."""
    rng = random.Random(seed)
    kinds = ("laptop", "jetson", "gateway", "kiosk", "robot", "phone")
    return [
        SimulatedEdge(
            edge_id=f"{kinds[index % len(kinds)]}-{index // len(kinds) + 1:02d}",
            rtt_s=rng.choice((0.012, 0.02, 0.035, 0.06, 0.09, 0.15)),
            acceptance=0.93 if index == 0 else rng.uniform(0.55, 0.92),
            draft_s=rng.choice((0.006, 0.01, 0.014)),
            step_s=0.04,
            duty=rng.choice((0.3, 0.6, 0.8, 1.0)),
            verifier=("gpu-a:50051", "gpu-b:50051")[index % 3 == 2],
            seed=seed * 1000 + index,
            steps_at_s=(150.0, 260.0) if index == 0 else (),
        )
        for index in range(number)
    ]


def small_verifiers() -> list[SimulatedVerifier]:
    """Return three verifiers: a busy one, a quiet one, one that goes."""
    return [
        SimulatedVerifier(verifier_id="gpu-a", address="gpu-a:50051", num_sessions=47, seed=1),
        SimulatedVerifier(verifier_id="gpu-b", address="gpu-b:50051", num_sessions=14, seed=2),
        SimulatedVerifier(
            verifier_id="gpu-old", address="gpu-old:50051", num_sessions=3, draining=True, seed=3
        ),
    ]


@contextlib.asynccontextmanager
async def telling(
    broker: BrokerSettings,
    edges: Sequence[SimulatedEdge],
    verifiers: Sequence[SimulatedVerifier] = (),
    *,
    interval_s: float = 5.0,
    speed: float = 1.0,
) -> AsyncIterator[list[ControlLink]]:
    """Let them tell while the body runs, each over a connection of its own with its will.

    Args:
        broker: where.
        edges: each tells every `interval_s`; the first time at once.
        verifiers: the same, three times as often.
        interval_s: real seconds.
        speed: simulated seconds per real one.
    """
    async with contextlib.AsyncExitStack() as stack:
        links = [await stack.enter_async_context(_edge_link(broker, edge)) for edge in edges]
        verifier_links = [
            await stack.enter_async_context(_verifier_link(broker, verifier))
            for verifier in verifiers
        ]
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [
            group.create_task(task)
            for edge, link in zip(edges, links, strict=True)
            for task in (
                _tell_edge(link, edge, interval_s=interval_s, speed=speed),
                _obey(link, edge),
            )
        ]
        tasks += [
            group.create_task(
                _tell_verifier(link, verifier, interval_s=interval_s / 3, speed=speed)
            )
            for verifier, link in zip(verifiers, verifier_links, strict=True)
        ]
        try:
            yield [*links, *verifier_links]
        finally:
            for task in tasks:
                task.cancel()


def _edge_link(
    broker: BrokerSettings, edge: SimulatedEdge
) -> contextlib.AbstractAsyncContextManager[ControlLink]:
    gone = Presence(online=False, incarnation=edge.incarnation)
    will = Will(topic=EDGE_PRESENCE, member=edge.edge_id, value=gone)
    return control_link(
        broker, name=f"edge-{edge.edge_id}", will=will, subscriptions=(EDGE_POLICY,)
    )


def _verifier_link(
    broker: BrokerSettings, verifier: SimulatedVerifier
) -> contextlib.AbstractAsyncContextManager[ControlLink]:
    gone = VerifierStatus(online=False, incarnation=verifier.incarnation)
    will = Will(topic=VERIFIER_STATUS, member=verifier.verifier_id, value=gone)
    return control_link(broker, name=f"verifier-{verifier.verifier_id}", will=will)


async def _tell_edge(
    link: ControlLink, edge: SimulatedEdge, *, interval_s: float, speed: float
) -> None:
    online = Presence(online=True, incarnation=edge.incarnation, version="0.1.0")
    link.publish(EDGE_PRESENCE, edge.edge_id, online)
    while True:
        link.publish(EDGE_TELEMETRY, edge.edge_id, edge.advance(interval_s * speed))
        await asyncio.sleep(interval_s)


async def _obey(link: ControlLink, edge: SimulatedEdge) -> None:
    async for received in link.messages():
        if received.member == edge.edge_id and isinstance(received.value, EdgePolicy):
            edge.follow(received.value)


async def _tell_verifier(
    link: ControlLink, verifier: SimulatedVerifier, *, interval_s: float, speed: float
) -> None:
    while True:
        link.publish(VERIFIER_STATUS, verifier.verifier_id, verifier.advance(interval_s * speed))
        await asyncio.sleep(interval_s)
