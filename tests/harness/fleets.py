"""Edges and verifiers as the orchestrator hears of them, for tests of what it makes of it."""

from dataclasses import replace

from orchestrator.fleet import Event, Fleet, Telemetry, VerifierSeen, fold
from paceline.control.messages import (
    EdgeCounters,
    EdgeGauges,
    EdgeTelemetry,
    VerifierDistance,
    VerifierStatus,
)
from paceline.messages import ModelIdentity

TARGET = ModelIdentity(
    name="target",
    weights_fingerprint=b"w" * 32,
    dtype="float32",
    quantisation="",
    tokenizer_fingerprint=b"t" * 32,
    vocabulary_size=256,
    context_length=1024,
)


def telemetry_of(
    *,
    sequence: int = 1,
    incarnation: int = 1,
    gauges: EdgeGauges | None = None,
    distances: dict[str, float] | None = None,
    tokenizer: bytes = TARGET.tokenizer_fingerprint,
) -> EdgeTelemetry:
    """Return a message of an edge whose every counter grows by a round number with each."""
    return EdgeTelemetry(
        incarnation=incarnation,
        sequence=sequence,
        tokenizer_fingerprint=tokenizer,
        counters=counters_of(sequence),
        gauges=gauges if gauges is not None else gauges_of(),
        verifiers=tuple(
            VerifierDistance(address=address, rtt_s=rtt_s)
            for address, rtt_s in (distances or {}).items()
        ),
    )


def counters_of(times: int) -> EdgeCounters:
    return EdgeCounters(
        committed=100 * times,
        drafted=80 * times,
        judged=60 * times,
        accepted=48 * times,
        late=8 * times,
        stale=4 * times,
        steps=52 * times,
        payload_bytes_up=240 * times,
        busy_ns=2_000_000_000 * times,
    )


def gauges_of(**changes: float | str) -> EdgeGauges:
    """Return an edge 20 ms away that drafts at 10 ms per token for steps of 40 ms."""
    usual = EdgeGauges(
        num_generations=1,
        rtt_s=0.02,
        rtt_jitter_s=0.001,
        draft_s=0.01,
        step_s=0.04,
        acceptance_probability=0.95,
        num_judged=200,
        draft_length=8,
        window=64,
        verifier="a:50051",
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def status_of(address: str, **changes: object) -> VerifierStatus:
    usual = VerifierStatus(
        online=True,
        incarnation=1,
        sequence=1,
        address=address,
        target=TARGET,
        max_sessions=16,
        row_budget=128,
        step_s=0.04,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def verifier_seen(name: str, *, at_s: float = 0.0, **changes: object) -> VerifierSeen:
    """Return the status of verifier `name`, which is at name:50051."""
    return VerifierSeen(verifier_id=name, status=status_of(f"{name}:50051", **changes), at_s=at_s)


def told(edge_id: str, *, at_s: float = 0.0, telemetry: EdgeTelemetry | None = None) -> Telemetry:
    return Telemetry(
        edge_id=edge_id, telemetry=telemetry if telemetry is not None else telemetry_of(), at_s=at_s
    )


def fleet_of(*events: Event) -> Fleet:
    return fold(Fleet(), events)
