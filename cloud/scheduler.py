"""Which rows go into the next step of the target. Pure: sessions in, plan out.

The rule
--------
A step runs at most `row_budget` rows, whatever they are for, because its time depends on their number. They are given
out in this order:

 1. *Roots.* A session's row for its last committed token yields one certain token, so it comes first. Sessions that
    have waited longest are served first; whoever finds no room is ahead in the next step.
 2. *Prefill reserve.* While a prompt waits to be computed, `prefill_share` of the budget is kept from roots and drafts,
    so that many running sessions cannot starve it; and no more than what they leave over is given to it, so that a
    long prompt cannot stall them.
 3. *Drafts*, of the sessions that have a root in this step. `goodput`: those rows with which the step commits the most
    tokens per second, as far as it is known what steps take (`cloud.goodput`), and not so many that a session gets
    slower by them than `max_slowdown` allows: the step may be longer by what a step commits for it. `even`: what is left is shared evenly,
    whether it pays or not: nobody's long tree crowds out a short one.
 4. *The rest* goes to prefill.

`alternating` gives roots to half of the sessions only, those that have waited longest: two groups that are stepped in
turn, so that the edges of one draft while the other is verified (SpecEdge, arXiv 2505.17052). Drafts as with `goodput`.

The price of a row is what one more of them costs the other sessions of the step together, in seconds of their waiting.

The race. With it on, a session without drafts steps on at once: the worst case is plain decoding. With it off, it
waits for drafts, but not when its edge has said that it is idle or has been silent for long, and never longer than
`patience_s`: an edge that went silent costs time, not the answer. A session whose edge asked for patience of its own waits as if the race was off, up
to `patience_most_s`; whoever asks for more waits so long only.

Shared prefixes. A session whose prompt begins like that of another one, which is being computed right now, waits for
it. If that other one may not step any more, the waiting one takes the work over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cloud.goodput import DraftRows, choose
from cloud.step_cost import StepCosts, StepWork
from paceline.errors import ConfigError

SURENESS = 0.93
"""What a chance counts when rows are chosen: it is an estimate, and those that are too high are chosen first. A row that
just pays hardly adds anything; one that just does not costs everybody."""


NO_WORK = StepWork()
"""Of a step that computes nothing."""


class Schedule(StrEnum):
    """How rows are given to drafts; see the module."""

    EVEN = "even"
    GOODPUT = "goodput"
    ALTERNATING = "alternating"


class RaceDrafting(StrEnum):
    """What the verifier guesses itself, besides the drafts of edges (`cloud.race_drafts`)."""

    OFF = "off"
    LOOKUP = "lookup"
    """What followed the longest match in the text, the latest of them."""
    SUFFIX = "suffix"
    """What is likeliest by all places of the text that are like its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """How rows are given out.

    Raises:
        ConfigError: a field is out of its range.
    """

    row_budget: int = 128
    """Most rows in one step; at least 2. More rows finish long prompts sooner and verify deeper trees, and make every
    step, which everybody waits for, longer."""

    race: bool = True
    """Step on without drafts instead of waiting for the link. Off saves steps of the target and costs up to
    `patience_s` of waiting per missed draft."""

    patience_s: float = 0.5
    """Longest wait for drafts with the race off, in seconds; at least 0. About two round trips: less wastes steps
    on edges that are merely far away, more makes a silent edge's answer slower."""

    patience_most_s: float = 2.0
    """Longest wait for drafts that an edge may ask for, in seconds; at least 0. It costs that edge time, and the others
    what its session holds meanwhile."""

    race_drafts: RaceDrafting = RaceDrafting.SUFFIX
    """What rides along when a session steps on without drafts, or with less likely ones. A text that never repeats itself
    soon gets no such rows; any other one takes fewer steps."""

    prefill_share: float = 0.25
    """Part of the budget that is kept for prompts while any waits; 0 < share <= 0.9. More shortens the time to the
    first token under load, less lets running sessions verify deeper."""

    schedule: Schedule = Schedule.GOODPUT
    """Which draft rows a step has. `goodput` never commits less per second than plain decoding, as far as chances and
    costs are known; `even` verifies all there is room for; `alternating` is for edges that draft about as long as a
    step takes, and that nothing may commit for meanwhile."""

    max_slowdown: float = 1.25
    """How much slower than without any drafts a session may become for those of the others, with `goodput` and
    `alternating`; at least 1. A session gains by its own drafts; whose are never right, or who has none, only waits for
    longer steps. 1 lets nobody lose anything, and a single session without drafts keeps all others from having any."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.row_budget < 2:
            raise ConfigError(f"row_budget: got {self.row_budget}, expected at least 2")
        for name in ("patience_s", "patience_most_s"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected at least 0")
        if not self.max_slowdown >= 1.0:
            raise ConfigError(f"max_slowdown: got {self.max_slowdown}, expected at least 1")
        if not 0.0 < self.prefill_share <= 0.9:
            raise ConfigError(
                f"prefill_share: got {self.prefill_share}, expected more than 0 and at most 0.9"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """What the scheduler knows of a session."""

    key: int
    """The registry's number for it."""
    may_step: bool
    """Somebody reads, and is not too far behind."""
    waiting_since_s: float
    """When it was last served, or got its work."""
    num_to_prefill: int = 0
    """Prompt rows to compute, the last of which is its first root; 0 once it generates."""
    waits_for: int | None = None
    """Key of the session that computes the beginning of this one's prompt; None if it need not wait."""
    num_offered: int = 0
    """Draft rows that could ride along."""
    chances: tuple[float, ...] = ()
    """Of each of them, that it is committed if it is a row of this step; never rising. Empty: unknown."""
    context: int = 0
    """Tokens that are in its cache."""
    drafted_at_s: float = 0.0
    """When it last had draft rows."""
    tokens_per_step: float | None = None
    """What a step committed for it, lately; at least 1. None: too few steps to tell."""
    has_drafts: bool = False
    """Something is there to verify; may hold with nothing offered, just before the text must end."""
    roused_at_s: float = 0.0
    """When the edge last sent the first drafts, or said that it is idle, after there were none."""
    edge_is_idle: bool = False
    """The edge has nothing to offer, or has said nothing for long: do not wait for it."""
    patience_s: float = 0.0
    """How long the edge would have it wait for drafts before a step without any; 0: do not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRows:
    """One session's part in a step: either prefill, or a root and drafts."""

    key: int
    num_prefill: int = 0
    num_drafts: int = 0
    due_since_s: float | None = field(default=None, compare=False)
    """Since when a root of it is due, other than since it was last served; None: since then."""

    @property
    def is_prefill(self) -> bool:
        """These rows only compute a part of the prompt."""
        return self.num_prefill > 0

    @property
    def num_rows(self) -> int:
        """Rows in the forward pass."""
        return self.num_prefill or 1 + self.num_drafts


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next step."""

    rows: tuple[SessionRows, ...] = ()
    """Whoever waited longest comes first, roots before prefill."""
    take_over: tuple[int, ...] = ()
    """Sessions that shall stop waiting for somebody else's prefill."""
    wake_at_s: float | None = None
    """When a session runs out of patience, if nothing else happens before."""
    work: StepWork = NO_WORK
    """What the step computes."""
    num_left_out: int = 0
    """Draft rows that its sessions offered and did not get."""
    num_expected: float = 0.0
    """Committed tokens to be expected of its draft rows; 0 where chances are unknown."""
    row_price_s: float = 0.0
    """What one more draft row would cost the other sessions of the step together, in seconds of their waiting; 0 for one
    alone, and while nothing is known of costs."""

    @property
    def num_rows(self) -> int:
        """Rows of the forward pass."""
        return sum(rows.num_rows for rows in self.rows)


