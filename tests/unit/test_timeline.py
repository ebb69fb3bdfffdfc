"""Timelines from what an edge can know by itself, written by hand."""

import json
import random
from dataclasses import replace

import pytest
from harness.timelines import check_timeline, check_trace

from paceline.client.session_trace import SessionTrace
from paceline.errors import ConfigError
from paceline.messages import Commit, Drain, FinishReason, Open, Proposal
from paceline.sampling.settings import SamplingSettings
from paceline.timeline.building import timeline_of
from paceline.timeline.facts import Downward, Forward, Upward, disguised
from paceline.timeline.recording import lines, parse
from paceline.timeline.summing import INFERRED, UNKNOWN_RTT
from paceline.timeline.value import Fate, Lane, Timeline
from paceline.tokens import Position, TokenId

PROMPT = 10
RTT_S = 0.080


def ids(*tokens: int) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, tokens))


def proposal(base: int, *tokens: int, parents: tuple[int, ...] = (0,)) -> Proposal:
    return Proposal(base_position=Position(base), tokens=ids(*tokens), parents=parents)


def commit(
    position: int, *tokens: int, accepted: str = "", judged: int = 0, steps: int = 1
) -> Commit:
    """`accepted` has one letter for each token: d for a draft, o for the target's own."""
    flags = tuple(letter == "d" for letter in accepted)
    return Commit(
        position=Position(position),
        tokens=ids(*tokens),
        accepted=flags if any(flags) else (),
        num_judged=judged,
        num_accepted=sum(flags),
        queue_ns=2_000_000,
        verify_ns=30_000_000,
        num_rows=5,
        num_steps=steps,
    )


def traced() -> SessionTrace:
    """Two forwards, three proposals, three commits; the second draft of the second proposal is wrong."""
    trace = SessionTrace()
    trace.began(at_s=100.0, prompt_length=PROMPT)
    trace.stream(at_s=100.001, is_up=True)
    opening = Open(
        tokenizer_fingerprint=bytes(32),
        prompt=ids(*range(PROMPT)),
        sampling=SamplingSettings(),
        max_tokens=8,
    )
    trace.sent(opening, at_s=100.002, num_bytes=60)
    trace.drafted(at_s=100.010, end_s=100.014, position=10, num_tokens=2)
    trace.sent(proposal(10, 50, 51), at_s=100.014, num_bytes=9)
    trace.drafted(at_s=100.014, end_s=100.018, position=12, num_tokens=2)
    trace.sent(proposal(10, 52, 99, parents=(1,)), at_s=100.018, num_bytes=9)
    trace.round_trip(at_s=100.090, rtt_s=RTT_S)
    trace.received(commit(10, 50, accepted="d", judged=1), at_s=100.130)
    trace.received(commit(11, 51, 52, 53, accepted="ddo", judged=3), at_s=100.165)
    trace.sent(proposal(14, 54), at_s=100.170, num_bytes=6)
    trace.received(commit(14, 54, 55), at_s=100.200)
    return trace


def built(trace: SessionTrace) -> Timeline:
    return timeline_of(trace.facts(), title="by hand")


def spans(timeline: Timeline, lane: Lane) -> list[tuple[str, float, float]]:
    """In milliseconds."""
    return [
        (span.name, round(span.begin_s * 1000, 3), round(span.end_s * 1000, 3))
        for span in timeline.spans
        if span.lane is lane
    ]


def test_lanes_have_what_the_edge_knows_and_halves_of_the_round_trip() -> None:
    timeline = built(traced())
    check_timeline(timeline, num_tokens=6)
    assert timeline.notes == (INFERRED,)
    assert spans(timeline, Lane.DRAFT) == [("draft 2", 10, 14), ("draft 2", 14, 18)]
    assert spans(timeline, Lane.UPLINK) == [
        ("open", 2, 42),
        ("propose 2", 14, 54),
        ("propose 2", 18, 58),
        ("propose 1", 170, 210),
    ]
    # Each step ends when its commit leaves, half a round trip before it comes.
    assert spans(timeline, Lane.VERIFY) == [
        ("prefill", 60, 90),
        ("verify", 95, 125),
        ("verify", 130, 160),
    ]
    assert ("session waits", 93, 95) in spans(timeline, Lane.QUEUE)
    assert ("drafts wait", 54, 60) in spans(timeline, Lane.QUEUE)
    assert spans(timeline, Lane.DOWNLINK) == [
        ("commit 1", 90, 130),
        ("commit 3", 125, 165),
        ("commit 2", 160, 200),
    ]


