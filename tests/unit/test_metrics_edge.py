"""The edge's figures: what a client counted, and how its generations ended."""

from prometheus_client import CollectorRegistry

from edge.metrics import GenerationMeter, edge_registry
from paceline.client.outcome import EndReason, Statistics
from paceline.control.messages import EdgeCounters, EdgeGauges
from paceline.errors import LinkClosed


def registry(generations: GenerationMeter) -> CollectorRegistry:
    return edge_registry(
        counters=lambda: EdgeCounters(
            committed=90, drafted=80, judged=60, accepted=45, busy_ns=2_500_000_000
        ),
        gauges=lambda: EdgeGauges(num_generations=2, rtt_s=0.06, draft_length=5),
        generations=generations,
    )


def test_counters_and_gauges_are_told_in_seconds() -> None:
    found = registry(GenerationMeter())
    assert found.get_sample_value("paceline:generation_tokens_total") == 90
    assert found.get_sample_value("paceline:spec_decode_num_accepted_tokens_total") == 45
    assert found.get_sample_value("paceline:busy_seconds_total") == 2.5
    assert found.get_sample_value("paceline:rtt_seconds") == 0.06
    assert found.get_sample_value("paceline:num_requests_running") == 2


def test_generations_are_counted_by_how_they_ended_and_timed_where_that_means_something() -> None:
    meter = GenerationMeter()
    full = Statistics(duration_s=5.5, time_to_first_token_s=0.5, committed=11)
    for reason in EndReason:
        meter.generation_started()
        meter.generation_ended(statistics=full, reason=reason, error=None)
    failed = Statistics(duration_s=9.0)
    meter.generation_ended(statistics=failed, reason=None, error=LinkClosed("link: gone"))
    found = registry(meter)

    def ended(how: str) -> float | None:
        return found.get_sample_value("paceline:request_success_total", {"finished_reason": how})

    assert [ended(how) for how in ("stop", "length", "abort", "error")] == [1, 1, 1, 1]
    assert found.get_sample_value("paceline:time_to_first_token_seconds_count") == 3
    assert found.get_sample_value("paceline:time_to_first_token_seconds_sum") == 1.5
    assert found.get_sample_value("paceline:request_time_per_output_token_seconds_sum") == 1.5
    assert found.get_sample_value("paceline:e2e_request_latency_seconds_count") == 2
    assert found.get_sample_value("paceline:e2e_request_latency_seconds_sum") == 11.0


def test_a_single_token_has_no_time_between_tokens() -> None:
    meter = GenerationMeter()
    one = Statistics(duration_s=0.5, time_to_first_token_s=0.5, committed=1)
    meter.generation_ended(statistics=one, reason=EndReason.LENGTH, error=None)
    found = registry(meter)
    assert found.get_sample_value("paceline:request_time_per_output_token_seconds_count") == 0
    assert found.get_sample_value("paceline:time_to_first_token_seconds_count") == 1
