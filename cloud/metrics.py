"""The verifier's figures for Prometheus. docs/observability.md says what each one counts and where vLLM's differs."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry

from cloud.account import VerifierStatistics
from cloud.step_cost import StepCosts
from paceline.errors import PacelineError
from paceline.messages import ModelIdentity
from paceline.metrics.figures import Figure, Figures, Info, new_registry

_Value = Callable[[VerifierStatistics], float]


def _counter(name: str, text: str, value: _Value) -> Figure[VerifierStatistics]:
    return Figure(name=f"paceline:{name}", kind="counter", help=text, value=value)


def _gauge(name: str, text: str, value: _Value) -> Figure[VerifierStatistics]:
    return Figure(name=f"paceline:{name}", kind="gauge", help=text, value=value)


def _reasons(kind: type[PacelineError] = PacelineError) -> Iterator[str]:
    """Give every reason that a refusal can have."""
    if kind.__module__ == PacelineError.__module__:
        yield kind.reason
    for below in kind.__subclasses__():
        yield from _reasons(below)


_NO_REFUSALS = dict.fromkeys(sorted(set(_reasons())), 0)


def _cost_parts(costs: StepCosts | None) -> dict[str, float]:
    """Return the coefficients by name; all 0 before the first step."""
    told = costs or StepCosts(fixed_s=0.0)
    return {
        "fixed": told.fixed_s,
        "session": told.per_session_s,
        "row": told.per_row_s,
        "prefill_row": told.per_prefill_row_s,
        "context_token": told.per_context_token_s,
        "attended_token": told.per_attended_s,
    }


_AS_VLLM: tuple[Figure[VerifierStatistics], ...] = (
    _gauge(
        "num_requests_running",
        "Sessions whose text goes on and whose rows are in steps.",
        lambda now: now.num_running,
    ),
    _gauge(
        "num_requests_waiting",
        "Sessions that wait for memory or for a prefix that another one computes.",
        lambda now: now.num_waiting,
    ),
    _gauge(
        "kv_cache_usage_perc",
        "Part of the cache's budget that open sessions have reserved; 1 is all of it.",
        lambda now: now.memory.reserved / now.memory.budget,
    ),
    _counter(
        "prefix_cache_queries",
        "Tokens looked up in the prefix cache.",
        lambda now: now.prefix.num_queried,
    ),
    _counter(
        "prefix_cache_hits", "Tokens found in the prefix cache.", lambda now: now.prefix.num_hit
    ),
    _counter("prompt_tokens", "Tokens of prompts.", lambda now: now.prompt_tokens),
    _counter("generation_tokens", "Committed tokens.", lambda now: now.committed),
    Figure(
        name="paceline:request_success",
        kind="counter",
        help="Sessions ended, by how.",
        label="finished_reason",
        value=lambda now: now.ended,
    ),
    Figure(
        name="paceline:time_to_first_token_seconds",
        kind="histogram",
        help="From opening a session to its first token.",
        value=lambda now: now.first_token,
    ),
    Figure(
        name="paceline:inter_token_latency_seconds",
        kind="histogram",
        help="From one step that gave a session tokens to the next.",
        value=lambda now: now.token_gap,
    ),
    Figure(
        name="paceline:e2e_request_latency_seconds",
        kind="histogram",
        help="From opening a session to the end of its text.",
        value=lambda now: now.duration,
    ),
    Figure(
        name="paceline:request_queue_time_seconds",
        kind="histogram",
        help="From opening a session to the beginning of its first step.",
        value=lambda now: now.queue,
    ),
    _counter(
        "spec_decode_num_drafts",
        "Steps of a session in which at least one drafted token was judged.",
        lambda now: now.num_drafts,
    ),
    _counter(
        "spec_decode_num_draft_tokens",
        "Drafted tokens that arrived.",
        lambda now: now.drafts.drafted,
    ),
    _counter(
        "spec_decode_num_accepted_tokens",
        "Drafted tokens that the target kept.",
        lambda now: now.drafts.accepted,
    ),
    Figure(
        name="paceline:spec_decode_num_accepted_tokens_per_pos",
        kind="counter",
        help="Drafts whose token at this depth, from 0, was accepted.",
        label="position",
        value=lambda now: {
            str(position): count for position, count in enumerate(now.accepted_per_position)
        },
    ),
)

_OUR_OWN: tuple[Figure[VerifierStatistics], ...] = (
    _counter(
        "spec_decode_num_judged_tokens",
        "Drafted tokens that the target compared.",
        lambda now: now.drafts.judged,
    ),
    _counter(
        "spec_decode_num_late_tokens",
        "Drafted tokens that came after the same token had been committed.",
        lambda now: now.drafts.late,
    ),
    _counter(
        "spec_decode_num_stale_tokens",
        "Drafted tokens that contradicted the committed text.",
        lambda now: now.drafts.stale,
    ),
    _counter(
        "race_draft_tokens",
        "Draft rows that the verifier alone guessed.",
        lambda now: now.race_drafted,
    ),
    _counter(
        "race_accepted_tokens",
        "Of these, those that the target drew.",
        lambda now: now.race_accepted,
    ),
    _gauge("num_sessions", "Sessions, with or without a stream.", lambda now: now.num_sessions),
    _gauge("max_sessions", "Most sessions at once.", lambda now: now.max_sessions),
    _gauge("num_streams", "Sessions whose edge is connected.", lambda now: now.num_streams),
    _gauge("draining", "1 while no new session is taken.", lambda now: float(now.is_draining)),
    _counter("sessions_opened", "Sessions opened.", lambda now: now.num_opened),
    _counter(
        "streams_resumed", "Streams that came back to a session.", lambda now: now.num_resumed
    ),
    Figure(
        name="paceline:requests_refused",
        kind="counter",
        help="Calls refused, by reason on the wire; OVERLOADED are those shed.",
        label="reason",
        value=lambda now: {**_NO_REFUSALS, **now.refused},
    ),
    _counter(
        "session_steps", "Times a session got tokens from a step.", lambda now: now.num_served
    ),
    _counter(
        "session_queue_seconds",
        "Time that sessions waited for these steps.",
        lambda now: now.queue_ns / 1e9,
    ),
    _counter("steps", "Steps of the target.", lambda now: now.steps.num_steps),
    Figure(
        name="paceline:step_rows",
        kind="counter",
        help="Rows of all steps: prompts, or roots and drafts.",
        label="kind",
        value=lambda now: {
            "prefill": now.steps.num_prefill_rows,
            "verify": now.steps.num_rows - now.steps.num_prefill_rows,
        },
    ),
    Figure(
        name="paceline:step_seconds",
        kind="counter",
        help="Time of the model thread in steps, by what it did.",
        label="part",
        value=lambda now: {
            "forward": now.steps.forward_ns / 1e9,
            "sampling": now.steps.sampling_ns / 1e9,
            "walk": now.steps.walk_ns / 1e9,
            "commit": now.steps.commit_ns / 1e9,
            "padding": now.steps.padding_ns / 1e9,
        },
    ),
    Figure(
        name="paceline:forward_seconds",
        kind="counter",
        help="Time of forward passes, by what the model did.",
        label="part",
        value=lambda now: {
            "planning": now.engine.plan_ns / 1e9,
            "layers": now.engine.linear_ns / 1e9,
            "attention": now.engine.attention_ns / 1e9,
            "head": now.engine.head_ns / 1e9,
        },
    ),
    _gauge("recent_step_seconds", "Time of a step, recently.", lambda now: now.load.step_s),
    _gauge(
        "recent_queue_seconds",
        "Time a session waited for its step, recently.",
        lambda now: now.load.queue_s,
    ),
    _gauge("model_busy_ratio", "Part of recent time the model worked.", lambda now: now.load.busy),
    _gauge(
        "row_price_seconds",
        "What a row costs the other sessions of its step, recently.",
        lambda now: now.load.row_price_s,
    ),
    Figure(
        name="paceline:spec_decode_scheduled_rows",
        kind="counter",
        help="Draft rows that sessions in a step had to offer: those it had, and those left out.",
        label="fate",
        value=lambda now: {"chosen": now.drafts_chosen, "left_out": now.drafts_left_out},
    ),
    _counter(
        "spec_decode_expected_tokens",
        "Committed tokens to be expected of the draft rows chosen.",
        lambda now: now.drafts_expected,
    ),
    Figure(
        name="paceline:step_cost_seconds",
        kind="gauge",
        help="What a step takes, fitted: fixed, and for each of what it computes.",
        label="part",
        value=lambda now: _cost_parts(now.costs),
    ),
    Figure(
        name="paceline:payload_bytes",
        kind="counter",
        help="Serialised messages from edges (up) and to them (down).",
        label="direction",
        value=lambda now: {"up": now.payload_bytes_up, "down": now.payload_bytes_down},
    ),
    Figure(
        name="paceline:kv_cache_bytes",
        kind="gauge",
        help="Memory of the cache: budget, reserved by sessions, used of all, shared prefixes.",
        label="kind",
        value=lambda now: {
            "budget": now.memory.budget,
            "reserved": now.memory.reserved,
            "used": now.memory.used,
            "shared": now.memory.shared,
        },
    ),
)

VERIFIER_FIGURES = (*_AS_VLLM, *_OUR_OWN)


def verifier_registry(
    read: Callable[[], VerifierStatistics], *, target: ModelIdentity
) -> CollectorRegistry:
    """Return the figures of a verifier.

    Args:
        read: returns what it has done so far; called once per scrape, on the event loop.
        target: the model it serves.
    """
    registry = new_registry("cloud")
    labels = {
        "model_name": target.name,
        "dtype": target.dtype,
        "quantisation": target.quantisation,
        "weights": target.weights_fingerprint.hex()[:16],
    }
    registry.register(Info("paceline:target", "The target model.", labels))
    registry.register(Figures(read, VERIFIER_FIGURES))
    return registry