def test_commits_tell_accepted_own_and_rejected_tokens() -> None:
    timeline = built(traced())
    assert [(c.position, c.accepted, c.rejected) for c in timeline.commits] == [
        (0, (True,), ()),
        (1, (True, True, False), (3,)),
        (4, (False, False), ()),
    ]
    fates = [span.fate for span in timeline.spans if span.lane is Lane.UPLINK]
    assert fates == [Fate.NONE, Fate.ACCEPTED, Fate.PARTLY, Fate.LATE]
    figures = timeline.figures
    assert (figures.tokens, figures.accepted, figures.judged, figures.drafted) == (6, 3, 4, 5)
    assert figures.acceptance_probability == 0.75
    assert figures.waste == pytest.approx(0.4)
    assert figures.rtt_s == RTT_S
    assert figures.tokens_per_s == pytest.approx(6 / 0.2)


def test_arrows_go_from_the_draft_to_its_proposal_its_step_and_its_commit() -> None:
    timeline = built(traced())
    names = [
        (
            timeline.spans[flow.source].lane,
            timeline.spans[flow.target].lane,
            flow.source,
            flow.target,
        )
        for flow in timeline.flows
    ]
    by_lane = {(source, target) for source, target, _, _ in names}
    assert by_lane == {
        (Lane.DRAFT, Lane.UPLINK),
        (Lane.UPLINK, Lane.VERIFY),
        (Lane.VERIFY, Lane.DOWNLINK),
    }
    # Of the first proposal one token was compared after the first step, the other one after the second.
    first = next(i for i, span in enumerate(timeline.spans) if span.name == "propose 2")
    steps = [timeline.spans[t].begin_s for _, _, s, t in names if s == first]
    assert steps == pytest.approx([0.060, 0.095])
    check_trace(timeline)


def test_a_commit_that_was_held_up_moves_its_step_back_not_over_the_next_one() -> None:
    trace = traced()
    late = replace(commit(16, 60), verify_ns=30_000_000)
    trace.received(late, at_s=100.400)
    trace.received(commit(17, 61), at_s=100.401)
    timeline = built(trace)
    check_timeline(timeline, num_tokens=8)
    assert spans(timeline, Lane.VERIFY)[-2:] == [("verify", 301, 331), ("verify", 331, 361)]
    assert spans(timeline, Lane.DOWNLINK)[-2:] == [("commit 1", 331, 400), ("commit 1", 361, 401)]


def test_a_stream_that_is_resumed_repeats_nothing() -> None:
    trace = traced()
    trace.stream(at_s=100.210, is_up=False)
    trace.stream(at_s=100.300, is_up=True)
    trace.sent(proposal(16, 56, 57), at_s=100.301, num_bytes=8)  # nodes are numbered anew
    trace.received(commit(14, 54, 55, steps=0), at_s=100.390)
    trace.received(commit(15, 55, 56, accepted="od", judged=1), at_s=100.420)
    timeline = built(trace)
    check_timeline(timeline, num_tokens=7)
    assert [happening.name for happening in timeline.happenings] == [
        "stream lost",
        "connected again",
    ]
    assert len(spans(timeline, Lane.VERIFY)) == 4, "what is sent again was not computed again"
    assert [commit.position for commit in timeline.commits] == [0, 1, 4, 6]


def test_without_a_measured_round_trip_it_says_so() -> None:
    trace = SessionTrace()
    trace.began(at_s=0.0, prompt_length=PROMPT)
    trace.received(commit(10, 50), at_s=0.1)
    trace.received(Drain(deadline_ms=5), at_s=0.2)
    timeline = built(trace)
    assert timeline.notes == (UNKNOWN_RTT,)
    assert spans(timeline, Lane.DOWNLINK) == [("commit 1", 100, 100), ("drain", 200, 200)]
    check_trace(timeline)


def test_nothing_at_all_is_a_timeline_too() -> None:
    timeline = built(SessionTrace())
    check_timeline(timeline, num_tokens=0)
    check_trace(timeline)


def test_a_full_trace_keeps_its_beginning_and_says_what_is_missing() -> None:
    trace = SessionTrace(most=40)
    trace.began(at_s=0.0, prompt_length=PROMPT)
    for index in range(30):
        trace.received(commit(PROMPT + index, 50), at_s=0.1 * index)
    trace.drafted(at_s=4.0, end_s=5.0, position=50, num_tokens=1)
    facts = trace.facts()
    assert len(facts.facts) == 20
    assert facts.num_left_out == 11
    timeline = timeline_of(facts, title="")
    check_timeline(timeline, num_tokens=20)
    assert "last 11 facts are missing" in timeline.notes[-1]


