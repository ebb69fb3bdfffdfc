"""The edge's figures for Prometheus. docs/observability.md says what each one counts and where vLLM's differs."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from edge.agent import Agent
from paceline.client.outcome import EndReason, Statistics
from paceline.control.messages import EdgeCounters, EdgeGauges
from paceline.errors import PacelineError
from paceline.metrics.buckets import FIRST_TOKEN_S, REQUEST_S, TOKEN_GAP_S
from paceline.metrics.distribution import Distribution, Spread
from paceline.metrics.figures import Figure, Figures, new_registry
from paceline.metrics.serving import serving_metrics
from paceline.settings import Address

_ERROR = "error"
_HOW = {EndReason.STOP: "stop", EndReason.LENGTH: "length", EndReason.CANCELLED: "abort"}
"""How a generation ended, in vLLM's words."""


class GenerationMeter:
    """Observes a client's generations (`ClientObserver`): how they ended, and how long a user waited."""

    def __init__(self) -> None:
        self.ended = dict.fromkeys([*_HOW.values(), _ERROR], 0)
        """Generations by how they ended."""
        self._first_token = Distribution(FIRST_TOKEN_S)
        self._duration = Distribution(REQUEST_S)
        self._per_token = Distribution(TOKEN_GAP_S)

    def generation_started(self) -> None:
        """Nothing to measure yet."""

    def generation_ended(
        self, *, statistics: Statistics, reason: EndReason | None, error: PacelineError | None
    ) -> None:
        """Take what a generation cost."""
        del error  # its kind is in the log
        self.ended[_ERROR if reason is None else _HOW[reason]] += 1
        if statistics.committed > 0:
            self._first_token.add(statistics.time_to_first_token_s)
        if statistics.committed > 1:
            after_s = statistics.duration_s - statistics.time_to_first_token_s
            self._per_token.add(after_s / (statistics.committed - 1))
        if reason in {EndReason.STOP, EndReason.LENGTH}:
            self._duration.add(statistics.duration_s)

    @property
    def first_token(self) -> Spread:
        """From the request to its first token, in seconds."""
        return self._first_token.spread

    @property
    def duration(self) -> Spread:
        """From the request to the end of the text, in seconds; those whose text did not end are not counted."""
        return self._duration.spread

    @property
    def per_token(self) -> Spread:
        """Mean time between two tokens of a generation, in seconds."""
        return self._per_token.spread


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeStatistics:
    """Everything that the figures are told from."""

    counters: EdgeCounters
    gauges: EdgeGauges
    generations: GenerationMeter


_Value = Callable[[EdgeStatistics], float]


def _counter(name: str, text: str, value: _Value) -> Figure[EdgeStatistics]:
    return Figure(name=f"paceline:{name}", kind="counter", help=text, value=value)


def _gauge(name: str, text: str, value: _Value) -> Figure[EdgeStatistics]:
    return Figure(name=f"paceline:{name}", kind="gauge", help=text, value=value)


def _histogram(
    name: str, text: str, value: Callable[[GenerationMeter], Spread]
) -> Figure[EdgeStatistics]:
    return Figure(
        name=f"paceline:{name}",
        kind="histogram",
        help=text,
        value=lambda now: value(now.generations),
    )


_AS_VLLM: tuple[Figure[EdgeStatistics], ...] = (
    _gauge(
        "num_requests_running", "Generations under way.", lambda now: now.gauges.num_generations
    ),
    _counter("generation_tokens", "Committed tokens.", lambda now: now.counters.committed),
    Figure(
        name="paceline:request_success",
        kind="counter",
        help="Generations ended, by how.",
        label="finished_reason",
        value=lambda now: now.generations.ended,
    ),
    _histogram(
        "time_to_first_token_seconds",
        "From the request to its first token.",
        lambda generations: generations.first_token,
    ),
    _histogram(
        "request_time_per_output_token_seconds",
        "Mean time between two tokens of a generation.",
        lambda generations: generations.per_token,
    ),
    _histogram(
        "e2e_request_latency_seconds",
        "From the request to the end of the text.",
        lambda generations: generations.duration,
    ),
    _counter(
        "spec_decode_num_draft_tokens",
        "Drafted tokens sent.",
        lambda now: now.counters.drafted,
    ),
    _counter(
        "spec_decode_num_accepted_tokens",
        "Drafted tokens that the target kept.",
        lambda now: now.counters.accepted,
    ),
)

