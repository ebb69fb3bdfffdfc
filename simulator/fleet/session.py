"""A verifier's half of an answer in the fleet's model."""

# ruff: noqa: FURB136 - see simulator.fleet.edge_half

from __future__ import annotations

from simulator.fleet.edge import FOREVER_S
from simulator.fleet.edge_half import EdgeHalf, Sent
from simulator.fleet.guesses import NEVER


class Session:
    """One answer, seen from its verifier. Positions count tokens of the answer.

    Args:
        edge_half: the same, seen from its edge.
        arrived_s: when its question came.
        let_in_s: when the verifier made its cache, between two steps.
        number: in the order of arrival.
    """

    __slots__ = (
        "arrived_s",
        "arrived_tip",
        "edge_half",
        "first_token_s",
        "heard_s",
        "is_idle",
        "last",
        "length",
        "let_in_s",
        "num_late",
        "num_stale",
        "number",
        "queued_s",
        "seen_s",
        "text",
        "to_prefill",
        "waiting_since_s",
        "wrong",
    )

    def __init__(
        self, edge_half: EdgeHalf, *, arrived_s: float, let_in_s: float, number: int
    ) -> None:
        self.edge_half = edge_half
        self.arrived_s = arrived_s
        self.let_in_s = self.waiting_since_s = let_in_s
        self.number = number
        self.text = edge_half.ask.prompt_tokens
        """Tokens of prompt and answer."""
        self.to_prefill = self.text
        self.last = edge_half.last
        self.length = self.arrived_tip = 0
        self.wrong = NEVER
        self.seen_s = 0.0
        """What had arrived by then is taken."""
        self.num_late = self.num_stale = 0
        """Since the last commit."""
        self.is_idle = False
        self.queued_s: float | None = None
        self.first_token_s = 0.0
        """From the question to when the edge has its first token."""
        self.heard_s = 0.0
        """When the edge hears of the last commit."""

    @property
    def next_s(self) -> float:
        """When something may change here by itself."""
        half = self.edge_half
        return min(half.next_s, half.sent[0].at_s if half.sent else FOREVER_S)

    @property
    def is_over(self) -> bool:
        """The text has ended."""
        return self.length > self.last

    def look(self, now_s: float) -> None:
        """Take what has arrived by now."""
        self.seen_s = now_s
        half = self.edge_half
        half.advance(now_s)
        sent = half.sent
        while sent and sent[0][0] <= now_s:
            self._take(sent.popleft())

    def _take(self, piece: Sent) -> None:
        begin, end, length, drafts = piece.begin, piece.end, self.length, self.edge_half.drafts
        self.is_idle = piece.idle
        if begin < length:
            known = min(end, length)
            right = max(begin, min(known, piece.wrong))
            drafts.late += right - begin
            self.num_late += right - begin
            if right < known:  # what hangs on a wrong one is as wrong
                drafts.stale += end - right
                self.num_stale += end - right
                return
        elif piece.wrong < length:
            drafts.stale += end - begin
            self.num_stale += end - begin
            return
        if end > self.arrived_tip and end > length:
            self.arrived_tip, self.wrong = end, piece.wrong

    def offers(self, most: int) -> int:
        """Return how many draft rows could ride along in the next step, at most so many."""
        offered = self.arrived_tip - self.length
        if offered <= 0:
            return 0
        # A step commits one token more than it goes deep.
        room = self.last - self.length
        offered = room if offered > room else offered
        return most if offered > most else offered

    def step(self, num_drafts: int) -> tuple[int, int]:
        """Commit what a step yields with so many draft rows; return how many drafts it judged and accepted."""
        begin, tip, wrong = self.length, self.arrived_tip, self.wrong
        right = 0
        if num_drafts:
            right = num_drafts if num_drafts < wrong - begin else wrong - begin
        length = begin + right + 1
        self.length = self.edge_half.committed = length
        self.text += right + 1
        if tip <= begin:
            self.arrived_tip = length
            return 0, 0
        drafts = self.edge_half.drafts
        judged = (tip if tip < length else length) - begin
        accepted = judged if judged < wrong - begin else wrong - begin
        drafts.accepted += accepted
        if accepted < judged:
            drafts.rejected += 1
            drafts.behind += tip - wrong - 1
            tip = length
        self.arrived_tip = tip if tip > length else length
        return judged, accepted
