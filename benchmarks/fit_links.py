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

from simulator.conditions import Recorded
from simulator.link import Link, LinkSettings
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


def binned_bps(times_s: np.ndarray) -> np.ndarray:
    """Return the rate in each bin of packets of an opportunity's size that were sent at times."""
    edges_s = np.arange(int(times_s[-1] / BIN_S) + 1) * BIN_S
    counts, _ = np.histogram(times_s, bins=edges_s)
    return counts * OPPORTUNITY_BYTES * 8 / BIN_S


def fit_delivery(trace: DeliveryTrace) -> tuple[float, float, float]:
    """Return mean in bits per second, standard deviation by mean, and correlation time in seconds."""
    rates_bps = binned_bps(np.array(trace.times_ms) / 1e3)
    spread = float(rates_bps.std() / rates_bps.mean())
    return trace.mean_bps, spread, correlation_s(rates_bps, step_s=BIN_S)


def modelled_bps(mean_bps: float, spread: float, memory_s: float) -> np.ndarray:
    """Return the rates of a full link with a fitted capacity, over 20 minutes."""
    link = Link(
        LinkSettings(
            bandwidth_bps=mean_bps,
            bandwidth_spread=min(1.0, spread),
            bandwidth_correlation_s=memory_s,
        )
    )
    times_s = [0.0]
    while times_s[-1] < 1200.0:
        times_s.append(link.send(OPPORTUNITY_BYTES, now_s=0.0))
    return binned_bps(np.array(times_s[1:]))


def quantiles_mbit(rates_bps: np.ndarray) -> str:
    return " / ".join(f"{rate / 1e6:.1f}" for rate in np.percentile(rates_bps, (5, 25, 50, 75, 95)))


def made_up(series: RttSeries) -> np.ndarray:
    """Return mean, standard deviation and worst of 250 pings made up in each interval, in seconds."""
    up, down = (Recorded(series, seed=(1, is_down), is_down=is_down) for is_down in (False, True))
    rows = []
    for index in range(len(series.summaries)):
        times_s = series.interval_s * (index + np.arange(250) / 250)
        trips_s = np.array([up.travel_s(time_s) + down.travel_s(time_s) for time_s in times_s])
        rows.append((trips_s.mean(), trips_s.std(), trips_s.max()))
    return np.array(rows).T


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
    means_s, deviations_s, worsts_s = made_up(series)
    print(
        f"made up by the model, recorded: mean {means_s.mean() * 1e3:.1f}, {mean_s.mean() * 1e3:.1f} ms; "
        f"standard deviation {deviations_s.mean() * 1e3:.1f}, {stddev_s.mean() * 1e3:.1f} ms; "
        f"median of the worst {np.median(worsts_s) * 1e3:.1f} ms, to compare with the recording's"
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
            trace = parse_delivery_trace(lines, name=path.name)
        fits.append(fit_delivery(trace))
        rates_mbit = quantiles_mbit(binned_bps(np.array(trace.times_ms) / 1e3))
        mean_bps, spread, memory_s = fits[-1]
        print(
            f"{path.name}: {mean_bps / 1e6:.2f} Mbit/s, spread {spread:.2f}, correlation {memory_s:.2f} s; "
            f"p5 / p25 / p50 / p75 / p95 {rates_mbit}"
        )
    if len(fits) > 1:
        mean_bps, spread, memory_s = np.mean(fits, axis=0)
        print(
            f"mean: {mean_bps / 1e6:.2f} Mbit/s, spread {spread:.2f}, correlation {memory_s:.2f} s; "
            f"the model's {quantiles_mbit(modelled_bps(mean_bps, spread, memory_s))}"
        )
    if arguments.series is not None:
        with arguments.series.open(encoding="utf-8", newline="") as lines:
            tell_series(
                parse_rtt_series(lines, interval_s=arguments.interval, name=arguments.series.name)
            )


if __name__ == "__main__":
    main()
