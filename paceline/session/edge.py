"""The edge's half of a session: what is known as committed, and the tree of what was guessed."""

from collections import deque
from dataclasses import replace
from typing import assert_never

from paceline.errors import LocalProtocolError, ProtocolError, SessionLostError
from paceline.messages import (
    FLOOR_WINDOW,
    MAX_PROPOSAL_TOKENS,
    Close,
    CloseReason,
    CloudMessage,
    Commit,
    Drain,
    Failure,
    Open,
    Opened,
    Proposal,
    Resume,
)
from paceline.session.belief import beyond, check_commit, check_opened
from paceline.session.drafting import DraftRequest, EdgeCounts, check_reach
from paceline.session.events import (
    Deliver,
    Drafted,
    EdgeEffect,
    EdgeEvent,
    Failed,
    Finished,
    FromCloud,
    GiveUp,
    Grown,
    LinkDown,
    LinkUp,
    Move,
    NothingToDraft,
    Reconnect,
    Send,
    Steer,
    Stop,
    name_of,
)
from paceline.session.failure import error_of
from paceline.session.growth import Growth, GrowthRequest
from paceline.session.guesses import after_commits
from paceline.session.pipeline import PipelineSettings, Place
from paceline.session.pipelines import make_pipeline
from paceline.session.table import EdgeKind, EdgeState, edge_leads_to
from paceline.tokens import Position, TokenId

STORY_LENGTH = 16
"""How many of the last events a LocalProtocolError tells."""

FLOOR_LEAD = 64
"""Assumed max_lead before `Opened` tells it."""


