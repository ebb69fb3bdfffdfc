"""Loss as TCP shows it to the programs at its ends: as delay of the lost bytes and of everything behind them.

A message is cut into segments. A lost one is sent again
- after three later segments of its connection have arrived and told so: fast retransmit (RFC 5681, section 3.2), about
  a round trip later, or
- when the retransmission time-out is over: max(200 ms, srtt + 4 rttvar) (RFC 6298, with the minimum of Linux), which
  doubles each time, up to 120 s,
whichever comes first. A copy can be lost too, by the same rules of the link. What was sent later has arrived, but is
handed out only when the gap is filled: head-of-line blocking, for each connection by itself.

Which segments will follow is not known when a message is sent, and its time is told at once. A connection is taken to
go on as it did: the next segments come as quickly as the last ones did. So a single message after a pause pays the
time-out, and one of a stream a round trip.

Not modelled: congestion control (a loss slows nothing but what waits for it), tail loss probes, delayed
acknowledgements, lost acknowledgements (the next one makes up for them), the bandwidth that copies take.
"""

import math
from collections import deque

from numpy.random import Generator, default_rng

from simulator.link import Link, Passage

SEGMENT_BYTES = 1448
"""Payload of a TCP segment on Ethernet with timestamps."""

DUPLICATES = 3
"""Later segments that must arrive before a lost one is sent again (RFC 5681)."""

MIN_TIMEOUT_S = 0.2
MAX_TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 1.0
"""Of the first packets of a connection, when no round trip is known (RFC 6298, section 2.1)."""

MAX_RETRIES = 15
"""As Linux tries (tcp_retries2). A copy after that counts as delivered: connections are ended by who uses them."""

_SINGLE_LOSS = 4
"""Tells this seed from those of simulator.link."""


class RoundTrips:
    """What the sender knows of the round trip time (RFC 6298)."""

    def __init__(self) -> None:
        self._smoothed_s: float | None = None
        self._variation_s = 0.0

    def note(self, rtt_s: float) -> None:
        """Take a round trip into account."""
        if self._smoothed_s is None:
            self._smoothed_s, self._variation_s = rtt_s, rtt_s / 2.0
            return
        error_s = abs(self._smoothed_s - rtt_s)
        self._variation_s += (error_s - self._variation_s) / 4.0
        self._smoothed_s += (rtt_s - self._smoothed_s) / 8.0

    @property
    def timeout_s(self) -> float:
        """The retransmission time-out before it is doubled."""
        if self._smoothed_s is None:
            return CONNECT_TIMEOUT_S
        timeout_s = self._smoothed_s + 4.0 * self._variation_s
        return min(MAX_TIMEOUT_S, max(MIN_TIMEOUT_S, timeout_s))


class Stream:
    """One direction of one connection; a simulator.link.OneWay."""

    def __init__(self, link: Link, *, back: Link, seed: tuple[int, ...]) -> None:
        """Start a stream.

        Args:
            link: the direction it takes, shared with other streams.
            back: the direction of its acknowledgements.
            seed: non-negative numbers that name this stream.
        """
        self._link = link
        self._back = back
        self._seed = (*seed, _SINGLE_LOSS)
        self._generator: Generator | None = None
        self._round_trips = RoundTrips()
        self._last_sent_s: deque[float] = deque(maxlen=DUPLICATES)
        self._last_leaves_s = float("-inf")
        self._num_lost = 0

    @property
    def num_lost(self) -> int:
        """Segments lost so far, copies included."""
        return self._num_lost

    def leaves_at(self, now_s: float, num_bytes: int) -> float:
        """Return when a message that enters now leaves at the far end.

        Calls come in the order of time, and so do the answers.
        """
        passage = self._link.enter(num_bytes, now_s=now_s)
        leaves_s = passage.leaves_s
        conditions = self._link.conditions
        if conditions.has_bursts or conditions.single_loss > 0.0:
            leaves_s = self._leaves_with_loss(passage, num_bytes=num_bytes)
            if (
                leaves_s == passage.leaves_s
            ):  # what was sent twice is not measured (Karn's algorithm)
                self.note_round_trip(leaves_s - now_s + self._back.conditions.travel_s(leaves_s))
        self._last_leaves_s = max(self._last_leaves_s, leaves_s)
        return self._last_leaves_s

    def opens_at(self, now_s: float) -> float:
        """Return when the packet that opens a connection this way arrives."""
        return self._resent_until_kept(now_s, timeout_s=CONNECT_TIMEOUT_S)

    def note_round_trip(self, rtt_s: float) -> None:
        """Take a round trip into account that did not carry data, the one that opened the connection."""
        self._round_trips.note(rtt_s)

    def _leaves_with_loss(self, passage: Passage, *, num_bytes: int) -> float:
        """Return when the last segment that is missing has arrived."""
        num_segments = max(1, math.ceil(num_bytes / SEGMENT_BYTES))
        spacing_s = (passage.sent_s - passage.begins_s) / num_segments
        sent_s = [passage.sent_s - spacing_s * (num_segments - 1 - i) for i in range(num_segments)]
        leaves_s = passage.leaves_s
        for index, segment_s in enumerate(sent_s):
            if self._is_lost(segment_s):
                third_s = self._third_later(index, sent_s)
                leaves_s = max(leaves_s, self._recovered_at(segment_s, third_s=third_s))
        self._last_sent_s.extend(sent_s[-DUPLICATES:])
        return leaves_s

    def _third_later(self, index: int, sent_s: list[float]) -> float:
        """Return when the third segment after one of a message is sent, or is expected to be."""
        num_missing = index + DUPLICATES - (len(sent_s) - 1)
        if num_missing <= 0:
            return sent_s[index + DUPLICATES]
        if num_missing > len(self._last_sent_s):
            return math.inf
        return sent_s[-1] + (sent_s[0] - self._last_sent_s[-num_missing])

    def _recovered_at(self, sent_s: float, *, third_s: float) -> float:
        """Return when a copy of a lost segment arrives.

        Args:
            sent_s: when the lost segment was sent.
            third_s: when the third segment after it is sent; inf when none is expected.
        """
        timeout_s = self._round_trips.timeout_s
        told_s = third_s
        if third_s < sent_s + timeout_s:
            told_s += self._link.conditions.travel_s(third_s)
            told_s += self._back.conditions.travel_s(told_s)
        if told_s < sent_s + timeout_s:
            return self._resent_until_kept(told_s, timeout_s=timeout_s)
        return self._resent_until_kept(sent_s + timeout_s, timeout_s=2.0 * timeout_s)

    def _resent_until_kept(self, sent_s: float, *, timeout_s: float) -> float:
        """Return when a segment arrives that is sent at a time, and again whenever the doubling time-out is over."""
        for _ in range(MAX_RETRIES):
            if not self._is_lost(sent_s):
                break
            sent_s += min(MAX_TIMEOUT_S, timeout_s)
            timeout_s *= 2.0
        return sent_s + self._link.conditions.travel_s(sent_s)

    def _is_lost(self, sent_s: float) -> bool:
        conditions = self._link.conditions
        is_lost = conditions.loses_all(sent_s)
        if not is_lost and conditions.single_loss > 0.0:
            if self._generator is None:
                self._generator = default_rng(self._seed)
            is_lost = bool(self._generator.random() < conditions.single_loss)
        self._num_lost += is_lost
        return is_lost
