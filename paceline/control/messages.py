"""What edges, verifiers and the orchestrator tell each other: frozen mirrors of `proto/paceline/v1/control.proto`.

The schema tells every field; here stand units that differ from it (seconds for nanoseconds) and what is derived. Counters are sums
since the program of this `incarnation` started: subtract two messages, divide sums by sums.
"""

from dataclasses import dataclass, field, fields

from paceline.messages import ModelIdentity

MAX_REVISION = 2**53
"""A count never gets there; what is above is forged, and nothing that follows it would count."""

MAX_POLICY_VERIFIERS = 16
MAX_TELEMETRY_VERIFIERS = 64
MAX_DRAFT_LENGTH = 4096
MAX_WINDOW = 4096
MAX_EXPLANATION_BYTES = 512
MAX_VERSION_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """That an edge or the orchestrator is there."""

    online: bool
    incarnation: int
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCounters:
    """Sums since an edge started. See `EdgeCounters` of the schema."""

    num_generations: int = 0
    num_failed: int = 0
    committed: int = 0
    drafted: int = 0
    judged: int = 0
    accepted: int = 0
    late: int = 0
    stale: int = 0
    steps: int = 0
    proposals: int = 0
    payload_bytes_up: int = 0
    payload_bytes_down: int = 0
    busy_ns: int = 0
    drafting_ns: int = 0
    drafting_tokens: int = 0
    reconnects: int = 0
    dropped: int = 0
    malformed: int = 0

    def minus(self, earlier: "EdgeCounters") -> "EdgeCounters":
        """Return what happened since an earlier message of the same incarnation."""
        return EdgeCounters(
            **{
                item.name: getattr(self, item.name) - getattr(earlier, item.name)
                for item in fields(self)
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeGauges:
    """How an edge is doing now. 0 stands for what is not known yet."""

    num_generations: int = 0
    rtt_s: float = 0.0
    rtt_jitter_s: float = 0.0
    draft_s: float = 0.0
    """Time of the drafter for one token."""
    step_s: float = 0.0
    """Time of a step of the verifier in use."""
    acceptance_probability: float = 0.0
    """Accepted / judged over the recent past."""
    num_judged: int = 0
    """How many drafted tokens `acceptance_probability` rests on."""
    draft_length: int = 0
    window: int = 0
    policy_revision: int = 0
    verifier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierDistance:
    """How far a verifier is from an edge."""

    address: str
    rtt_s: float
    """0: it did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTelemetry:
    """What an edge measures and does."""

    incarnation: int
    sequence: int
    tokenizer_fingerprint: bytes
    counters: EdgeCounters = field(default_factory=EdgeCounters)
    gauges: EdgeGauges = field(default_factory=EdgeGauges)
    verifiers: tuple[VerifierDistance, ...] = ()
    drafter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgePolicy:
    """What an edge should do."""

    revision: int
    draft_length: int
    window: int
    verifiers: tuple[str, ...] = ()
    explanation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierCounters:
    """Sums since a verifier started."""

    sessions: int = 0
    steps: int = 0
    rows: int = 0
    committed: int = 0
    judged: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierStatus:
    """What a verifier offers and how busy it is. Offline: nothing but the incarnation counts."""

    online: bool
    incarnation: int
    sequence: int = 0
    address: str = ""
    target: ModelIdentity | None = None
    """None if it is offline."""
    draining: bool = False
    max_sessions: int = 0
    num_sessions: int = 0
    row_budget: int = 0
    step_s: float = 0.0
    queue_s: float = 0.0
    busy: float = 0.0
    """Part of the recent time in which the model worked; 0 to 1."""
    row_price_s: float = 0.0
    counters: VerifierCounters = field(default_factory=VerifierCounters)
    version: str = ""
