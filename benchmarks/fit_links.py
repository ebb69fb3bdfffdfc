"""Fit the parameters of a named profile to recorded links.

    python benchmarks/fit_links.py TRACE... [--series CSV --interval 25]

TRACE are files in Mahimahi's format, one direction each; the parameters of several are averaged, as the profile `lte`
has them. CSV has the columns ping_best, ping_avg, ping_stddev (ms) and packet_loss (%) of runs of pings; the profile
`starlink` comes from it. The recordings are not part of this repository; docs/link.md names them.
"""

import argparse
import math
from pathlib import Path

import numpy as np

from simulator.traces import (
    OPPORTUNITY_BYTES,
    DeliveryTrace,
    RttSeries,
    parse_delivery_trace,
    parse_rtt_series,
)
from simulator.weather import split_jitter

BIN_S = 0.1
"""Capacity is looked at in bins of this length: a round trip or two, below which TCP and queues even it out."""


def correlation_s(values: np.ndarray, *, step_s: float) -> float:
    """Return when the autocorrelation falls below 1 / e, between bins."""
    centred = values - values.mean()
    power = float((centred**2).mean())
    before = 1.0
    for lag in range(1, len(values) // 2):
        now = float((centred[:-lag] * centred[lag:]).mean()) / power
        if now < 1 / math.e:
            return step_s * (lag - 1 + (before - 1 / math.e) / (before - now))
        before = now
    return math.nan


def fit_delivery(trace: DeliveryTrace) -> tuple[float, float, float]:
    """Return mean in bits per second, standard deviation by mean, and correlation time in seconds."""
    num_bins = int(trace.times_ms[-1] / 1e3 / BIN_S)
    edges_ms = np.arange(num_bins + 1) * BIN_S * 1e3
    counts, _ = np.histogram(trace.times_ms, bins=edges_ms)
    rates_bps = counts * OPPORTUNITY_BYTES * 8 / BIN_S
    spread = float(rates_bps.std() / rates_bps.mean())
    return trace.mean_bps, spread, correlation_s(rates_bps, step_s=BIN_S)


def tell_series(series: RttSeries) -> None:
    best_s, mean_s, stddev_s, loss = np.array(
        [(row.best_s, row.mean_s, row.stddev_s, row.loss) for row in series.summaries]
    ).T
    excess_s = float((mean_s - best_s).mean())
    up_s, down_s = split_jitter(excess_s, float(stddev_s.mean()))
    lossy = loss > 0.0
    print(
        f"{series.name}: {len(loss)} runs, best {best_s.mean() * 1e3:.1f} ms, mean above it {excess_s * 1e3:.1f} ms, "
        f"standard deviation {stddev_s.mean() * 1e3:.1f} ms: jitter up {up_s * 1e3:.1f} ms, down {down_s * 1e3:.1f} ms; "
        f"loss {loss.mean():.4f}, in {lossy.mean():.2f} of the runs; taken as one burst of a run, "
        f"mean {loss[lossy].mean() * series.interval_s:.2f} s, median {np.median(loss[lossy]) * series.interval_s:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--series", type=Path)
    parser.add_argument("--interval", type=float, default=25.0, help="seconds")
    arguments = parser.parse_args()
    fits = []
    for path in arguments.traces:
        with path.open(encoding="ascii") as lines:
            fits.append(fit_delivery(parse_delivery_trace(lines, name=path.name)))
        mean_bps, spread, memory_s = fits[-1]
        print(
            f"{path.name}: {mean_bps / 1e6:.2f} Mbit/s, spread {spread:.2f}, correlation {memory_s:.2f} s"
        )
    if len(fits) > 1:
        mean_bps, spread, memory_s = np.mean(fits, axis=0)
        print(
            f"mean: {mean_bps / 1e6:.2f} Mbit/s, spread {spread:.2f}, correlation {memory_s:.2f} s"
        )
    if arguments.series is not None:
        with arguments.series.open(encoding="utf-8", newline="") as lines:
            tell_series(
                parse_rtt_series(lines, interval_s=arguments.interval, name=arguments.series.name)
            )


if __name__ == "__main__":
    main()
