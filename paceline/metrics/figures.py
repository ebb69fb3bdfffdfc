"""Figures that are read from a frozen value when somebody scrapes, so that telling them costs the program nothing else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from paceline.metrics.distribution import Spread

T = TypeVar("T")
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure(Generic[T]):
    """One name of the exposition and how its value is found."""

    name: str
    """With the prefix; a counter's without `_total`, which the exposition adds."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    """What it counts, and its unit if the name does not say."""
    value: Callable[[T], float | Mapping[str, float] | Spread]
    """Returns the value: a Spread for a histogram; with a label the value of each of its values, which are bounded."""
    label: str = ""
    """Name of the only label; empty for none."""

    def family(self, source: T | None = None) -> Family:
        """Return the family as the exposition wants it; without a source it has no samples."""
        if self.kind == "histogram":
            return self._histogram(source)
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(self.name, self.help, labels=(self.label,) if self.label else ())
        if source is None:
            return family
        value = self.value(source)
        assert not isinstance(value, Spread)
        if isinstance(value, Mapping):
            for name, part in value.items():
                family.add_metric((name,), part)
        else:
            family.add_metric((), value)
        return family

    def _histogram(self, source: T | None) -> HistogramMetricFamily:
        family = HistogramMetricFamily(self.name, self.help)
        if source is not None:
            spread = self.value(source)
            assert isinstance(spread, Spread)
            buckets = [(floatToGoString(bound), count) for bound, count in spread.cumulative()]  # type: ignore[no-untyped-call]
            family.add_metric((), buckets, spread.total)
        return family


class Figures(Collector, Generic[T]):
    """Reads all figures from one value, so that they agree with each other.

    Args:
        read: returns the value; called once per scrape, on the event loop.
        figures: what to tell of it.
    """

    def __init__(self, read: Callable[[], T], figures: Sequence[Figure[T]]) -> None:
        self._read = read
        self._figures = tuple(figures)

    def describe(self) -> Iterator[Family]:
        """Give the names without values: a registry refuses the same name twice."""
        for figure in self._figures:
            yield figure.family()

    def collect(self) -> Iterator[Family]:
        """Give all values of one moment."""
        source = self._read()
        for figure in self._figures:
            yield figure.family(source)


class Info(Collector):
    """Tells what does not change while the program runs, as labels of a figure that is always 1.

    Args:
        name: without `_info`, which the exposition adds.
        help: what it tells.
        labels: the facts.
    """

    def __init__(self, name: str, help: str, labels: Mapping[str, str]) -> None:  # noqa: A002 - Prometheus' word
        self._name, self._help, self._labels = name, help, dict(labels)

    def describe(self) -> Iterator[InfoMetricFamily]:
        """Give the name alone."""
        yield InfoMetricFamily(self._name, self._help)

    def collect(self) -> Iterator[InfoMetricFamily]:
        """Give the labels."""
        yield InfoMetricFamily(self._name, self._help, value=self._labels)


def new_registry(program: str) -> CollectorRegistry:
    """Return a registry of its own for a program, with its process and its version.

    Args:
        program: "cloud", "edge" or "orchestrator".
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    labels = {"program": program, "version": version("paceline")}
    registry.register(Info("paceline:build", "Program and version.", labels))
    return registry
