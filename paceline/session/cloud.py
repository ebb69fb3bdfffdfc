"""The verifier's half of a session: the log, and the tree of what arrived and is not contradicted."""

from typing import assert_never

from paceline.errors import FencedError, LocalProtocolError, RemoteProtocolError
from paceline.messages import (
    MAX_COMMIT_TOKENS,
    Close,
    Commit,
    FinishReason,
    Limits,
    Open,
    Proposal,
    TokenLogprobs,
)
from paceline.session.counts import Counts
from paceline.session.events import (
    Abort,
    Attach,
    CloudEffect,
    CloudEvent,
    CommitReady,
    Detach,
    EndStream,
    FromEdge,
    LeaseExpired,
    Release,
    StartLease,
    Stepped,
    StopLease,
    WorkReady,
)
from paceline.session.names import Names, Place
from paceline.session.offer import Offer, offered
from paceline.session.ranks import RankRates
from paceline.session.start import check_start
from paceline.session.table import CloudKind, CloudState, cloud_leads_to
from paceline.session.tree import Node, root_after
from paceline.tokens import Position, TokenId


class CloudSession:
    """One session on the verifier. `handle` takes what happened and returns what must happen.

    Args:
        request: the `Open` that started it, already validated by the shell.
        limits: what the verifier allows; `limits.window` is at least FLOOR_WINDOW.
        vocabulary_size: ids at or above it break the protocol.
        stream: the shell's number of the stream that sent `request`; it is attached at once. `next_commit` may have
            something for it before any event: a text whose given output has already ended says so.
        rates: what is believed of its drafts; None: nothing yet.

    Raises:
        LocalProtocolError: `limits` or the length of the prompt is not what the shell has to see to.
    """

    def __init__(
        self,
        *,
        request: Open,
        limits: Limits,
        vocabulary_size: int,
        stream: int,
        rates: RankRates | None = None,
    ) -> None:
        check_start(request, limits)
        self.request = request
        self.limits = limits
        self.state = CloudState.LIVE
        self.log: list[TokenId] = [*request.prompt, *request.output]
        self.finish: FinishReason | None = None
        self._vocabulary_size = vocabulary_size
        self._stop_tokens = frozenset(request.stop_tokens)
        self._end = min(
            len(request.prompt) + min(request.max_tokens, limits.max_tokens), limits.context_length
        )
        self._bare = self.length
        self._root = root_after(self.log)
        self._accepted: set[Position] = set()
        self._logprobs: dict[Position, TokenLogprobs] = {}
        """From `_bare` on, if asked for: given output has none, and once acknowledged they are let go."""
        self._counts = Counts()
        self._told = Counts()
        self._last_step = Stepped(tokens=())
        self._finish_taken = False
        self._idle = False
        self._stream = stream
        self._attempt = 0
        self._names = Names()
        self._rates = RankRates() if rates is None else rates
        self._base = self._cursor = self.length
        if request.output:
            self._finish_if_over()
        if self.finish is not None:
            self.state = CloudState.ENDED

    # --- what the shell reads

    @property
    def length(self) -> Position:
        """Tokens of prompt and output in the log."""
        return Position(len(self.log))

    @property
    def output(self) -> list[TokenId]:
        """The committed tokens after the prompt."""
        return self.log[len(self.request.prompt) :]

    @property
    def counts(self) -> Counts:
        """What became of drafts and steps since the session began, told to the edge or not."""
        return self._told.plus(self._counts)

    @property
    def stream(self) -> int:
        """Number of the newest stream."""
        return self._stream

    @property
    def may_step(self) -> bool:
        """Committing on is allowed: somebody reads, and is not too far behind."""
        return self.state is CloudState.LIVE and len(self.log) - self._base < self.limits.max_lead

    @property
    def has_drafts(self) -> bool:
        """There is something to verify."""
        return bool(self._root.children)

    @property
    def edge_is_idle(self) -> bool:
        """The edge said that it has nothing to offer: do not wait for it."""
        return self._idle

    @property
    def window_used(self) -> int:
        """Names in flight."""
        return self._names.used

    @property
    def num_live_nodes(self) -> int:
        """Nodes below the committed text, named or not."""
        return sum(1 for _ in self._root.below())

    @property
    def deepest(self) -> int:
        """How deep drafts may go in a step now; below 1 not at all."""
        # A step commits one token more than it goes deep: neither beyond the end of the text, nor more than max_lead
        # past what the edge is known to have.
        return min(self._end, self._base + self.limits.max_lead) - self.length - 1

    def offer(self, max_rows: int) -> Offer:
        """Return the likeliest live nodes to verify now, at most `max_rows`, never beyond where text or lead must end."""
        return offered(self._root, self._rates, most=max_rows, deepest=self.deepest)

    def next_commit(self, *, stream: int | None = None) -> Commit | None:
        """Return what the attached stream has not been sent yet, or None; moves the cursor past it.

        A stream that breaks before it arrives loses nothing: the edge resumes from what it has.

        Args:
            stream: the stream that asks, so that a writer which was fenced while it waited gets nothing; None for
                the attached one.
        """
        if self.state not in {CloudState.LIVE, CloudState.ENDED}:
            return None
        if stream is not None and stream != self._stream:
            return None
        begin = self._cursor
        end = min(self.length, begin + MAX_COMMIT_TOKENS)
        if begin < self._bare:
            end = min(end, self._bare)  # one commit has all log probabilities or none
        last = self.finish is not None and end == self.length
        if begin == end and not (last and not self._finish_taken):
            return None
        accepted = tuple(position in self._accepted for position in range(begin, end))
        counts, self._counts = self._counts, Counts()
        self._told = self._told.plus(counts)
        self._cursor = Position(end)
        self._finish_taken = last
        return Commit(
            position=begin,
            tokens=tuple(self.log[begin:end]),
            accepted=accepted if any(accepted) else (),
            num_judged=counts.judged,
            num_accepted=counts.accepted,
            num_late=counts.late,
            num_stale=counts.stale,
            queue_ns=self._last_step.queue_ns,
            verify_ns=self._last_step.verify_ns,
            num_rows=self._last_step.num_rows,
            logprobs=self._logprobs_of(begin, end),
            finish=self.finish if last else None,
            row_price_ns=self._last_step.row_price_ns,
            num_steps=counts.steps,
        )

    def _logprobs_of(self, begin: int, end: int) -> tuple[TokenLogprobs, ...]:
        positions = map(Position, range(begin, end) if self._logprobs else range(0))
        return tuple(self._logprobs[p] for p in positions if p in self._logprobs)

    # --- events

    def handle(self, event: CloudEvent) -> tuple[CloudEffect, ...]:
        """Take one event.

        Raises:
            RemoteProtocolError: the edge broke the rules; end its stream with this. Unless it happened while
                attaching, abort the session as well.
            FencedError: a stream that was abandoned wants to attach late; end it with this and nothing else.
            LocalProtocolError: the shell broke the rules; a bug.
        """
        match event:
            case Attach():
                return self._attach(event)
            case Detach():
                return self._detach(event)
            case FromEdge():
                return self._from_edge(event)
            case Stepped():
                return self._stepped(event)
            case LeaseExpired():
                return self._close(CloudKind.EXPIRE)
            case Abort():
                return self._close(CloudKind.ABORT)
            case _:
                assert_never(event)

    def _attach(self, event: Attach) -> tuple[CloudEffect, ...]:
        if event.stream <= self._stream:
            raise LocalProtocolError(f"stream: got {event.stream}, expected above {self._stream}")
        if 0 < event.attempt <= self._attempt:
            raise FencedError(
                f"resume.attempt: got {event.attempt} after {self._attempt}; a newer stream has taken over"
            )
        was = self.state
        following = cloud_leads_to(was, CloudKind.ATTACH)
        if following is CloudState.CLOSED:
            return ()
        if not len(self.request.prompt) <= event.length <= self.length:
            raise RemoteProtocolError(
                f"resume.length: got {event.length}, expected {len(self.request.prompt)} (the prompt) "
                f"to {self.length} (the log); open the session again in full"
            )
        self.state = following
        before = self._stream
        self._stream = event.stream
        self._attempt = max(self._attempt, event.attempt)
        self._forget_names()
        self._base = self._cursor = event.length
        self._finish_taken = False
        fenced = was in {CloudState.LIVE, CloudState.ENDED}
        first: CloudEffect = EndStream(stream=before) if fenced else StopLease()
        return (first, CommitReady(), WorkReady())

    def _forget_names(self) -> None:
        """Keep nodes for the stream that follows, but no more of them than one stream may have."""
        self._names.clear()
        self._idle = False
        nodes = list(self._root.below())
        if len(nodes) > self.limits.window:
            self._root.children.clear()
        for node in nodes:
            node.names = []

    def _detach(self, event: Detach) -> tuple[CloudEffect, ...]:
        if event.stream != self._stream or self.state in {CloudState.DETACHED, CloudState.KEPT}:
            return ()  # a fenced stream, or one that we have ended ourselves
        self.state = cloud_leads_to(self.state, CloudKind.DETACH)
        return () if self.state is CloudState.CLOSED else (StartLease(),)

    def _close(self, kind: CloudKind) -> tuple[CloudEffect, ...]:
        was = self.state
        self.state = cloud_leads_to(was, kind)
        self._names.clear()
        self._root.children.clear()
        return () if was is CloudState.CLOSED else (Release(),)

    def _from_edge(self, event: FromEdge) -> tuple[CloudEffect, ...]:
        if event.stream != self._stream:
            return ()  # from a stream that was fenced while this was under way
        match event.message:
            case Close():
                return self._close(CloudKind.CLOSE)
            case Proposal():
                return self._propose(event.message)
            case _:
                assert_never(event.message)

    def _propose(self, proposal: Proposal) -> tuple[CloudEffect, ...]:
        self.state = cloud_leads_to(self.state, CloudKind.PROPOSAL)
        if self.state is CloudState.CLOSED:
            return ()
        distances = self._checked_distances(proposal)
        self._names.acknowledge(self._base, proposal.base_position)
        if self._logprobs:
            for position in range(self._base, proposal.base_position):
                self._logprobs.pop(Position(position), None)
            self._bare = max(self._bare, proposal.base_position)
        self._base = proposal.base_position
        self._counts.drafted += len(proposal.tokens)
        for token, distance in zip(proposal.tokens, distances, strict=True):
            self._name(token, distance)
        self._idle = proposal.idle
        return (WorkReady(),)

    def _checked_distances(self, proposal: Proposal) -> tuple[int, ...]:
        """Return the distance from each node to its parent, once the proposal is known to keep the rules."""
        base = proposal.base_position
        if not self._base <= base <= self.length:
            raise RemoteProtocolError(
                f"proposal.base_position: got {base}, expected {self._base} (the last one) to {self.length} (the log)"
            )
        for token in proposal.tokens:
            if not 0 <= token < self._vocabulary_size:
                raise RemoteProtocolError(
                    f"proposal.tokens: got {token}, expected an id below {self._vocabulary_size}"
                )
        missing = len(proposal.tokens) - len(proposal.parents)
        distances = (*proposal.parents, *(1 for _ in range(missing)))
        for name, distance in enumerate(distances, start=self._names.next):
            if not 0 <= distance < name:
                raise RemoteProtocolError(
                    f"proposal.parents: got distance {distance} for node {name}, expected 0 to {name - 1}"
                )
        return distances

    def _name(self, token: TokenId, distance: int) -> None:
        """Give the next name to the node `token` below its parent, wherever that stands by now."""
        parent = self._base if distance == 0 else self._names.place_of(self._names.next - distance)
        place = None if parent is None else self._hang(parent, token)
        # An edge learns from a commit that names are free, and its next message acknowledges that: without an
        # acknowledgement it has no more than a window to send. Stale nodes would be free to flood us otherwise.
        if self._names.num_since_acknowledgement == self.limits.window:
            raise RemoteProtocolError(
                f"proposal.tokens: got more than {self.limits.window} nodes, the window, since base_position last "
                "rose; wait for commits and acknowledge them"
            )
        if place is None:
            self._counts.stale += 1
        elif self._names.used == self.limits.window:
            raise RemoteProtocolError(
                f"proposal.tokens: got node {self._names.next}, but {self.limits.window} names are in flight, "
                "which is the window; wait for commits and acknowledge them"
            )
        self._names.give(place)

    def _hang(self, parent: Place, token: TokenId) -> Place | None:
        """Return where `token` after `parent` stands, or None if it contradicts the committed text."""
        if isinstance(parent, Node):
            return parent.grow(token)
        if parent < self.length:
            if self.log[parent] != token:
                return None
            self._counts.late += 1
            return Position(parent + 1)
        return self._root.grow(token) if self.finish is None else None

    def _stepped(self, event: Stepped) -> tuple[CloudEffect, ...]:
        if self.state is CloudState.CLOSED:
            return ()
        expected = len(event.tokens) if self.request.num_logprobs else 0
        if len(event.logprobs) != expected:
            raise LocalProtocolError(
                f"stepped.logprobs: got {len(event.logprobs)}, expected {expected}: one per token if asked for in Open"
            )
        begin = self.length
        for i, token in enumerate(event.tokens):
            if event.logprobs:
                self._logprobs[self.length] = event.logprobs[i]
            self._commit(token)
            self._finish_if_over()
            if self.finish is not None:
                self._names.drop(self._root.below())
                self._root.children.clear()
                break
        kind = CloudKind.STEP if self.finish is None else CloudKind.FINISH
        self.state = cloud_leads_to(self.state, kind)
        self._counts.steps += 1
        self._last_step = event
        return (CommitReady(), WorkReady()) if self.length > begin else (WorkReady(),)

    def _commit(self, token: TokenId) -> None:
        position = self.length
        if children := self._root.children:
            self._rates.judge(list(children), token)
            self._counts.judged += sum(1 for child in children.values() if child.names)
        self.log.append(token)
        self._root, dropped = self._root.advance(token)
        self._names.drop(dropped)
        if self._root.names:
            self._counts.accepted += 1
            self._accepted.add(position)
        # The edge's names of the node that was right stay until they are acknowledged.
        self._names.commit(self._root, self.length)

    def _finish_if_over(self) -> None:
        if self.length > len(self.request.prompt) and self.log[-1] in self._stop_tokens:
            self.finish = FinishReason.STOP
        elif self.length >= self._end:
            self.finish = FinishReason.LENGTH
