"""An event simulation of run-ahead drafting, to hold the closed form of `paceline.control.drafting` against.

One session, a chain, the race on: the verifier steps without pause, the edge drafts up to a length beyond the text it knows. Guesses hold
independently with one probability. Times are seconds of a simulated clock; half the round trip each way, order kept.
"""

import heapq
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is simulated."""

    rtt_s: float
    step_s: float
    draft_s: float
    acceptance: float
    jitter_s: float = 0.0
    """Each message takes up to so much longer, evenly spread."""
    row_s: float = 0.0
    """What a drafted row adds to a step."""
    tokens_per_message: int = 1


class RunAhead:
    """See the module. `speed` after `run` is in tokens per step time: 1 is plain decoding."""

    def __init__(self, setting: Setting, *, draft_length: int, seed: int = 1) -> None:
        self._setting = setting
        self._length = draft_length
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, str, object]] = []
        self._num_events = 0
        self._last_up_s = self._last_down_s = 0.0
        # The edge: text it knows, end of its chain, first wrong guess, which chain it is, whether the drafter works.
        self._known = self._tip = self._chain = 0
        self._wrong: int | None = None
        self._busy = False
        # The verifier: committed, end of the correct drafts it has.
        self.committed = self._good = self._junk = 0
        self.num_steps = self.num_drafted = 0
        self.now_s = 0.0

    @property
    def speed(self) -> float:
        return self.committed / self.now_s * self._setting.step_s

    def run(self, num_tokens: int) -> "RunAhead":
        self._draft()
        self._step()
        while self.committed < num_tokens:
            self.now_s, _, kind, value = heapq.heappop(self._events)
            getattr(self, f"_on_{kind}")(value)
        return self

    def _at(self, at_s: float, kind: str, value: object) -> float:
        self._num_events += 1
        heapq.heappush(self._events, (at_s, self._num_events, kind, value))
        return at_s

    def _delay_s(self) -> float:
        return self._setting.rtt_s / 2 + self._random.random() * self._setting.jitter_s

    def _draft(self) -> None:
        room = self._length - (self._tip - self._known)
        if self._busy or room < 1:
            return
        count = min(self._setting.tokens_per_message, room)
        self._busy = True
        done_s = self.now_s + self._setting.draft_s * count
        self._at(done_s, "drafted", (self._tip, count, self._chain))

    def _on_drafted(self, value: tuple[int, int, int]) -> None:
        base, count, chain = value
        self._busy = False
        if chain == self._chain:  # else it goes on from what was contradicted meanwhile
            oks = []
            for position in range(base, base + count):
                holds = self._wrong is None and self._random.random() < self._setting.acceptance
                if not holds and self._wrong is None:
                    self._wrong = position
                oks.append((position, holds))
            self.num_drafted += count
            if self._wrong is not None and self._wrong < self._known:
                self._wrong = None  # a commit overtook the drafter, and says otherwise
            else:
                self._tip = max(self._tip, base + count)
                news = [(position, holds) for position, holds in oks if position >= self._known]
                self._last_up_s = max(self._last_up_s, self.now_s + self._delay_s())
                self._at(self._last_up_s, "arrived", news)
        self._draft()

    def _on_arrived(self, tokens: list[tuple[int, bool]]) -> None:
        for position, holds in tokens:
            if position < self.committed:
                continue  # late, or contradicted
            if holds:
                self._good = position + 1
            else:
                self._junk += 1

    def _step(self) -> None:
        drafts = max(0, self._good - self.committed)
        took_s = self._setting.step_s + self._setting.row_s * (drafts + self._junk)
        self._junk = 0
        self._at(self.now_s + took_s, "stepped", self._good)

    def _on_stepped(self, good: int) -> None:
        self.num_steps += 1
        self.committed = max(self.committed, good) + 1
        self._last_down_s = max(self._last_down_s, self.now_s + self._delay_s())
        self._at(self._last_down_s, "heard", self.committed)
        self._step()

    def _on_heard(self, length: int) -> None:
        self._known = length
        if self._wrong is not None and self._wrong < length:
            self._tip, self._wrong = length, None
            self._chain += 1
        self._tip = max(self._tip, length)
        self._draft()
