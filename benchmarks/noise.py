"""Measure what the shared noise costs: per position, and for a step of eight sessions.

    python benchmarks/noise.py [--threads 1] [--repeats 300]

Prints a Markdown table of median and spread (5th to 95th percentile), then machine and versions. The last column is
what eight sessions that each reach one new position cost, as a share of a step of `--step-ms`.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from paceline.sampling.coupled import Sampler
from paceline.sampling.noise import noise
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position

VOCABULARIES = (49_152, 262_144)
NUM_SESSIONS = 8


def measure(work: Callable[[int], object], *, repeats: int) -> tuple[float, float, float]:
    """Return median, 5th and 95th percentile of the time of `work(i)`, in microseconds."""
    for index in range(10):
        work(index)
    times_us = []
    for index in range(repeats):
        start = time.perf_counter()
        work(index)
        times_us.append((time.perf_counter() - start) * 1e6)
    cuts = statistics.quantiles(times_us, n=20)
    return statistics.median(times_us), cuts[0], cuts[-1]


def cases(vocabulary_size: int) -> list[tuple[str, Callable[[int], object]]]:
    """Return what is measured for one vocabulary, by name."""
    logits = torch.randn(vocabulary_size, generator=torch.Generator().manual_seed(0)) * 3

    def draw(settings: SamplingSettings) -> Callable[[int], object]:
        sampler = Sampler(settings, vocabulary_size=vocabulary_size)
        sampler.prepare(Position(0))
        return lambda _: sampler.draw(logits, position=Position(0))

    return [
        ("noise of a position", lambda at: noise(1, position=at, vocabulary_size=vocabulary_size)),
        ("draw, noise ready", draw(SamplingSettings(temperature=0.8))),
        ("draw, noise ready, top-k 50", draw(SamplingSettings(top_k=50))),
        ("draw, noise ready, top-p 0.9", draw(SamplingSettings(top_p=0.9))),
        ("draw, noise ready, min-p 0.05", draw(SamplingSettings(min_p=0.05))),
    ]


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--step-ms", type=float, default=80.0, help="time of a target step")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"| vocabulary | what | median us | 5..95 % us | x {NUM_SESSIONS} sessions of a step |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for vocabulary_size in VOCABULARIES:
        for name, work in cases(vocabulary_size):
            median, low, high = measure(work, repeats=options.repeats)
            share = NUM_SESSIONS * median / (options.step_ms * 1000)
            print(
                f"| {vocabulary_size:,} | {name} | {median:.0f} | {low:.0f}..{high:.0f} | {share:.1%} |"
            )
    print(
        f"\n{processor()}, {options.threads} thread(s); step {options.step_ms:g} ms; "
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.platform()}"
    )


if __name__ == "__main__":
    main()