class EdgeSession:
    """One generation, seen from the edge. `handle` takes what happened and returns what must happen.

    Args:
        request: what to generate; `output` may hold text that is already final.
        draft_length: how many tokens deep to draft beyond the committed text; 0 drafts nothing.
        window: the edge's own limit of nodes in flight; the verifier's may be lower.
        growth: how the tree grows, for a drafter that has several guesses for a position; None: a chain.
        pipeline: what is drafted when, and which of it is sent when; None is the stream of a tree.
    """

    def __init__(
        self,
        *,
        request: Open,
        draft_length: int,
        window: int = FLOOR_WINDOW,
        growth: Growth | None = None,
        pipeline: PipelineSettings | None = None,
    ) -> None:
        check_reach(draft_length=draft_length, window=window)
        self.request = request
        self.draft_length = draft_length
        self.window = window
        self.state = EdgeState.NEW
        self.log: list[TokenId] = [*request.prompt, *request.output]
        self.opened: Opened | None = None
        self.counts = EdgeCounts()
        self._stop_tokens = frozenset(request.stop_tokens)
        self._guesses, self._pipeline = make_pipeline(
            pipeline or PipelineSettings(),
            log=self.log,
            stops=self._stop_tokens,
            growth=growth,
            counts=self.counts,
        )
        self._weights = request.weights_fingerprint
        self._acknowledged = self.length
        self._attempt = 0
        self._limit = FLOOR_WINDOW
        self._end = len(request.prompt) + request.max_tokens
        """Where the text ends at the latest, as far as is known."""
        self._no_guess = False
        self._idle_sent = False
        self._story: deque[str] = deque(maxlen=STORY_LENGTH)

    # --- what the shell reads

    @property
    def length(self) -> Position:
        """Tokens of prompt and output known as committed."""
        return Position(len(self.log))

    @property
    def output(self) -> list[TokenId]:
        """The committed tokens after the prompt."""
        return self.log[len(self.request.prompt) :]

    @property
    def window_used(self) -> int:
        """Names in flight, as this side counts them."""
        return self._guesses.used

    @property
    def is_over(self) -> bool:
        """Nothing more will happen."""
        return self.state in {EdgeState.DONE, EdgeState.FAILED}

    @property
    def draft_request(self) -> DraftRequest | None:
        """What to draft next, or None while there is nothing worth drafting.

        None as well after `NothingToDraft`, until a commit changes the text.
        """
        return None if self.is_over else self._pipeline.draft_request(self._place)

    @property
    def has_growth(self) -> bool:
        """Trees are wanted, from a drafter that makes them."""
        return self._pipeline.has_growth

    @property
    def growth_request(self) -> GrowthRequest | None:
        """From where to go on with a tree, or None while nothing is worth it. Answer with `Grown`."""
        return None if self.is_over else self._pipeline.growth_request(self._place)

    @property
    def _place(self) -> Place:
        """Where the session stands, for the pipeline."""
        return Place(
            position=self.length,
            draft_length=self.draft_length,
            room=self._room_below,
            space=min(self.window, self._limit) - self._guesses.num_live,
            no_guess=self._no_guess,
        )

    @property
    def _room_below(self) -> int:
        """How far below the committed text a guess can still save a step."""
        # The last token of a text is the target's own, drawn after the guess before it: guessing that one saves nothing.
        return self._end - len(self.log) - 1

    @property
    def _idle(self) -> bool:
        """Nothing is offered, and nothing will be before the next commit: the verifier must not wait."""
        if self._no_guess or self._pipeline.is_closed:
            return True
        return not self._guesses.has_any and min(self.draft_length, self._room_below) < 1

    # --- events

    def handle(self, event: EdgeEvent) -> tuple[EdgeEffect, ...]:
        """Take one event.

        Raises:
            LocalProtocolError: the shell broke the rules; a bug. Tells the last events.
        """
        self._story.append(name_of(event))
        if isinstance(event, FromCloud | Grown | LinkUp):
            self._guesses.now_s = event.at_s
        try:
            return self._dispatch(event)
        except LocalProtocolError as error:
            story = "; ".join(self._story)
            raise LocalProtocolError(f"{error}; the last events were: {story}") from error
        except ProtocolError as error:
            # The verifier broke the rules. What is committed stays; the session is not worth resuming.
            self.state = EdgeState.FAILED
            return (Failed(error=error),)

    def _dispatch(self, event: EdgeEvent) -> tuple[EdgeEffect, ...]:
        match event:
            case LinkUp():
                return self._link_up(event)
            case LinkDown():
                self._go(EdgeKind.LINK_DOWN)
                return () if self.is_over else (Reconnect(elsewhere=False),)
            case FromCloud():
                return self._from_cloud(event.message)
            case Drafted():
                return self._drafted(event)
            case Grown():
                return self._grown(event)
            case NothingToDraft():
                return self._nothing_to_draft(event)
            case Steer():
                return self._steer(event)
            case Stop():
                return self._stop(cancelled=event.cancelled)
            case GiveUp():
                was_over = self.is_over
                self._go(EdgeKind.GIVE_UP)
                return () if was_over else (Failed(error=event.error),)
            case _:
                assert_never(event)

    def _go(self, kind: EdgeKind, *, can_resume: bool = False) -> None:
        self.state = edge_leads_to(self.state, kind, can_resume=can_resume)

    # --- the stream comes and goes

    def _link_up(self, event: LinkUp) -> tuple[EdgeEffect, ...]:
        can_resume = event.holds_session and self.opened is not None
        self._go(EdgeKind.LINK_UP, can_resume=can_resume)
        if self.is_over:
            return ()
        self._weights = self._weights or event.weights_fingerprint
        self._guesses.restart()
        self._limit = FLOOR_WINDOW
        self._acknowledged = self.length
        self._idle_sent = False
        self._attempt += 1
        first: Open | Resume
        if self.opened is not None and can_resume:
            first = Resume(
                session_id=self.opened.session_id, length=self.length, attempt=self._attempt
            )
        else:
            # Once a target has answered, only the same weights will do: another target, another text.
            first = replace(
                self.request, output=tuple(self.output), weights_fingerprint=self._weights
            )
        return (Send(message=first), *self._flush())

    # --- the verifier speaks

    def _from_cloud(self, message: CloudMessage) -> tuple[EdgeEffect, ...]:
        match message:
            case Opened():
                return self._on_opened(message)
            case Commit():
                return self._on_commit(message)
            case Drain():
                self._go(EdgeKind.DRAIN)
                return () if self.is_over else (Move(within_s=message.deadline_ms / 1000),)
            case Failure():
                return self._on_failure(message)
            case _:
                assert_never(message)

    def _on_opened(self, opened: Opened) -> tuple[EdgeEffect, ...]:
        self._go(EdgeKind.OPENED)
        if self.is_over:
            return ()
        check_opened(opened, request=self.request, weights=self._weights, length=self.length)
        self.opened = opened
        self._weights = opened.target.weights_fingerprint
        limits = opened.limits
        self._limit = limits.window
        num_prompt = len(self.request.prompt)
        most = min(self.request.max_tokens, limits.max_tokens)
        self._end = min(num_prompt + most, limits.context_length)
        return self._flush()

    def _on_commit(self, commit: Commit) -> tuple[EdgeEffect, ...]:
        was_over = self.is_over
        self._go(EdgeKind.COMMIT if commit.finish is None else EdgeKind.FINISH)
        if was_over:
            return ()  # it was under way when the text ended here
        skip = self.length - commit.position
        check_commit(commit, request=self.request, log=self.log)
        for token in commit.tokens[skip:]:
            self.log.append(token)
            self.counts.unsent += self._guesses.commit(token) + self._pipeline.committed(token)
            self._no_guess = False
        self.counts.add(commit)
        news = beyond(commit, skip)
        deliver = (Deliver(commit=news),) if news.tokens else ()
        if commit.finish is not None:
            return (
                *deliver,
                Send(message=Close(reason=CloseReason.DONE)),
                Finished(reason=commit.finish),
            )
        return (*deliver, *self._flush())

    def _on_failure(self, failure: Failure) -> tuple[EdgeEffect, ...]:
        error = error_of(failure)
        is_lost = isinstance(error, SessionLostError)
        was_over = self.is_over
        if is_lost:
            self._go(EdgeKind.LOST)
        else:
            self._go(EdgeKind.REFUSED if failure.retryable else EdgeKind.BROKEN)
        if was_over:
            return ()
        if self.state is EdgeState.FAILED:
            return (Failed(error=error),)
        if is_lost:
            self.opened = None
            self._end = len(self.request.prompt) + self.request.max_tokens
        return (Reconnect(elsewhere=not is_lost, after_s=failure.retry_after_ms / 1000),)

    # --- the drafter speaks

    def _drafted(self, event: Drafted) -> tuple[EdgeEffect, ...]:
        tokens = after_commits(self.log, event.position, event.tokens)
        self._go(EdgeKind.DRAFTED)
        if self.is_over:
            return ()
        if tokens is None:
            self.counts.unsent += len(event.tokens)
            return ()  # a commit overtook the drafter
        self._pipeline.drafted(tokens)
        return self._flush()

    def _grown(self, event: Grown) -> tuple[EdgeEffect, ...]:
        skip = self.length - event.position
        paths = [after_commits(self.log, event.position, leaf.path) for leaf in event.leaves]
        self._go(EdgeKind.DRAFTED)
        if self.is_over:
            return ()
        for leaf, path in zip(event.leaves, paths, strict=True):
            if (
                path is None
                or len(leaf.path) < skip
                or not self._pipeline.grown(path, leaf.guesses)
            ):
                self.counts.unsent += len(leaf.guesses)
        return self._flush()

    def _nothing_to_draft(self, event: NothingToDraft) -> tuple[EdgeEffect, ...]:
        self._go(EdgeKind.IDLE)
        is_about_older_text = event.position is not None and event.position < self.length
        if self.is_over or is_about_older_text:
            return ()
        self._no_guess = True
        return self._flush()

    def _steer(self, event: Steer) -> tuple[EdgeEffect, ...]:
        """Draft so far ahead from now on. Nothing leaves the tree: what was sent cannot be unsent."""
        check_reach(draft_length=event.draft_length, window=event.window)
        self._go(EdgeKind.STEER)
        self.draft_length, self.window = event.draft_length, event.window
        self._guesses.steer(event.growth)
        return self._flush()

    def _stop(self, *, cancelled: bool) -> tuple[EdgeEffect, ...]:
        was = self.state
        self._go(EdgeKind.STOP)
        if was in {EdgeState.DONE, EdgeState.FAILED}:
            return ()
        reason = CloseReason.CANCELLED if cancelled else CloseReason.DONE
        connected = was in {EdgeState.OPENING, EdgeState.RESUMING, EdgeState.STREAMING}
        close = (Send(message=Close(reason=reason)),) if connected else ()
        return (*close, Finished(reason=None))

    # --- what goes up

    def _flush(self) -> tuple[EdgeEffect, ...]:
        """Send every guess that the window allows, or an acknowledgement, or that we are idle."""
        self._pipeline.release(self._place)
        if self.state not in {EdgeState.OPENING, EdgeState.RESUMING, EdgeState.STREAMING}:
            return ()
        effects: list[EdgeEffect] = []
        while (room := self._room) > 0:
            effects.append(self._propose(min(room, MAX_PROPOSAL_TOKENS)))
        lead = self.opened.limits.max_lead if self.opened else FLOOR_LEAD
        overdue = self.length - self._acknowledged >= max(1, lead // 4)
        if not effects and (overdue or (not self._idle_sent and self._idle)):
            effects.append(self._propose(0))
        return tuple(effects)

    @property
    def _room(self) -> int:
        """Waiting guesses that the window allows to send now."""
        free = min(self.window, self._limit) - self._guesses.used
        return min(free, self._guesses.num_waiting)

    def _propose(self, most: int) -> Send:
        """Make the message that offers the next `most` guesses and acknowledges everything known."""
        tokens, parents = self._guesses.take(most)
        self.counts.drafted += len(tokens)
        self._acknowledged = self.length
        self._idle_sent = idle = self._idle
        return Send(
            message=Proposal(base_position=self.length, tokens=tokens, parents=parents, idle=idle)
        )
