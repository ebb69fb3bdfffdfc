"""What the sessions want from the model thread, and handing out what it yields. Belongs to the event loop."""

from cloud import journal
from cloud.account import Outcome
from cloud.entry import Cache, Entry
from cloud.orders import CacheView, OpenOrder, StepResult
from cloud.race_drafts import RaceDrafts, mixed
from cloud.scheduler import Plan, RaceDrafting, SessionView
from cloud.sessions import Registry
from cloud.step_cost import StepCosts
from cloud.walk import Tree
from paceline.clock import Clock
from paceline.errors import LocalProtocolError, PacelineError
from paceline.session.counts import Counts
from paceline.session.events import Stepped
from paceline.session.offer import NOTHING, Offer

LEAST_OFFERED = 8
"""Draft rows that a session may offer in any case."""

OFFERED_SHARES = 4
"""Even shares of a step's rows that a session may offer: looking at a tree takes time, about a microsecond for a node."""


class Workload:
    """The registry, as the stepper sees it."""

    def __init__(
        self,
        registry: Registry,
        *,
        max_draft_rows: int,
        clock: Clock,
        race_drafts: RaceDrafting = RaceDrafting.OFF,
    ) -> None:
        self._registry = registry
        self._max_draft_rows = max_draft_rows
        self._clock = clock
        off = race_drafts is RaceDrafting.OFF
        self._race_drafts = None if off else RaceDrafts(race_drafts)

    def take_cache_orders(self) -> tuple[list[int], list[OpenOrder]]:
        """Return which caches to free and which to make; from here on they count as done."""
        closes = sorted(self._registry.closing)
        self._registry.closing.clear()
        opens = []
        for entry in self._registry.entries:
            if entry.cache is Cache.WANTED:
                entry.cache = Cache.ORDERED
                opens.append(self._open_order(entry))
        return closes, opens

    def cache_opened(self, key: int, error: PacelineError | None) -> None:
        """A cache was made, or refused."""
        entry = self._registry.get(key)
        if entry is None:
            return  # closed meanwhile, and in `_closing`
        if error is not None:
            entry.cache = Cache.NONE
            self._registry.account.refused[error.reason] += 1
            self._registry.fail(entry, error)
            return
        entry.cache = Cache.HELD
        entry.waiting_since_s = self._clock.now_s()
        if entry.stream is not None:
            entry.stream.wake()

    def cache_views(self, views: dict[int, CacheView]) -> None:
        """Take the state of the caches."""
        for key, view in views.items():
            entry = self._registry.get(key)
            if entry is not None:
                entry.cache_view = view

    def scheduler_views(
        self, *, row_budget: int = 4096
    ) -> tuple[list[SessionView], dict[int, Tree]]:
        """Return what the scheduler may choose from, and the drafts of those that have any.

        Args:
            row_budget: most rows of the step; bounds how many drafts it is worth looking at.
        """
        views: list[SessionView] = []
        trees: dict[int, Tree] = {}
        held = [entry for entry in self._registry.entries if entry.cache is Cache.HELD]
        if self._race_drafts is not None:
            self._race_drafts.begin(sum(map(_may_guess, held)))
        may_step = [entry.session.may_step for entry in held]
        most = max(LEAST_OFFERED, OFFERED_SHARES * row_budget // max(1, sum(may_step)))
        for entry, may in zip(held, may_step, strict=True):
            offer = self._offer(entry, most) if may else NOTHING
            num_to_prefill = entry.cache_view.num_to_prefill
            trees[entry.key] = Tree(tokens=offer.tokens, parents=offer.parents)
            views.append(
                SessionView(
                    key=entry.key,
                    may_step=may,
                    waiting_since_s=entry.waiting_since_s,
                    num_to_prefill=num_to_prefill,
                    waits_for=entry.cache_view.waits_for,
                    num_offered=len(offer.tokens),
                    chances=offer.chances,
                    context=max(0, entry.session.length - num_to_prefill),
                    drafted_at_s=entry.drafted_at_s,
                    tokens_per_step=entry.pace.tokens_per_step,
                    has_drafts=entry.session.has_drafts,
                    edge_is_idle=not self._registry.is_waited_for(entry),
                    roused_at_s=entry.roused_at_s,
                    patience_s=entry.session.request.patience_ms / 1000,
                )
            )
        return views, trees

    def _offer(self, entry: Entry, most: int) -> Offer:
        """Return the draft rows that a session, which may step, could have: its edge's, and the verifier's own guesses."""
        most = min(most, self._max_draft_rows) if entry.takes_drafts else 0
        offer = entry.session.offer(most)
        entry.mixture = None
        if self._race_drafts is None or not entry.takes_drafts:
            return offer
        if entry.race_draft is None:
            entry.race_draft = self._race_drafts.open(entry.session)
        # The first token comes without drafts; the prompt can be read meanwhile.
        ahead = most if _may_guess(entry) else 0
        own = self._race_drafts.offer(entry.race_draft, entry.session, most=ahead)
        if not own.tokens:
            return offer
        entry.mixture = mixed(offer, own, most=most)
        return entry.mixture.offer

    @property
    def costs(self) -> StepCosts | None:
        """What steps take; None before the first."""
        return self._registry.account.cost_fit.costs

    @property
    def needs_noise(self) -> bool:
        """A session draws with noise, some of which may be computed ahead."""
        return any(
            entry.cache is Cache.HELD and not entry.session.request.sampling.is_greedy
            for entry in self._registry.entries
        )

    def stepped(self, result: StepResult, plan: Plan, *, started_s: float) -> None:
        """Hand out what a step yielded.

        Args:
            result: of the step.
            plan: the step.
            started_s: when it was started.
        """
        self._note_step(result.step_ns)
        now_s = self._clock.now_s()
        self._registry.account.stepped(
            plan, ended_s=now_s, step_s=result.step_ns / 1e9, is_whole=not result.failed
        )
        for rows in plan.rows:
            key = rows.key
            entry = self._registry.get(key)
            if entry is None:
                continue  # closed during the step
            if rows.num_drafts:
                entry.drafted_at_s = started_s
            waited_s, entry.waiting_since_s = started_s - entry.waiting_since_s, now_s
            queued_s = waited_s if rows.due_since_s is None else started_s - rows.due_since_s
            if entry.first_step_at_s is None:
                entry.first_step_at_s = started_s
            error, served = result.failed.get(key), result.served.get(key)
            had_drafts = entry.session.has_drafts or rows.num_drafts
            if error is not None and entry.takes_drafts and had_drafts:
                journal.drafts_given_up(entry, error)
                entry.takes_drafts = False
            elif error is not None:
                self._registry.fail(entry, error)
            elif served is not None:
                if entry.mixture is not None:
                    own, accepted = entry.mixture.outcome(rows.num_drafts, served.tokens)
                    self._registry.account.raced(own, accepted=accepted)
                event = Stepped(
                    tokens=served.tokens,
                    queue_ns=max(0, int(waited_s * 1e9)),
                    verify_ns=result.step_ns,
                    num_rows=result.num_rows,
                    row_price_ns=round(plan.row_price_s * 1e9),
                    logprobs=served.logprobs,
                )
                entry.pace.add(len(served.tokens))
                self._serve(entry, event, now_s=now_s, queued_s=max(0.0, queued_s))

    def _serve(self, entry: Entry, event: Stepped, *, now_s: float, queued_s: float) -> None:
        """Hand a session what a step yielded for it, and count that.

        `event.queue_ns` is all that the session waited; `queued_s` leaves out what it was held back for drafts: that
        tells nothing of how busy the verifier is.
        """
        before = entry.session.counts
        try:
            self._registry.handle(entry, event)
        except LocalProtocolError as bug:
            journal.broken_by_step(entry, bug)
            self._registry.fail(entry, bug)
            return
        self._count(entry, before, now_s=now_s, queued_s=queued_s)
        if entry.session.finish is not None:
            self._registry.free_cache(entry)
            entry.race_draft = None

    def _count(self, entry: Entry, before: Counts, *, now_s: float, queued_s: float) -> None:
        account, after = self._registry.account, entry.session.counts
        account.load.add_served(ended_s=now_s, queue_s=queued_s)
        gap_s = None if entry.served_at_s is None else now_s - entry.served_at_s
        if entry.served_at_s is None:
            assert entry.first_step_at_s is not None
            request = entry.session.request
            account.began(
                num_prompt=len(request.prompt) + len(request.output),
                first_token_s=now_s - entry.opened_at_s,
                queue_s=entry.first_step_at_s - entry.opened_at_s,
            )
        entry.served_at_s = now_s
        account.served(
            Outcome(
                num_judged=after.judged - before.judged,
                num_accepted=after.accepted - before.accepted,
                gap_s=gap_s,
            ),
            queue_ns=int(queued_s * 1e9),
        )
        if entry.session.finish is not None:
            account.duration.add(now_s - entry.opened_at_s)

    def _open_order(self, entry: Entry) -> OpenOrder:
        request = entry.session.request
        end = len(request.prompt) + min(request.max_tokens, self._registry.limits.max_tokens)
        return OpenOrder(
            key=entry.key,
            text=tuple(entry.session.log),
            num_output=len(request.output),
            max_length=min(end, self._registry.limits.context_length),
            sampling=request.sampling,
            num_logprobs=request.num_logprobs,
            tenant=entry.peer.namespace,
        )

    def _note_step(self, step_ns: int) -> None:
        """Follow the time of a step, smoothed: edges plan with it."""
        before = self._registry.step_ns
        self._registry.step_ns = step_ns if before == 0 else before + (step_ns - before) // 8


def _may_guess(entry: Entry) -> bool:
    """Whether draft rows of a session may be in the next step."""
    return entry.takes_drafts and entry.session.may_step and entry.cache_view.num_to_prefill == 0