def test_disguised_facts_make_the_same_timeline_and_do_not_tell_the_text() -> None:
    facts = traced().facts()
    hidden = disguised(facts)
    assert not hidden.has_tokens
    assert timeline_of(hidden, title="t").flows == timeline_of(facts, title="t").flows
    assert timeline_of(hidden, title="t").figures == timeline_of(facts, title="t").figures
    shown = [replace(one, tokens=()) for one in timeline_of(facts, title="t").commits]
    assert list(timeline_of(hidden, title="t").commits) == shown
    # Another text with the same agreements looks the same.
    other = dict(zip(range(200), random.Random(3).sample(range(200), 200), strict=True))

    def renamed(fact: object) -> object:
        if isinstance(fact, Upward | Downward):
            return replace(fact, tokens=tuple(other[token] for token in fact.tokens))
        return fact

    another = replace(facts, facts=tuple(map(renamed, facts.facts)))  # type: ignore[arg-type]
    assert another != facts
    assert disguised(another) == hidden
    assert disguised(hidden) is hidden
    assert "token_ids" not in json.dumps(check_trace(timeline_of(hidden, title="t")))
    assert "token_ids" in json.dumps(check_trace(timeline_of(facts, title="t")))


@pytest.mark.parametrize("hide", [True, False])
def test_a_recording_reads_back_as_the_same_facts(hide: bool) -> None:
    facts = traced().facts()
    facts = disguised(facts) if hide else facts
    written = list(lines(facts))
    assert all(isinstance(json.loads(line), dict) for line in written)
    again = parse(written, where="test")
    assert list(lines(again)) == written
    assert timeline_of(again, title="t").figures.tokens == 6
    before, after = timeline_of(facts, title="t"), timeline_of(again, title="t")
    for lane in Lane:
        assert sorted(spans(after, lane)) == sorted(spans(before, lane))
    assert [(c.accepted, c.rejected, c.tokens) for c in after.commits] == [
        (c.accepted, c.rejected, c.tokens) for c in before.commits
    ]
    assert len(after.flows) == len(before.flows)


HEAD = (
    '{"format": "paceline-timeline/1", "prompt_length": 1, "has_tokens": true, "num_left_out": 0}'
)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "expected an object"),
        ("{", "not JSON"),
        ('{"fact": "Guess", "at_s": 1}', "expected one of Forward"),
        ('{"fact": "Forward", "at_s": 1}', "end_s"),
        ('{"fact": "RoundTrip", "at_s": "1", "rtt_s": 1}', "at_s"),
        ('{"fact": "RoundTrip", "at_s": 1, "rtt_s": NaN}', "rtt_s"),
        ('{"fact": "RoundTrip", "at_s": 1, "rtt_s": 1, "more": 1}', "more"),
        (
            '{"fact": "Upward", "at_s": 1, "message": "proposal", "tokens": [1], "parents": [2]}',
            "parents",
        ),
        (
            '{"fact": "Upward", "at_s": 1, "message": "proposal", "tokens": [], "parents": [0]}',
            "parents",
        ),
        (
            '{"fact": "Upward", "at_s": 1, "message": "proposal", "tokens": [1], "parents": [-1]}',
            "parents",
        ),
        ('{"fact": "Upward", "at_s": 1, "message": "proposal", "tokens": [true]}', "tokens"),
        (
            '{"fact": "Forward", "at_s": 1, "end_s": 0.5, "position": 1, "num_tokens": 1}',
            "end_s: got 0.5",
        ),
        ('{"fact": "StreamChange", "at_s": -1, "is_up": true}', "at_s: got -1"),
        (
            '{"fact": "Downward", "at_s": 1, "message": "commit", "tokens": [1], "accepted": [true, true]}',
            "accepted",
        ),
    ],
)
def test_a_recording_that_is_none_is_refused_with_its_line(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        parse([HEAD, line], where="r.jsonl")
    assert "r.jsonl:2" in str(raised.value)


@pytest.mark.parametrize(
    "head", ["", "{}", '{"format": "paceline-timeline/1"}', HEAD.replace("1,", '"x",', 1)]
)
def test_a_recording_without_its_head_is_refused(head: str) -> None:
    with pytest.raises(ConfigError, match=r"r\.jsonl:1"):
        parse([head], where="r.jsonl")


def test_the_end_of_a_text_is_noted() -> None:
    trace = traced()
    trace.received(replace(commit(16, 60), finish=FinishReason.STOP), at_s=100.4)
    facts = trace.facts().facts
    assert [fact.is_end for fact in facts if isinstance(fact, Downward)] == [False] * 3 + [True]
    assert [fact.num_tokens for fact in facts if isinstance(fact, Forward)] == [2, 2]
    assert spans(built(trace), Lane.DOWNLINK)[-1][0] == "commit 1, end"
