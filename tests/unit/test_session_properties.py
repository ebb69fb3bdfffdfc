"""Every interleaving of proposals, commits, delays, cuts and resumes keeps the rules of paceline/session/__init__.py."""

import pytest
from harness.session_oracle import SessionOracle
from harness.session_pair import SMALL_LIMITS, SessionPair, Stream, UnderWay, toy_request
from harness.toy import ToyDrafter, ToyTarget
from hypothesis import HealthCheck, assume, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from paceline.errors import FencedError, SessionLostError
from paceline.messages import Open, Proposal, Resume
from paceline.session import CloudSession
from paceline.session.events import Drafted, NothingToDraft
from paceline.session.table import CloudState, EdgeState
from paceline.session.tree import Node


class SessionMachine(RuleBasedStateMachine):
    """One edge that keeps the rules, two verifiers of one target, and a link that does what it likes."""

    pair: SessionPair
    target: ToyTarget

    @initialize(
        vocabulary_size=st.integers(2, 24),
        max_tokens=st.integers(1, 40),
        stops=st.booleans(),
        window=st.sampled_from([1, 2, 3, 8, 64, 100]),
        draft_length=st.sampled_from([0, 1, 4, 20, 100]),
        max_lead=st.sampled_from([1, 3, 12, 1000]),
        num_logprobs=st.sampled_from([0, 2]),
        given=st.integers(0, 3),
        race=st.booleans(),
        seed=st.integers(0, 3),
    )
    def begin(
        self,
        vocabulary_size: int,
        max_tokens: int,
        stops: bool,
        window: int,
        draft_length: int,
        max_lead: int,
        num_logprobs: int,
        given: int,
        race: bool,
        seed: int,
    ) -> None:
        self.target = ToyTarget(vocabulary_size=vocabulary_size, seed=seed)
        limits = SMALL_LIMITS
        prompt = (1, 0, 1)
        request = toy_request(
            prompt,
            max_tokens=max_tokens,
            stop_tokens=(0,) if stops else (),
            output=self.target.run(prompt, min(given, max_tokens - 1)),  # type: ignore[arg-type]
            num_logprobs=num_logprobs,
        )
        assume(not stops or 0 not in request.output)
        self.race = race
        self.pair = SessionPair(
            request=request,
            target=self.target,
            limits=type(limits)(
                window=64,
                max_lead=max_lead,
                context_length=limits.context_length,
                max_tokens=limits.max_tokens,
                lease_ms=1,
            ),
            draft_length=draft_length,
            window=window,
            num_verifiers=2,
        )
        self.expected = self.pair.expected
        self.oracles: dict[int, SessionOracle] = {}
        self.steps: list[UnderWay] = []

    def oracle(self, session: CloudSession) -> SessionOracle:
        return self.oracles[id(session)]

    # --- the link

    @precondition(lambda self: self.pair.stream is None and not self.pair.edge.is_over)
    @rule(verifier=st.integers(0, 1))
    def connect(self, verifier: int) -> None:
        self.pair.connect(verifier=verifier)

    @precondition(lambda self: self.pair.stream is not None and not self.pair.edge.is_over)
    @rule()
    def cut(self) -> None:
        self.pair.cut()

    @precondition(lambda self: any(stream.up for stream in self.pair.streams))
    @rule(data=st.data())
    def deliver_up(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from([s for s in self.pair.streams if s.up]))
        self._deliver_up(stream)

    def _deliver_up(self, stream: Stream) -> None:
        verifier = self.pair.verifiers[stream.verifier]
        used_when_sent = stream.window_used[0]
        was = stream.session
        before = (was._counts.late, was._counts.stale) if was else (0, 0)
        is_attached = was is not None and was.stream == stream.number
        message = self.pair.deliver_up(stream)
        session = stream.session
        assert all(isinstance(error, SessionLostError | FencedError) for error in verifier.errors)
        if message is None or session is None or (was is not None and not is_attached):
            self._note(fenced=message is not None)
            return  # nobody listens, or a fenced stream: nothing may change
        if isinstance(message, Open):
            self.oracles[id(session)] = SessionOracle(session=session, base=session.length)
        elif isinstance(message, Resume):
            self.oracle(session).attached(message.length)
            self._note(resumed=True, resumed_behind=session.length - message.length)
        elif isinstance(message, Proposal) and session.state is not CloudState.CLOSED:
            num_late, num_stale = self.oracle(session).judge(message)
            counts = session._counts
            assert (counts.late - before[0], counts.stale - before[1]) == (num_late, num_stale)
            assert None not in self.oracle(session).names, (
                "an edge names only what it knows to be live"
            )
            assert session.window_used <= used_when_sent
            self._note(late=num_late, stale=num_stale, tree=any(d > 1 for d in message.parents))
        self.oracle(session).check()

    @precondition(lambda self: self.pair.stream is not None and self.pair.stream.down)
    @rule()
    def deliver_down(self) -> None:
        self.pair.deliver_down()

    @precondition(lambda self: any(not s.edge_open and s.cloud_open for s in self.pair.streams))
    @rule(data=st.data())
    def verifier_notices(self, data: st.DataObject) -> None:
        gone = [s for s in self.pair.streams if not s.edge_open and s.cloud_open]
        stream = data.draw(st.sampled_from(gone))
        self.pair.verifiers[stream.verifier].notice(stream)

    @precondition(lambda self: any(verifier.leases for verifier in self.pair.verifiers))
    @rule()
    def lease_ends(self) -> None:
        verifier = next(v for v in self.pair.verifiers if v.leases)
        verifier.expire(min(verifier.leases))

    @precondition(lambda self: self.pair.stream is not None)
    @rule()
    def drain(self) -> None:
        assert self.pair.stream is not None
        self.pair.verifiers[self.pair.stream.verifier].drain(self.pair.stream)

    # --- the verifier

    @precondition(lambda self: any(s.session for s in self.pair.streams))
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from([s for s in self.pair.streams if s.session]))
        self.pair.verifiers[stream.verifier].write(stream)

    def _may_step(self) -> list[Stream]:
        busy = [step.session for step in self.steps]
        return [
            stream
            for stream in self.pair.streams
            if stream.session is not None
            and stream.session.stream == stream.number
            and stream.session.may_step
            and stream.session not in busy
            and (self.race or stream.session.has_drafts or stream.session.edge_is_idle)
        ]

    @precondition(lambda self: self._may_step())
    @rule(data=st.data(), max_rows=st.sampled_from([0, 1, 2, 100]))
    def begin_step(self, data: st.DataObject, max_rows: int) -> None:
        stream = data.draw(st.sampled_from(self._may_step()))
        session = stream.session
        assert session is not None
        step = self.pair.verifiers[stream.verifier].begin_step(session, max_rows=max_rows)
        assert 1 <= len(step.tokens) <= max_rows + 1
        assert session.length + len(step.tokens) <= session._base + session.limits.max_lead
        self.steps.append(step)

    @precondition(lambda self: self.steps)
    @rule(data=st.data())
    def end_step(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(self.steps))
        self.steps.remove(step)
        session = step.session
        oracle = self.oracle(session)
        before, begin = oracle.live, session.length
        counts = session._counts
        were = (counts.judged, counts.accepted)
        self.pair.verifiers[0].end_step(step)
        if session.state is not CloudState.CLOSED:
            judged, accepted = oracle.outcome(before, begin)
            assert (counts.judged - were[0], counts.accepted - were[1]) == (judged, accepted)
            oracle.check()
            self._note(accepted=accepted, rejected=judged - accepted)

    def _note(self, **seen: int) -> None:
        for name, count in seen.items():
            if count:
                event(name)

    # --- the edge

    @rule(pattern=st.lists(st.sampled_from([True, True, True, False]), min_size=1, max_size=30))
    def draft_path(self, pattern: list[bool]) -> None:
        """Guess a path below the committed text, right or wrong as told; several of them make a tree."""
        text = list(self.pair.edge.log)
        for is_right in pattern:
            token = self.target.draw(text)
            text.append(token if is_right else (token + 1) % self.target.vocabulary_size)  # type: ignore[arg-type]
        self.pair.draft(tuple(text[self.pair.edge.length :]))

    @precondition(lambda self: self.pair.edge.draft_request is not None)
    @rule(accuracy=st.sampled_from([0.0, 0.7, 1.0]), seed=st.integers(0, 1))
    def draft_ahead(self, accuracy: float, seed: int) -> None:
        """Go on from the newest guess, as the client does."""
        wanted = self.pair.edge.draft_request
        assert wanted is not None
        drafter = ToyDrafter(target=self.target, accuracy=accuracy, seed=seed)
        text = (*self.pair.edge.log, *wanted.path)
        self.pair.draft((*wanted.path, *drafter.chain(text, wanted.limit)))

    @rule(back=st.integers(0, 5), tokens=st.lists(st.integers(0, 1), max_size=6))
    def draft_about_older_text(self, back: int, tokens: list[int]) -> None:
        position = max(0, self.pair.edge.length - back)
        self.pair.happens(Drafted(position=position, tokens=tuple(tokens)))  # type: ignore[arg-type]

    @rule(back=st.sampled_from([None, 0, 2]))
    def no_guess(self, back: int | None) -> None:
        position = None if back is None else self.pair.edge.length - back
        self.pair.happens(NothingToDraft(position=position))  # type: ignore[arg-type]

    # --- what holds at every moment

    @invariant()
    def logs_agree(self) -> None:
        edge = self.pair.edge
        assert tuple(edge.output) == self.expected[: len(edge.output)]
        assert [*edge.request.output, *self.pair.delivered] == edge.output
        assert edge.state is not EdgeState.FAILED
        for verifier in self.pair.verifiers:
            for session in verifier.sessions.values():
                assert tuple(session.output) == self.expected[: len(session.output)]
        if self.pair.session is not None:
            assert edge.log == self.pair.session.log[: edge.length]

    @invariant()
    def edge_keeps_its_books(self) -> None:
        edge = self.pair.edge
        nodes: list[Node] = list(edge._root.below())
        assert edge._outbox.num_live == len(nodes)
        assert edge.window_used == sum(len(node.names) for node in nodes)
        assert edge.window_used <= min(edge.window, edge._limit)
        assert all(len(node.names) <= 1 for node in nodes)

    def teardown(self) -> None:
        """Over a healed link the session ends, and leaves nothing behind."""
        if not hasattr(self, "pair"):
            return
        while self.steps:
            step = self.steps.pop()
            self.pair.verifiers[0].end_step(step)
        drafter = ToyDrafter(target=self.target, accuracy=0.7)
        rounds = 20 + 3 * len(self.expected)
        self.pair.finish(drafter if self.race else None, race=self.race, max_rounds=rounds)
        assert self.pair.edge.state is EdgeState.DONE
        assert tuple(self.pair.edge.output) == self.expected
        for stream in self.pair.streams:
            verifier = self.pair.verifiers[stream.verifier]
            while stream.up:
                verifier.receive(stream)
            verifier.notice(stream)
        for verifier in self.pair.verifiers:
            for session_id in list(verifier.leases):
                verifier.expire(session_id)
            assert not verifier.sessions
            assert not verifier.leases


@pytest.mark.slow
def test_every_interleaving_keeps_the_rules() -> None:
    profile = settings()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        SessionMachine,
        settings=settings(
            profile,
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
        ),
    )
