"""One edge that keeps the rules, two verifiers of one target, a link that does what it likes: and every rule checked.

A `World` makes one move at a time, chosen by whoever drives it: Hypothesis, or a seeded generator for long walks.
After every move the rules of paceline/session/__init__.py are compared with `SessionOracle`'s brute force.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from harness.session_oracle import SessionOracle
from harness.session_pair import SessionPair
from harness.session_rest import check_rest
from harness.toy import ToyDrafter, ToyTarget
from harness.toy_verifier import SMALL_LIMITS, Stream, UnderWay, toy_request

from paceline.drafter import Guess
from paceline.errors import FencedError, SessionLostError
from paceline.messages import Open, Proposal, Resume
from paceline.session.events import Drafted, Grown, NothingToDraft, Steer
from paceline.session.growth import GrownLeaf, Growth, GrowthRequest
from paceline.session.pace import Pace
from paceline.session.pipeline import FanOut, PipelineName, PipelineSettings
from paceline.session.rounds import HeldBack
from paceline.session.table import CloudState, EdgeState
from paceline.session.tree import Node
from paceline.tokens import Position, TokenId

_T = TypeVar("_T")

PACES = (Pace(rtt_s=0.02, step_s=0.05), Pace(rtt_s=0.2, step_s=0.03, forward_s=0.01))
"""Some guesses are in time, some are not."""


Choose = Callable[[int], int]
"""Returns a number from 0 to below its argument."""

WEIGHTS = {
    "connect": 8,
    "cut": 1,
    "notice": 1,
    "deliver_up": 8,
    "deliver_down": 8,
    "write": 8,
    "begin_step": 6,
    "end_step": 8,
    "draft_path": 3,
    "draft_ahead": 6,
    "draft_old": 1,
    "ask": 6,
    "grow": 6,
    "no_guess": 1,
    "steer": 1,
    "settle": 1,
    "expire": 1,
    "drain": 1,
}


class World:
    """Everything, and what must hold."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.seen: Counter[str] = Counter()
        self.target = ToyTarget(vocabulary_size=2 + choose(20), seed=choose(4))
        prompt, max_tokens, stops = (1, 0, 1), 1 + choose(60), choose(3) == 0
        given = self.target.run(_ids(prompt), min(choose(4), max_tokens - 1))
        request = toy_request(
            prompt,
            max_tokens=max_tokens,
            stop_tokens=(0,) if stops and 0 not in given else (),
            output=given,
            num_logprobs=choose(2),
        )
        self.race = choose(2) == 0
        self.pair = SessionPair(
            request=request,
            target=self.target,
            limits=replace(SMALL_LIMITS, max_lead=self.one_of([1, 3, 12, 1000])),
            draft_length=self.one_of([0, 1, 4, 20, 100]),
            window=self.one_of([1, 2, 5, 64, 100]),
            num_verifiers=2,
            growth=self._growth() if choose(2) else None,
            pipeline=self._pipeline() if choose(5) < 3 else None,
        )
        self._asked: list[GrowthRequest] = []
        self.expected = self.pair.expected
        self.oracles: dict[int, SessionOracle] = {}
        self.steps: list[UnderWay] = []
        self._used_when_steered = 0

    def _growth(self) -> Growth:
        return Growth(
            width=self.one_of([1, 2, 4]),
            leaves=self.one_of([1, 3]),
            floor=self.one_of([0.001, 0.1, 0.6]),
            pace=self.one_of([None, *PACES]),
        )

    def _pipeline(self) -> PipelineSettings:
        return PipelineSettings(
            name=self.one_of([name for name in PipelineName if not name.sends_trees]),
            segment=self.one_of([1, 3, 50]),
            pre_verify=self.choose(2) == 0,
            fan_out=self.one_of([1, 7, 24]),
            fan_by=self.one_of(list(FanOut)),
        )

    def one_of(self, options: list[_T]) -> _T:
        return options[self.choose(len(options))]

    def move(self) -> None:
        """Make one move that is possible now, and check everything."""
        can = self._conditions()
        possible = {name: weight for name, weight in WEIGHTS.items() if can.get(name, True)}
        pick = self.choose(sum(possible.values()))
        for name, weight in possible.items():
            pick -= weight
            if pick < 0:
                getattr(self, name)()
                break
        self.check()

    def _conditions(self) -> dict[str, bool]:
        """Return whether a move can be made, of those that cannot always be."""
        pair, goes_on = self.pair, not self.pair.edge.is_over
        stream = pair.stream
        return {
            "connect": stream is None and goes_on,
            "cut": stream is not None and goes_on,
            "drain": stream is not None,
            "deliver_up": any(each.up for each in pair.streams),
            "deliver_down": stream is not None and bool(stream.down),
            "notice": bool(self._gone()),
            "expire": any(verifier.leases for verifier in pair.verifiers),
            "write": any(each.session for each in pair.streams),
            "begin_step": bool(self._may_step()),
            "end_step": bool(self.steps),
            "draft_ahead": pair.edge.draft_request is not None,
            "ask": pair.edge.growth_request is not None,
            "grow": bool(self._asked),
        }

    # --- the link

    def connect(self) -> None:
        verifier = min(self.choose(4), 1)
        self.pair.connect(verifier=verifier)

    def cut(self) -> None:
        self.pair.cut()

    def _gone(self) -> list[Stream]:
        return [s for s in self.pair.streams if not s.edge_open and s.cloud_open]

    def notice(self) -> None:
        stream = self.one_of(self._gone())
        self.pair.verifiers[stream.verifier].notice(stream)

    def expire(self) -> None:
        verifier = next(v for v in self.pair.verifiers if v.leases)
        verifier.expire(min(verifier.leases))
        self.seen["expired"] += 1

    def drain(self) -> None:
        assert self.pair.stream is not None
        self.pair.verifiers[self.pair.stream.verifier].drain(self.pair.stream)

    def deliver_down(self) -> None:
        self.pair.deliver_down()

    def settle(self) -> None:
        """Let all that is under way arrive."""
        while self.pair.stream is not None and (self.pair.stream.up or self.pair.stream.down):
            while self.pair.stream is not None and self.pair.stream.up:
                self._deliver_up(self.pair.stream)
            while self.pair.stream is not None and self.pair.stream.down:
                self.pair.deliver_down()

    def deliver_up(self) -> None:
        self._deliver_up(self.one_of([s for s in self.pair.streams if s.up]))

    def _deliver_up(self, stream: Stream) -> None:
        verifier = self.pair.verifiers[stream.verifier]
        used_when_sent = stream.window_used[0]
        was = stream.session
        before = (was._counts.late, was._counts.stale) if was else (0, 0)
        is_attached = was is not None and was.stream == stream.number
        message = self.pair.deliver_up(stream)
        session = stream.session
        assert all(isinstance(e, SessionLostError | FencedError) for e in verifier.errors)
        if message is None or session is None or (was is not None and not is_attached):
            self.seen["fenced"] += message is not None
            return  # nobody listens, or a fenced stream: nothing may change
        if isinstance(message, Open):
            self.oracles[id(session)] = SessionOracle(session=session, base=session.length)
        elif isinstance(message, Resume):
            self.oracles[id(session)].attached(message.length)
            self.seen["resumed"] += 1
            self.seen["resumed behind"] += session.length > message.length
        elif isinstance(message, Proposal) and session.state is not CloudState.CLOSED:
            oracle = self.oracles[id(session)]
            num_late, num_stale = oracle.judge(message)
            counts = session._counts
            assert (counts.late - before[0], counts.stale - before[1]) == (num_late, num_stale)
            assert None not in oracle.names, "an edge names only what it knows to be live"
            # The comparable moment: what the edge counted when it sent this, what the verifier counts having taken it.
            assert session.window_used <= used_when_sent
            self.seen["late"] += num_late
            self.seen["stale"] += num_stale
            self.seen["tree"] += any(distance > 1 for distance in message.parents)
            self.seen["full"] += used_when_sent >= min(self.pair.edge.window, 64)
        self.oracles[id(session)].check()

    # --- the verifier

    def write(self) -> None:
        stream = self.one_of([s for s in self.pair.streams if s.session])
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

    def begin_step(self) -> None:
        stream = self.one_of(self._may_step())
        session = stream.session
        assert session is not None
        max_rows = self.one_of([0, 1, 2, 100])
        step = self.pair.verifiers[stream.verifier].begin_step(session, max_rows=max_rows)
        assert 1 <= len(step.tokens) <= max_rows + 1
        assert session.length + len(step.tokens) <= session._base + session.limits.max_lead
        self.steps.append(step)

    def end_step(self) -> None:
        step = self.one_of(self.steps)
        self.steps.remove(step)
        self._end_step(step)

    def _end_step(self, step: UnderWay) -> None:
        session = step.session
        oracle = self.oracles[id(session)]
        before, begin = oracle.live, session.length
        counts = session._counts
        were = (counts.judged, counts.accepted)
        self.pair.verifiers[0].end_step(step)
        if session.state is CloudState.CLOSED:
            return
        judged, accepted = oracle.outcome(before, begin)
        assert (counts.judged - were[0], counts.accepted - were[1]) == (judged, accepted)
        oracle.check()
        self.seen["accepted"] += accepted
        self.seen["rejected"] += judged - accepted
        self.seen["deep walk"] += len(step.tokens) > 3

    # --- the edge

    def draft_path(self) -> None:
        """Guess a path below the committed text, right or wrong as told; several of them make a tree."""
        text = list(self.pair.edge.log)
        for _ in range(1 + self.choose(20)):
            right = self.target.draw(text)
            is_right = self.choose(4) > 0
            text.append(right if is_right else TokenId((right + 1) % self.target.vocabulary_size))
        self.pair.draft(tuple(text[self.pair.edge.length :]))

    def draft_ahead(self) -> None:
        """Go on from the newest guess, as the client does."""
        wanted = self.pair.edge.draft_request
        assert wanted is not None
        accuracy = self.one_of([0.0, 0.7, 1.0])
        drafter = ToyDrafter(target=self.target, accuracy=accuracy, seed=self.choose(2))
        text = (*self.pair.edge.log, *wanted.path)
        self.pair.draft((*wanted.path, *drafter.chain(text, wanted.limit)))

    def ask(self) -> None:
        """A tree drafter begins; the text may go on before it answers."""
        wanted = self.pair.edge.growth_request
        assert wanted is not None
        assert len(set(wanted.paths)) == len(wanted.paths)
        for path in wanted.paths:
            node = self._drafted_root()
            for token in path:
                node = node.children[token]
        self._asked = [*self._asked[-2:], wanted]

    def _drafted_root(self) -> Node:
        pipeline = self.pair.edge._pipeline
        if isinstance(pipeline, HeldBack):
            return pipeline._sketch.root
        return self.pair.edge._guesses._root

    def grow(self) -> None:
        """A tree drafter answers about the text that it was asked about, which may be older."""
        asked = self._asked.pop(self.choose(len(self._asked)))
        text = self.pair.edge.log[: asked.position]
        leaves = []
        for path in asked.paths:
            right = self.target.draw([*text, *path])
            tokens = [
                TokenId((right + k) % self.target.vocabulary_size) for k in range(asked.width)
            ]
            first = self.choose(len(tokens))  # where the right one stands
            tokens[0], tokens[first] = tokens[first], tokens[0]
            chances = [0.5 + self.choose(2) * 0.4, *(0.05 for _ in tokens[1:])]
            guesses = tuple(
                Guess(token=token, chance=chance)
                for token, chance in zip(tokens, chances, strict=True)
            )
            leaves.append(GrownLeaf(path=path, guesses=guesses[: self.choose(len(guesses) + 1)]))
        self.pair.happens(Grown(position=asked.position, leaves=tuple(leaves)))
        self.seen["grown"] += 1

    def draft_old(self) -> None:
        """A drafter answers about a text that has grown meanwhile."""
        position = max(0, self.pair.edge.length - self.choose(5))
        tokens = _ids(self.choose(2) for _ in range(self.choose(6)))
        self.pair.happens(Drafted(position=Position(position), tokens=tokens))

    def no_guess(self) -> None:
        position = self.one_of([None, self.pair.edge.length, Position(0)])
        self.pair.happens(NothingToDraft(position=position))

    def steer(self) -> None:
        """Somebody decides to draft farther ahead, or less far."""
        self._used_when_steered = self.pair.edge.window_used
        draft_length, window = self.one_of([0, 1, 4, 20, 100]), self.one_of([1, 2, 5, 64, 100])
        self.pair.happens(Steer(draft_length=draft_length, window=window))
        self.seen["steered below what is in flight"] += window < self._used_when_steered

    # --- what must hold

    def check(self) -> None:
        """Compare the logs, and the edge's books with its tree."""
        edge = self.pair.edge
        assert edge.state is not EdgeState.FAILED, self.pair.ending
        assert tuple(edge.output) == self.expected[: len(edge.output)]
        assert [*edge.request.output, *self.pair.delivered] == edge.output
        for verifier in self.pair.verifiers:
            for session in verifier.sessions.values():
                assert tuple(session.output) == self.expected[: len(session.output)]
        if self.pair.session is not None:
            assert edge.log == self.pair.session.log[: edge.length]
        nodes = list(edge._guesses._root.below())
        assert edge._guesses.num_live == len(nodes)
        assert edge.window_used == sum(len(node.names) for node in nodes)
        # What was sent before the window shrank cannot be unsent; nothing is added to it.
        assert edge.window_used <= min(max(edge.window, self._used_when_steered), edge._limit)
        assert all(len(node.names) <= 1 for node in nodes)
        check_rest(edge)
        if isinstance(edge._pipeline, HeldBack):
            self._check_sketch(edge._pipeline)

    def _check_sketch(self, pipeline: HeldBack) -> None:
        """What is sent is the beginning of the chain that is drafted, and nothing else."""
        sketch, edge = pipeline._sketch, self.pair.edge
        sent = tuple(node.token for node in sketch.chain[: sketch.num_sent])
        assert edge._guesses.newest_path() == sent
        assert edge._guesses.num_live == sketch.num_sent
        assert set(sketch._guessed) <= {sketch.root, *sketch.root.below()}
        self.seen[f"sent by {type(pipeline).__name__}"] += sketch.num_sent
        drafted = sum(1 for _ in sketch.root.below())
        self.seen["held back"] += drafted - sketch.num_sent

    def heal(self) -> None:
        """Over a healthy link the session ends soon, with the target's own text, and leaves nothing behind."""
        for step in self.steps:
            self._end_step(step)
        drafter = ToyDrafter(target=self.target, accuracy=0.7)
        rounds = 20 + 3 * len(self.expected)
        self.pair.finish(self.one_of([drafter, None]), race=self.choose(2) == 0, max_rounds=rounds)
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
        for oracle in self.oracles.values():
            assert oracle.session.window_used == oracle.session.num_live_nodes == 0


def _ids(tokens: Iterable[int]) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, tokens))
