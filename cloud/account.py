"""What a verifier has done so far and holds now: counted as it happens, told as one frozen value.

Pure: whoever tells it brings the time. Nothing is counted per edge or per session, so that memory does not grow.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cloud.load import Load, LoadWindow
from cloud.orders import PrefixCounts, StepTimes
from cloud.scheduler import Plan
from cloud.step_cost import StepCostFit, StepCosts
from paceline.engine.rows import MemoryStats, StepSplit
from paceline.metrics.buckets import FIRST_TOKEN_S, REQUEST_S, TOKEN_GAP_S
from paceline.metrics.distribution import Distribution, Spread
from paceline.session.counts import Counts

MAX_ACCEPTED_POSITIONS = 32
"""Depths of accepted drafts that are told apart; deeper ones are in the sums only."""

ENDS = ("stop", "length", "abort", "error")
"""How a session ends, in vLLM's words. abort: the edge closed it early or did not come back, or the verifier shut down.
error: its edge broke the rules, the model failed, or there was no memory for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierStatistics:
    """Sums since the start, unless a field says otherwise; subtract two to look at some time in between."""

    num_sessions: int
    """Sessions now, those without a stream included."""
    num_streams: int
    """Sessions now whose edge is connected."""
    num_running: int
    """Sessions now whose text goes on and whose rows are in steps."""
    num_waiting: int
    """Sessions now that wait for memory, or for a prefix that another one computes."""
    max_sessions: int
    """Most sessions at once."""
    is_draining: bool
    """It takes no new sessions now."""
    num_opened: int
    """Sessions opened."""
    num_resumed: int
    """Streams that came back to a session."""
    refused: Mapping[str, int]
    """Calls refused, and sessions for which there was no memory, by the reason on the wire; OVERLOADED are those shed."""
    ended: Mapping[str, int]
    """Sessions ended, by ENDS."""
    prompt_tokens: int
    """Tokens of prompts, and of outputs brought along, whose first step is done."""
    committed: int
    """Tokens committed."""
    drafts: Counts
    """What became of drafted tokens, and the steps of all sessions."""
    num_drafts: int
    """Steps of a session in which at least one drafted token was judged."""
    accepted_per_position: tuple[int, ...]
    """Of them, those in which the drafted token at this depth, from 0, was accepted."""
    payload_bytes_up: int
    """Serialised messages from edges."""
    payload_bytes_down: int
    """Serialised messages to edges."""
    num_served: int
    """How often a session got tokens from a step."""
    queue_ns: int
    """How long sessions waited for these steps, from the end of the one before or the arrival of their work."""
    first_token: Spread
    """From opening a session to its first token, in seconds."""
    token_gap: Spread
    """From one step that gave a session tokens to the next, in seconds."""
    duration: Spread
    """From opening a session to the end of its text, in seconds; those whose text did not end are not counted."""
    queue: Spread
    """From opening a session to the beginning of its first step, in seconds."""
    steps: StepTimes
    """Where the time of steps went."""
    engine: StepSplit
    """`steps.forward_ns` divided further."""
    prefix: PrefixCounts
    """What the prefix cache saved."""
    memory: MemoryStats
    """Bytes of the cache now."""
    load: Load
    """How busy it is now."""
    drafts_chosen: int
    """Draft rows of all steps."""
    drafts_left_out: int
    """Draft rows that sessions with a root in a step offered for it and did not get."""
    drafts_expected: float
    """Committed tokens that were to be expected of the rows chosen; those accepted should be about as many."""
    costs: StepCosts | None
    """What steps take, as fitted; None before the first."""
    race_drafted: int
    """Of the draft rows, those that the verifier alone guessed."""
    race_accepted: int
    """Of them, those that the target drew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a step did for a session."""

    num_judged: int
    num_accepted: int
    gap_s: float | None
    """Since its last tokens; None if these are its first."""


class Account:
    """Counts. Belongs to the event loop.

    Args:
        started_s: when the verifier began.
    """

    def __init__(self, *, started_s: float) -> None:
        self.load = LoadWindow(started_s=started_s)
        self.cost_fit = StepCostFit()
        self.drafts_chosen = self.drafts_left_out = 0
        self.drafts_expected = 0.0
        self.race_drafted = self.race_accepted = 0
        self.num_opened = self.num_resumed = 0
        self.refused: Counter[str] = Counter()
        self.ended: Counter[str] = Counter(dict.fromkeys(ENDS, 0))
        self.prompt_tokens = 0
        self.committed = 0
        """Of sessions that have ended; those under way count their own."""
        self.drafts = Counts()
        """The same."""
        self.num_drafts = 0
        self.accepted_per_position = [0] * MAX_ACCEPTED_POSITIONS
        self.payload_bytes_up = self.payload_bytes_down = 0
        self.num_served = self.queue_ns = 0
        self.first_token = Distribution(FIRST_TOKEN_S)
        self.token_gap = Distribution(TOKEN_GAP_S)
        self.duration = Distribution(REQUEST_S)
        self.queue = Distribution(REQUEST_S)

    def stepped(self, plan: Plan, *, ended_s: float, step_s: float, is_whole: bool) -> None:
        """A step has ended.

        Args:
            plan: of the step.
            ended_s: when.
            step_s: what it took.
            is_whole: all its rows were computed in one pass, so that its time tells what such steps take.
        """
        self.load.add_step(ended_s=ended_s, step_s=step_s, row_price_s=plan.row_price_s)
        if is_whole:
            self.cost_fit.add(plan.work, step_s)
        self.drafts_chosen += sum(rows.num_drafts for rows in plan.rows)
        self.drafts_left_out += plan.num_left_out
        self.drafts_expected += plan.num_expected

    def raced(self, num_rows: int, *, accepted: int) -> None:
        """A step had `num_rows` guesses of the verifier itself for a session, and the target drew some of them."""
        self.race_drafted += num_rows
        self.race_accepted += accepted

    def began(self, *, num_prompt: int, first_token_s: float, queue_s: float) -> None:
        """A session got its first token.

        Args:
            num_prompt: tokens of its prompt, and of the output it brought along.
            first_token_s: since it was opened.
            queue_s: from then to the beginning of the first step that it was in.
        """
        self.prompt_tokens += num_prompt
        self.first_token.add(first_token_s)
        self.queue.add(queue_s)

    def served(self, outcome: Outcome, *, queue_ns: int) -> None:
        """A session got tokens from a step."""
        self.num_served += 1
        self.queue_ns += queue_ns
        if outcome.num_judged:
            self.num_drafts += 1
            for position in range(min(outcome.num_accepted, MAX_ACCEPTED_POSITIONS)):
                self.accepted_per_position[position] += 1
        if outcome.gap_s is not None:
            self.token_gap.add(outcome.gap_s)

    def end(self, how: str, counts: Counts, *, committed: int) -> None:
        """A session is gone.

        Args:
            how: one of ENDS.
            counts: of this session.
            committed: tokens it committed here.
        """
        assert how in ENDS, how
        self.ended[how] += 1
        self.drafts = self.drafts.plus(counts)
        self.committed += committed
