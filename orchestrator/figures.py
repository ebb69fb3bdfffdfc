"""The orchestrator's own figures as frozen values, for the page, the API and Prometheus."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.feed import FeedStatistics
from orchestrator.fleet import Fleet, Ignored
from orchestrator.history import HistoryStatistics
from orchestrator.intake import IntakeStatistics
from paceline.metrics.distribution import Distribution, Spread
from paceline.mqtt.link import Statistics

LATENCY_BOUNDS_S = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    1.0,
    2.5,
    5.0,
)
WORK_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
MAX_RECENT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFigures:
    """How the orchestrator is doing, at one moment."""

    uptime_s: float
    is_connected: bool
    edges: dict[str, int]
    """Edges by state."""
    verifiers: dict[str, int]
    """The same of verifiers; `draining` ones are online too, but counted apart."""
    intake: IntakeStatistics
    link: Statistics
    feed: FeedStatistics
    history: HistoryStatistics
    ignored: Ignored
    num_policies: int
    """Policies decided and handed to the link."""
    latency: Spread
    """Message arrived to policy handed to the link, seconds."""
    fold: Spread
    """Time of a fold, seconds."""
    plan: Spread
    """Time of a plan, seconds."""
    latency_median_s: float | None
    """Of the last MAX_RECENT decisions; None before the first."""
    latency_p99_s: float | None

    @property
    def num_shed(self) -> int:
        """Messages that were pushed out unread."""
        return self.link.shed + self.intake.num_shed


class Timings:
    """Counts how long things took."""

    def __init__(self) -> None:
        self.latency = Distribution(LATENCY_BOUNDS_S)
        self.fold = Distribution(WORK_BOUNDS_S)
        self.plan = Distribution(WORK_BOUNDS_S)
        self._recent: deque[float] = deque(maxlen=MAX_RECENT)

    def decided(self, latency_s: float) -> None:
        """Count a decision."""
        self.latency.add(latency_s)
        self._recent.append(latency_s)

    def quantiles(self, *parts: float) -> tuple[float | None, ...]:
        """Return quantiles of the recent decisions; None before the first."""
        ordered = sorted(self._recent)
        return tuple(_quantile(ordered, part) for part in parts)


def counted(fleet: Fleet) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many edges and verifiers are in which state; every state is there."""
    edges = Counter(edge.state.value for edge in fleet.edges.values())
    verifiers = Counter(
        "draining"
        if verifier.status.draining and verifier.state.value == "online"
        else verifier.state.value
        for verifier in fleet.verifiers.values()
    )
    states = ("online", "silent", "offline")
    return (
        {state: edges[state] for state in states},
        {state: verifiers[state] for state in ("online", "draining", "silent", "offline")},
    )


def _quantile(ordered: Sequence[float], part: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None