NO_STEP = Plan()
"""Nobody may step."""


def plan_step(
    views: Sequence[SessionView],
    settings: SchedulerSettings,
    *,
    now_s: float,
    costs: StepCosts | None = None,
) -> Plan:
    """Return what the next step computes; see the module for the rule.

    Args:
        views: the sessions.
        settings: how rows are given out.
        now_s: the time.
        costs: what steps take; None while that is unknown: drafts are shared evenly.
    """
    able = [view for view in views if view.may_step]
    if not able:
        return NO_STEP
    able.sort(key=lambda view: (view.waiting_since_s, view.key))
    free = [view for view in able if view.waits_for is None]
    prefilling = [view for view in free if view.num_to_prefill > 0]
    ready = [view for view in free if view.num_to_prefill == 0]
    due = [view for view in ready if _is_due(view, settings, now_s)]
    due_keys = {view.key for view in due}
    patient = [_waits_until_s(view, settings) for view in ready if view.key not in due_keys]
    if settings.schedule is Schedule.ALTERNATING:
        due = due[: (len(due) + 1) // 2]

    wanted = sum(view.num_to_prefill for view in prefilling)
    reserve = min(wanted, max(1, int(settings.row_budget * settings.prefill_share)))
    roots = due[: settings.row_budget - reserve]
    left = settings.row_budget - reserve - len(roots)
    reserved = _filled(prefilling, share_out([v.num_to_prefill for v in prefilling], reserve))
    drafts, num_expected = _drafts(roots, left, settings, costs=costs, filling=reserved)
    left -= sum(drafts)
    chunks = share_out([view.num_to_prefill for view in prefilling], reserve + left)
    return Plan(
        rows=(
            *(
                SessionRows(key=v.key, num_drafts=count, due_since_s=_due_since_s(v, settings))
                for v, count in zip(roots, drafts, strict=True)
            ),
            *(
                SessionRows(key=v.key, num_prefill=count)
                for v, count in zip(prefilling, chunks, strict=True)
                if count
            ),
        ),
        take_over=_orphans(able),
        wake_at_s=min(patient, default=None),
        work=_verified(roots, drafts, _filled(prefilling, chunks)),
        num_left_out=sum(view.num_offered for view in roots) - sum(drafts),
        num_expected=num_expected,
        row_price_s=_price_s(roots, costs),
    )


def _drafts(
    roots: Sequence[SessionView],
    budget: int,
    settings: SchedulerSettings,
    *,
    costs: StepCosts | None,
    filling: StepWork,
) -> tuple[list[int], float]:
    """Return the draft rows of each session that has a root, and what they should yield.

    Args:
        roots: these sessions.
        budget: most draft rows of all together.
        settings: how rows are given out.
        costs: what steps take, if that is known.
        filling: what the step computes besides.
    """
    if budget <= 0 or not any(view.num_offered for view in roots):
        return [0] * len(roots), 0.0
    if costs is None or settings.schedule is Schedule.EVEN:
        counts = share_out([view.num_offered for view in roots], budget)
        pairs = zip(roots, counts, strict=True)
        return counts, sum(sum(view.chances[:count]) for view, count in pairs)
    base_s = costs.seconds(_verified(roots, [0] * len(roots), filling))
    paces = [view.tokens_per_step for view in roots if view.tokens_per_step is not None]
    slowest = min(paces, default=float("inf")) if len(roots) > 1 else float("inf")
    chosen = choose(
        [
            DraftRows(
                chances=tuple(chance * SURENESS for chance in view.chances),
                row_s=costs.row_s(view.context),
                drafted_at_s=view.drafted_at_s,
            )
            for view in roots
        ],
        budget=budget,
        base_s=base_s,
        longest_s=base_s * settings.max_slowdown * slowest,
    )
    return list(chosen.counts), (chosen.num_tokens - len(roots)) / SURENESS


def _filled(views: Sequence[SessionView], chunks: Sequence[int]) -> StepWork:
    """Return a step that computes so many rows of each prompt."""
    filled = [(count, v.context) for v, count in zip(views, chunks, strict=True) if count]
    if not filled:
        return NO_WORK
    counts, contexts = zip(*filled, strict=True)
    return NO_WORK.with_prefill(counts, contexts=contexts)


def _verified(views: Sequence[SessionView], drafts: Sequence[int], work: StepWork) -> StepWork:
    """Return the step with a root and so many drafts of each session besides."""
    return work.with_rows([1 + c for c in drafts], contexts=[view.context for view in views])


def _price_s(roots: Sequence[SessionView], costs: StepCosts | None) -> float:
    """Return what one more draft row of one of them costs all others together."""
    if costs is None or len(roots) < 2:
        return 0.0
    mean_s = sum(costs.row_s(view.context) for view in roots) / len(roots)
    return mean_s * (len(roots) - 1)


def share_out(wants: Sequence[int], budget: int) -> list[int]:
    """Return how much of `budget` each gets: evenly, nobody more than wanted, odd ones to the first in line."""
    level, left = 0, budget
    for rank, want in enumerate(sorted(wants)):
        num_above = len(wants) - rank
        if (want - level) * num_above > left:
            level += left // num_above
            break
        left -= (want - level) * num_above
        level = want
    given = [min(want, level) for want in wants]
    odd = budget - sum(given)
    for i, want in enumerate(wants):
        if odd > 0 and given[i] < want:
            given[i] += 1
            odd -= 1
    return given


def _is_due(view: SessionView, settings: SchedulerSettings, now_s: float) -> bool:
    """Whether a session that generates is worth a root now."""
    if view.has_drafts or view.edge_is_idle:
        return True
    return _waits_until_s(view, settings) <= now_s


def _due_since_s(view: SessionView, settings: SchedulerSettings) -> float:
    """Return since when a session that is due has been: what it was held back for drafts before is no queue."""
    held_until_s = _waits_until_s(view, settings)
    if view.has_drafts or view.edge_is_idle:
        held_until_s = min(held_until_s, view.roused_at_s)
    return max(view.waiting_since_s, held_until_s)


def _waits_until_s(view: SessionView, settings: SchedulerSettings) -> float:
    """Return when a session that has no drafts steps on without."""
    asked_s = min(view.patience_s, settings.patience_most_s)
    patience_s = asked_s if settings.race else max(asked_s, settings.patience_s)
    # In the race, time does not matter: it may step even if its clock is ahead.
    return view.waiting_since_s + patience_s if patience_s > 0.0 else float("-inf")


def _orphans(able: Sequence[SessionView]) -> tuple[int, ...]:
    """Sessions that would wait for ever: for the prefill of one that may not step, or in a circle."""
    by_key = {view.key: view for view in able}
    orphans: list[int] = []
    for view in able:
        if view.waits_for is None:
            continue
        leader = by_key.get(view.waits_for)
        passed: set[int] = set()
        while leader is not None and leader.waits_for is not None and leader.key not in passed:
            passed.add(leader.key)
            leader = None if leader.key in orphans else by_key.get(leader.waits_for)
        if view.waits_for not in by_key or view.key in passed:
            orphans.append(view.key)
    return tuple(orphans)