_OUR_OWN: tuple[Figure[EdgeStatistics], ...] = (
    _counter(
        "spec_decode_num_judged_tokens",
        "Drafted tokens that the target compared.",
        lambda now: now.counters.judged,
    ),
    _counter(
        "spec_decode_num_late_tokens",
        "Drafted tokens that came after the same token had been committed.",
        lambda now: now.counters.late,
    ),
    _counter(
        "spec_decode_num_stale_tokens",
        "Drafted tokens that contradicted the committed text.",
        lambda now: now.counters.stale,
    ),
    _counter(
        "session_steps",
        "Steps of the target that gave tokens.",
        lambda now: now.counters.steps,
    ),
    _counter(
        "proposals",
        "Messages that carried drafted tokens.",
        lambda now: now.counters.proposals,
    ),
    Figure(
        name="paceline:payload_bytes",
        kind="counter",
        help="Serialised messages to verifiers (up) and from them (down).",
        label="direction",
        value=lambda now: {
            "up": now.counters.payload_bytes_up,
            "down": now.counters.payload_bytes_down,
        },
    ),
    _counter(
        "reconnects",
        "Streams after the first of their generation.",
        lambda now: now.counters.reconnects,
    ),
    _counter(
        "busy_seconds",
        "Time in which at least one generation ran.",
        lambda now: now.counters.busy_ns / 1e9,
    ),
    _counter(
        "drafting_seconds", "Time the drafter worked.", lambda now: now.counters.drafting_ns / 1e9
    ),
    _counter(
        "drafting_tokens",
        "Tokens the drafter gave, sent or not.",
        lambda now: now.counters.drafting_tokens,
    ),
    _counter(
        "control_messages_dropped",
        "Messages to the control plane dropped for newer ones.",
        lambda now: now.counters.dropped,
    ),
    _counter(
        "control_messages_malformed",
        "Messages of the control plane that could not be read.",
        lambda now: now.counters.malformed,
    ),
    _gauge("rtt_seconds", "Round trip to the verifier in use.", lambda now: now.gauges.rtt_s),
    _gauge(
        "rtt_jitter_seconds",
        "How far the round trip typically strays.",
        lambda now: now.gauges.rtt_jitter_s,
    ),
    _gauge(
        "draft_token_seconds",
        "Time of the drafter for one token.",
        lambda now: now.gauges.draft_s,
    ),
    _gauge(
        "verifier_step_seconds",
        "Time of a step of the verifier in use.",
        lambda now: now.gauges.step_s,
    ),
    _gauge(
        "acceptance_probability",
        "Accepted / judged over the recent past.",
        lambda now: now.gauges.acceptance_probability,
    ),
    _gauge("draft_length", "How many tokens deep it drafts.", lambda now: now.gauges.draft_length),
    _gauge("draft_window", "Most drafted tokens in flight.", lambda now: now.gauges.window),
    _gauge(
        "policy_revision",
        "Revision of the policy followed; 0 if the edge decides by itself.",
        lambda now: now.gauges.policy_revision,
    ),
)

EDGE_FIGURES = (*_AS_VLLM, *_OUR_OWN)


def edge_registry(
    *,
    counters: Callable[[], EdgeCounters],
    gauges: Callable[[], EdgeGauges],
    generations: GenerationMeter,
) -> CollectorRegistry:
    """Return the figures of an edge; both functions are called once per scrape, on the event loop."""

    def read() -> EdgeStatistics:
        return EdgeStatistics(counters=counters(), gauges=gauges(), generations=generations)

    registry = new_registry("edge")
    registry.register(Figures(read, EDGE_FIGURES))
    return registry


@asynccontextmanager
async def serving_edge_metrics(
    agent: Agent, *, generations: GenerationMeter, listen: Address | None
) -> AsyncIterator[Address | None]:
    """Serve an edge's figures while the body runs; gives the address with the real port.

    Args:
        agent: the edge.
        generations: the observer that it was opened with.
        listen: where; None serves nothing and gives None.

    Raises:
        ConfigError: the address cannot be listened at.
    """
    registry = edge_registry(counters=agent.counters, gauges=agent.gauges, generations=generations)
    async with serving_metrics(registry, listen) as address:
        yield address
