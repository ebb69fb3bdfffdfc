"""How long small messages take over a network, sampled once from the link model itself.

Asking the link model for every message of thousands of edges takes too long. Here it is asked for one small message every
`STEP_S`, on connections that take turns so that each sends every `SPACING_S`, about as often as a verifier's steps go: what
weather, bandwidth and TCP's recovery make of it is in the delays. Every edge then meets a stretch of that record from a place of its
own on. Order within a connection is kept by whoever uses the delays.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from simulator.link import LinkSettings
from simulator.network import Network, NetworkSettings

STEP_S = 0.02
SPACING_S = 0.1
LASTS_S = 600.0
"""Of the record; outages that come once in minutes must be in it some times."""
MESSAGE_BYTES = 24
NUM_ROUND_TRIPS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Of both ways of a network, over time."""

    up: Sequence[float]
    """One way, in seconds, every `STEP_S`; a single value stays for ever."""
    down: Sequence[float]
    up_byte_s: float = 0.0
    """What a byte more takes on the way up: questions are long."""

    def round_trip_s(self, index: int) -> float:
        """Return what goes there and comes back at once takes, at a place of the record."""
        up = self.up[index % len(self.up)]
        return up + self.down[(index + round(up / STEP_S)) % len(self.down)]


def sampled(settings: NetworkSettings, *, seed: int, lasts_s: float = LASTS_S) -> Delays:
    """Return the delays of a network.

    Args:
        settings: of both directions.
        seed: of its weather.
        lasts_s: how long the record is.
    """
    rate = settings.up.bandwidth_bps
    return Delays(
        up=_one_way(settings, seed=seed, lasts_s=lasts_s, is_down=False),
        down=_one_way(settings, seed=seed, lasts_s=lasts_s, is_down=True),
        up_byte_s=0.0 if rate is None else 8.0 / rate,
    )


def _one_way(
    settings: NetworkSettings, *, seed: int, lasts_s: float, is_down: bool
) -> Sequence[float]:
    network = Network(settings, seed=seed)
    connections = [network.connect() for _ in range(round(SPACING_S / STEP_S))]
    streams = [one.down if is_down else one.up for one in connections]
    begin_s = max(connection.opens_at(0.0) for connection in connections)
    num = 1 if _is_steady(settings.down if is_down else settings.up) else round(lasts_s / STEP_S)
    delays = []
    for index in range(num):
        now_s = begin_s + index * STEP_S
        leaves_s = streams[index % len(streams)].leaves_at(now_s, MESSAGE_BYTES)
        delays.append(leaves_s - now_s)
    return array("d", delays)  # goes from process to process as bytes


def _is_steady(link: LinkSettings) -> bool:
    """Whether every message takes the same."""
    varies = link.jitter_s or link.loss or link.bandwidth_spread
    return not varies and link.trace is None and link.series is None
