"""Metrics of real programs: what both sides counted agrees, can be parsed, stays small, and is all described."""

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.event_loop import run_async
from harness.models import save_tiny
from harness.processes import Child, running
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cloud.metrics import VERIFIER_FIGURES
from edge.drafters import LookupDrafter
from edge.metrics import EDGE_FIGURES, GenerationMeter, edge_registry
from paceline import Client
from paceline.control.messages import EdgeCounters
from paceline.engine.loading import load_tokenizer, resolve
from paceline.errors import UnauthenticatedError
from paceline.metrics.serving import exposition
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "observability.md"
GREEDY = SamplingSettings(temperature=0.0)
COUNT = 12
"""Texts: so many that some draft is right, whichever come in time."""
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@contextmanager
def cloud(model: Path, *arguments: str) -> Iterator[tuple[Child, str, str]]:
    """A verifier on a tiny model, its address, and where its metrics are."""
    options = ("--target", str(model), "--listen", "127.0.0.1:0", "--threads", "1")
    own = ("cloud", *options, "--metrics-listen", "127.0.0.1:0", *arguments)
    general = ("--log-format", "json", "-v")
    with running("paceline.command", *general, *own, ready=r"ready on (\S+)") as child:
        assert child.ready is not None
        metrics = child.wait_for(r"^paceline cloud metrics on (http://127\.0\.0\.1:\d+/metrics)$")
        yield child, child.ready[1], metrics[1]


def scrape(url: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10.0) as answer:
        page: str = answer.read().decode()
    return page


