"""The shared part of metrics: figures read at scrape time, served over HTTP."""

import asyncio

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from paceline.errors import ConfigError
from paceline.metrics.buckets import FIRST_TOKEN_S, REQUEST_S, TOKEN_GAP_S
from paceline.metrics.distribution import Distribution
from paceline.metrics.figures import Figure, Figures, new_registry
from paceline.metrics.serving import METRICS_PATH, serving_metrics
from paceline.settings import Address

LOOPBACK = Address(host="127.0.0.1", port=0)


class Tally:
    def __init__(self) -> None:
        self.num = 0
        self.reads = 0
        self.waits = Distribution(REQUEST_S)


FIGURES: tuple[Figure[Tally], ...] = (
    Figure(name="paceline:things", kind="counter", help="Things.", value=lambda tally: tally.num),
    Figure(
        name="paceline:parts",
        kind="gauge",
        help="Parts of things.",
        label="part",
        value=lambda tally: {"big": tally.num, "small": 2 * tally.num},
    ),
    Figure(
        name="paceline:wait_seconds",
        kind="histogram",
        help="Waiting.",
        value=lambda tally: tally.waits.spread,
    ),
)


async def _get(address: Address, path: str = METRICS_PATH, **headers: str) -> tuple[int, str, str]:
    async with (
        asyncio.timeout(10.0),
        aiohttp.ClientSession() as http,
        http.get(f"http://{address}{path}", headers=headers) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


def test_a_scrape_reads_the_values_of_that_moment_once() -> None:
    tally = Tally()

    def read() -> Tally:
        tally.reads += 1
        return tally

    registry = new_registry("cloud")
    registry.register(Figures(read, FIGURES))

    async def scrape() -> list[str]:
        async with serving_metrics(registry, LOOPBACK) as address:
            assert address is not None
            assert address.port > 0
            pages = []
            for num in (0, 7):
                tally.num = num
                status, kind, page = await _get(address)
                assert status == 200
                assert kind.startswith("text/plain")
                pages.append(page)
            return pages

    first, second = asyncio.run(scrape())
    assert tally.reads == 2
    for page, num in ((first, 0.0), (second, 7.0)):
        samples = {
            (sample.name, sample.labels.get("part")): sample.value
            for family in parse_text(page)
            for sample in family.samples
        }
        assert samples["paceline:things_total", None] == num
        assert samples["paceline:parts", "big"] == num
        assert samples["paceline:parts", "small"] == 2 * num


@pytest.mark.parametrize(
    "accept",
    [
        # What Prometheus 2 and 3 send.
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;q=0.3",
    ],
)
def test_openmetrics_comes_to_whom_asks_for_it(accept: str) -> None:
    registry = new_registry("edge")
    tally = Tally()
    for wait_s in (0.3, 0.31, 1e9, -1e-9):
        tally.waits.add(wait_s)
    registry.register(Figures(lambda: tally, FIGURES))

    async def scrape() -> tuple[int, str, str]:
        async with serving_metrics(registry, LOOPBACK) as address:
            assert address is not None
            return await _get(address, Accept=accept)

    _, kind, page = asyncio.run(scrape())
    assert kind.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(page)}  # type: ignore[no-untyped-call]
    assert families["paceline:things"].type == "counter"
    assert families["paceline:wait_seconds"].type == "histogram"
    waits = {
        (sample.name.removeprefix("paceline:wait_seconds_"), sample.labels.get("le")): sample.value
        for sample in families["paceline:wait_seconds"].samples
    }
    assert [waits["bucket", le] for le in ("0.3", "0.5", "7680.0", "+Inf")] == [2, 3, 3, 4]
    assert waits["count", None] == 4
    assert waits["sum", None] == pytest.approx(1e9 + 0.61)
    build = families["paceline:build"].samples[0]
    assert build.labels["program"] == "edge"
    assert build.labels["version"]
    assert "process_cpu_seconds" in families


def test_nothing_else_is_served_and_nothing_where_nothing_was_asked() -> None:
    async def scrape() -> int:
        async with serving_metrics(new_registry("edge"), None) as nowhere:
            assert nowhere is None
        async with serving_metrics(new_registry("edge"), LOOPBACK) as address:
            assert address is not None
            return (await _get(address, "/"))[0]

    assert asyncio.run(scrape()) == 404


def test_an_address_in_use_is_told_by_its_option() -> None:
    async def serve_twice() -> None:
        async with (
            serving_metrics(new_registry("edge"), LOOPBACK) as address,
            serving_metrics(new_registry("edge"), address),
        ):
            raise AssertionError("two servers on one port")

    with pytest.raises(ConfigError, match=r"--metrics-listen: cannot listen on 127\.0\.0\.1"):
        asyncio.run(serve_twice())


def test_the_same_name_twice_is_refused_when_it_is_registered() -> None:
    registry = new_registry("cloud")
    registry.register(Figures(Tally, FIGURES))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(Figures(Tally, FIGURES))


def test_two_programs_in_one_process_share_nothing() -> None:
    one, other = new_registry("cloud"), new_registry("cloud")
    one.register(Figures(Tally, FIGURES))
    assert one.get_sample_value("paceline:things_total") == 0.0
    assert other.get_sample_value("paceline:things_total") is None


@pytest.mark.parametrize("bounds", [FIRST_TOKEN_S, TOKEN_GAP_S, REQUEST_S])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