def samples(page: str) -> Samples:
    return {
        (sample.name.removeprefix("paceline:"), tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(page)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


async def generations(address: str, model: Path, *, count: int) -> tuple[EdgeCounters, Samples]:
    """Some texts through the client; return what it counted and what its metrics say."""
    tokenizer = load_tokenizer(resolve(str(model)))
    meter = GenerationMeter()
    async with Client(
        verifiers=[address],
        tokenizer=tokenizer,
        drafter=LookupDrafter(shortest=1),
        observer=meter,
    ) as client:
        for number in range(count):
            prompt = [TokenId(token) for token in (5, 17, 99, 200 + number)]
            async with client.generate(
                prompt_ids=prompt, max_tokens=40, sampling=GREEDY
            ) as generation:
                await generation.complete()
        registry = edge_registry(counters=client.counters, gauges=client.gauges, generations=meter)
        body = exposition(registry).body
        assert isinstance(body, bytes)
        return client.counters(), samples(body.decode())


@pytest.mark.slow
def test_both_sides_tell_the_same_story(tmp_path: Path) -> None:
    model = save_tiny(tmp_path)
    with cloud(model, "--no-race") as (child, address, url):
        before = samples(scrape(url))
        assert of(before, "sessions_opened_total") == 0
        counted, edge = run_async(generations(address, model, count=COUNT))
        page = scrape(url)
        cloud_side = samples(page)
        openmetrics = scrape(url, "application/openmetrics-text;version=1.0.0;q=0.9,*/*;q=0.1")
        child.terminate()
        log = [json.loads(line) for line in child.stderr.splitlines() if line.startswith("{")]

    assert counted.accepted > 0
    assert counted.judged > counted.accepted, "a test in which nothing is rejected shows little"
    for name, value in {
        "generation_tokens_total": counted.committed,
        "spec_decode_num_draft_tokens_total": counted.drafted,
        "spec_decode_num_judged_tokens_total": counted.judged,
        "spec_decode_num_accepted_tokens_total": counted.accepted,
        "spec_decode_num_late_tokens_total": counted.late,
        "session_steps_total": counted.steps,
    }.items():
        assert of(edge, name) == value, name
        assert of(cloud_side, name) == value, name
    # What is stale is told with the next commit; after the last one there is none.
    stale = "spec_decode_num_stale_tokens_total"
    assert of(edge, stale) == counted.stale
    assert of(cloud_side, stale) >= counted.stale
    for direction in ("up", "down"):
        told = [of(side, "payload_bytes_total", direction=direction) for side in (edge, cloud_side)]
        assert told[0] == told[1] > 0
    for side in (edge, cloud_side):
        assert sum(of(side, "request_success_total", finished_reason=how) for how in ("stop", "length")) == COUNT  # fmt: skip
        assert of(side, "time_to_first_token_seconds_count") == COUNT
        assert of(side, "e2e_request_latency_seconds_count") == COUNT
    assert of(cloud_side, "prompt_tokens_total") == COUNT * 4
    assert of(cloud_side, "sessions_opened_total") == COUNT
    assert of(cloud_side, "num_sessions") == 0
    depths = [
        of(cloud_side, "spec_decode_num_accepted_tokens_per_pos_total", position=str(position))
        for position in range(32)
    ]
    assert sum(depths) == counted.accepted
    assert depths == sorted(depths, reverse=True)
    assert depths[0] <= of(cloud_side, "spec_decode_num_drafts_total") <= counted.steps
    parts = ("forward", "sampling", "walk", "commit", "padding")
    assert sum(of(cloud_side, "step_seconds_total", part=part) for part in parts) > 0
    inside = [
        of(cloud_side, "forward_seconds_total", part=part)
        for part in ("planning", "layers", "attention", "head")
    ]
    assert min(inside) > 0
    assert sum(inside) <= of(cloud_side, "step_seconds_total", part="forward")
    # Three steps read the three prompts, which came one after the other; a draft that was accepted had a row besides its root's.
    verify_steps = of(cloud_side, "steps_total") - COUNT
    assert of(cloud_side, "step_rows_total", kind="verify") >= verify_steps + counted.accepted

    families = {family.name for family in parse_openmetrics(openmetrics)}  # type: ignore[no-untyped-call]
    assert {figure.name for figure in VERIFIER_FIGURES} <= families
    ended = [line for line in log if line["message"] == "session ended"]
    assert sum(line["accepted"] for line in ended) == counted.accepted
    assert sum(line["committed"] for line in ended) == counted.committed
    opened = {line["session"] for line in log if line["message"] == "session opened"}
    assert len(opened) == COUNT
    assert opened == {line["session"] for line in ended}


@pytest.mark.slow
def test_who_is_refused_is_counted_and_a_scrape_stays_small(tmp_path: Path) -> None:
    model = save_tiny(tmp_path)
    with cloud(model, "--token", "t" * 32) as (_, address, url):
        first = scrape(url)
        with pytest.raises(UnauthenticatedError, match="authorization: got none"):
            run_async(generations(address, model, count=1))
        page = scrape(url)
    assert of(samples(page), "requests_refused_total", reason="UNAUTHENTICATED") >= 1
    assert of(samples(first), "requests_refused_total", reason="OVERLOADED") == 0
    # No label grows with use: only digits differ.
    assert len(page.splitlines()) == len(first.splitlines()) < 500
    assert len(page) < 40_000


@pytest.mark.slow
def test_an_edge_tells_what_its_users_got(tmp_path: Path) -> None:
    model = save_tiny(tmp_path)
    with cloud(model, "--no-race") as (_, address, url):
        options = ("--cloud", address, "--target", str(model), "--model-name", "any")
        listen = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
        ready = r"ready on (http://\S+/v1)"
        with running("paceline.command", "edge", *options, *listen, ready=ready) as child:
            assert child.ready is not None
            metrics = child.wait_for(r"^paceline edge metrics on (http://\S+/metrics)$")
            usage = complete(child.ready[1], prompt="a b a b a b a b", max_tokens=24)
            edge, cloud_side = samples(scrape(metrics[1])), samples(scrape(url))
    assert of(edge, "generation_tokens_total") == usage["completion_tokens"] > 0
    assert of(edge, "time_to_first_token_seconds_count") == 1
    assert of(edge, "num_requests_running") == 0
    assert of(edge, "draft_length") > 0
    assert of(edge, "rtt_seconds") > 0
    for name in ("generation_tokens_total", "spec_decode_num_accepted_tokens_total"):
        assert of(edge, name) == of(cloud_side, name)


def complete(base: str, *, prompt: str, max_tokens: int) -> dict[str, int]:
    """Ask an edge for a text; return what it says it used."""
    body = json.dumps(
        {"model": "any", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    )
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/completions", body.encode(), headers)
    with urllib.request.urlopen(request, timeout=30.0) as answer:
        usage: dict[str, int] = json.load(answer)["usage"]
    return usage


def test_every_figure_is_described_and_none_is_invented() -> None:
    """The names are an interface: dashboards and alerts use them. Changing one breaks this test and the page."""
    page = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(paceline:\w+)(?:\{\w+\})?` \| (\w+) \|", page, re.MULTILINE))
    labels = dict(re.findall(r"^\| `(paceline:\w+)\{(\w+)\}` \|", page, re.MULTILINE))
    exposed = {"paceline:build_info": ("info", ""), "paceline:target_info": ("info", "")}
    told = [(figure.name, figure.kind, figure.label) for figure in VERIFIER_FIGURES]
    told += [(figure.name, figure.kind, figure.label) for figure in EDGE_FIGURES]
    for name, kind, label in told:
        full = name + ("_total" if kind == "counter" else "")
        assert exposed.setdefault(full, (kind, label)) == (kind, label), "two programs differ"
    assert rows == {name: kind for name, (kind, _) in exposed.items()}
    assert labels == {name: label for name, (_, label) in exposed.items() if label}
