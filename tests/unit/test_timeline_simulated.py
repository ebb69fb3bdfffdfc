"""Timelines of simulated worlds: what truly happened, and how near to that comes what an edge can know."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness.timelines import check_timeline, check_trace
from harness.virtual_rig import virtual_rig
from harness.virtual_time import LoopClock, run_virtually

from edge.steering import LengthPolicy
from paceline.client import GenerationResult
from paceline.client.session_trace import SessionTrace, TracedLink
from paceline.client.settings import DraftingSettings
from paceline.errors import ConfigError, LinkClosed
from paceline.messages import Close, CloseReason, Drain
from paceline.sampling.settings import SamplingSettings
from paceline.timeline.building import timeline_of
from paceline.timeline.facts import Downward, StreamChange, Upward, disguised
from paceline.timeline.value import Lane, Timeline
from paceline.timeline.writing import read_recording
from paceline.tokens import TokenId
from simulator.notation import parse_network
from simulator.timeline.command import session
from simulator.timeline.from_log import facts_of_log
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.events import EventLog
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import Script, World, WorldSettings, run

TOKENS = 40
TRACED = 77
"""Number of the request that a test asks by itself."""


def settings(
    network: str, *, seed: int = 1, num_edges: int = 1, at_s: float = 0.0, **edge: object
) -> WorldSettings:
    return WorldSettings(
        edges=tuple(
            EdgeSettings(
                requests=(
                    Request(
                        prompt=(TokenId(5 + index), TokenId(6)),
                        max_tokens=TOKENS,
                        seed=seed + index,
                        at_s=at_s,
                    ),
                ),
                **edge,  # type: ignore[arg-type]
            )
            for index in range(num_edges)
        ),
        verifiers=(VerifierSettings(), VerifierSettings()),
        network=parse_network(network),
        seed=seed,
    )


def ran(world: WorldSettings, *, script: Script | None = None) -> tuple[EventLog, list[int]]:
    """Return the log, and the length of each edge's answer."""
    log = EventLog()
    result = run(world, script=script, log=log)
    return log, [len(asked[-1].pieces) for asked in result.asked]


@pytest.mark.parametrize("acceptance", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("network", ["rtt=0ms", "rtt=80ms", "rtt=60ms,jitter=10ms,loss=2%"])
def test_a_simulated_session_has_a_timeline_that_adds_up(network: str, acceptance: float) -> None:
    log, (length,) = ran(settings(network, draft=DraftSettings(acceptance=acceptance)))
    timeline = timeline_of(facts_of_log(log), title="simulated")
    check_timeline(timeline, num_tokens=length)
    check_trace(timeline)
    assert length == TOKENS
    assert timeline.notes == ()
    lanes = {span.lane for span in timeline.spans}
    assert lanes >= {Lane.DRAFT, Lane.UPLINK, Lane.VERIFY, Lane.DOWNLINK}
    assert (timeline.figures.accepted > 0) == (acceptance > 0.0)
    assert all(not commit.rejected for commit in timeline.commits) == (acceptance == 1.0)
    rejected = [p for commit in timeline.commits for p in commit.rejected]
    assert len(rejected) == timeline.figures.judged - timeline.figures.accepted


def test_the_way_up_and_the_way_down_take_what_the_link_takes() -> None:
    log, _ = ran(settings("up.delay=30ms,down.delay=50ms"))
    timeline = timeline_of(facts_of_log(log), title="simulated")
    for lane, way_s in ((Lane.UPLINK, 0.030), (Lane.DOWNLINK, 0.050)):
        times = [span.end_s - span.begin_s for span in timeline.spans if span.lane is lane]
        assert times == pytest.approx([way_s] * len(times))
    assert timeline.figures.rtt_s == pytest.approx(0.080)


def test_sessions_that_share_a_verifier_have_timelines_of_their_own() -> None:
    world = settings("rtt=40ms", num_edges=3, length_policy=LengthPolicy.CLOSED_FORM)
    log, lengths = ran(world)
    for index, length in enumerate(lengths):
        timeline = timeline_of(facts_of_log(log, edge=f"edge{index}"), title="simulated")
        check_timeline(timeline, num_tokens=length)
        steps = [span for span in timeline.spans if span.lane is Lane.VERIFY]
        assert len(steps) >= timeline.figures.steps > 0


def test_a_cut_shows_and_nothing_is_committed_twice() -> None:
    async def cut(world: World) -> None:
        await world.edges[0].has(10)
        world.path(0, 0).cut()
        await asyncio.sleep(0.3)
        world.path(0, 0).heal()

    log, (length,) = ran(settings("rtt=80ms"), script=cut)
    facts = facts_of_log(log)
    timeline = timeline_of(facts, title="simulated")
    check_timeline(timeline, num_tokens=length)
    check_trace(timeline)
    assert [happening.name for happening in timeline.happenings] == ["connected again"]
    hidden = timeline_of(disguised(facts), title="simulated")
    assert (hidden.spans, hidden.flows) == (
        tuple(_without_ids(timeline)),
        timeline.flows,
    )


def test_drafts_that_were_lost_with_their_verifier_wait_for_no_step_of_the_next_one() -> None:
    async def kill(world: World) -> None:
        await world.edges[0].has(10)
        world.verifiers[0].kill()

    drafting = DraftingSettings(draft_length=12, tokens_per_message=2)
    log, (length,) = ran(settings("rtt=80ms", drafting=drafting), script=kill)
    facts = facts_of_log(log)
    timeline = timeline_of(facts, title="simulated")
    check_timeline(timeline, num_tokens=length)
    check_trace(timeline)
    (again,) = timeline.happenings
    for flow in timeline.flows:
        source, target = timeline.spans[flow.source], timeline.spans[flow.target]
        if (source.lane, target.lane) == (Lane.UPLINK, Lane.VERIFY):
            assert (source.begin_s < again.at_s) == (target.begin_s < again.at_s)


def _without_ids(timeline: Timeline) -> list[object]:
    return [
        replace(span, details=tuple(pair for pair in span.details if pair[0] != "token_ids"))
        for span in timeline.spans
    ]


def test_an_answer_that_a_stop_string_ends_has_only_its_own_tokens() -> None:
    trace, prompt = SessionTrace(), (TokenId(9), TokenId(4))
    answers: list[GenerationResult] = []

    async def ask(world: World) -> None:
        edge, target = world.edges[0], world.settings.target
        await asyncio.sleep(1.0)
        edge._note("asks", request=TRACED)
        assert edge._running is not None
        async with edge._running.generate(
            prompt_ids=prompt,
            max_tokens=TOKENS,
            sampling=SamplingSettings(temperature=0.0, seed=3),
            stop=(target.tokenizer.decode(target.run(prompt, TOKENS))[20:22],),
            trace=trace,
        ) as generation:
            answers.append(await generation.complete())
        edge._note("answered")

    log, _ = ran(settings("rtt=80ms", at_s=500.0), script=ask)
    (statistics,) = (answer.statistics for answer in answers)
    for facts in (trace.facts(), facts_of_log(log, request=TRACED)):
        timeline = timeline_of(facts, title="stopped")
        check_timeline(timeline, num_tokens=statistics.committed)
        figures = timeline.figures
        assert (figures.judged, figures.steps) == (statistics.judged, statistics.steps)
        assert figures.duration_s == pytest.approx(statistics.duration_s, abs=1e-6)


def test_a_log_without_the_session_says_so() -> None:
    log, _ = ran(settings("rtt=10ms"))
    with pytest.raises(ConfigError, match="edge3 never asked"):
        facts_of_log(log, edge="edge3")
    with pytest.raises(ConfigError, match="request 5"):
        facts_of_log(log, request=5)


def both(network: str) -> tuple[Timeline, Timeline]:
    """Return the timeline of a session as its edge knows it, and as it was."""
    trace = SessionTrace()

    async def ask(world: World) -> None:
        await asyncio.sleep(1.0)
        (edge,) = world.edges
        assert edge._running is not None
        edge._note("asks", request=TRACED)
        async with edge._running.generate(
            prompt_ids=(TokenId(9), TokenId(4)),
            max_tokens=TOKENS,
            sampling=SamplingSettings(temperature=0.0, seed=3),
            trace=trace,
        ) as generation:
            await generation.complete()
        edge._note("answered")

    drafting = DraftingSettings(draft_length=6, tokens_per_message=2)
    log, _ = ran(settings(network, at_s=500.0, drafting=drafting), script=ask)
    known = timeline_of(disguised(trace.facts()), title="known")
    true = timeline_of(facts_of_log(log, request=TRACED), title="true")
    for timeline in (known, true):
        check_timeline(timeline, num_tokens=TOKENS)
    return known, true


def test_over_an_even_link_an_edge_infers_what_truly_happened() -> None:
    known, true = both("rtt=80ms")
    assert _shown(known) == _shown(true)
    steps = [_times(timeline, Lane.VERIFY) for timeline in (known, true)]
    for inferred, happened in zip(*steps, strict=True):
        assert inferred == pytest.approx(happened, abs=1e-6)
    ups = [_times(timeline, Lane.UPLINK) for timeline in (known, true)]
    assert ups[0] == [pytest.approx(times, abs=1e-6) for times in ups[1]]


def test_over_an_uneven_link_the_inference_is_wrong_by_half_the_difference_and_still_adds_up() -> (
    None
):
    known, true = both("up.delay=60ms,down.delay=20ms")
    shifts = [
        happened[1] - inferred[1]
        for inferred, happened in zip(
            _times(known, Lane.VERIFY), _times(true, Lane.VERIFY), strict=True
        )
    ]
    assert shifts == pytest.approx([0.020] * len(shifts), abs=1e-6)


def _times(timeline: Timeline, lane: Lane) -> list[tuple[float, float]]:
    return [(span.begin_s, span.end_s) for span in timeline.spans if span.lane is lane]


def _shown(timeline: Timeline) -> list[object]:
    """What became text when, to the microsecond; without ids."""
    return [replace(commit, at_s=round(commit.at_s, 6), tokens=()) for commit in timeline.commits]


def test_a_traced_link_is_as_the_link_and_tells_once_that_it_is_over() -> None:
    trace = SessionTrace()

    async def main() -> None:
        async with virtual_rig() as (link, peer):
            traced = TracedLink(link, trace=trace, clock=LoopClock())
            await traced.send(Close(reason=CloseReason.DONE))
            assert await peer.receive() == Close(reason=CloseReason.DONE)
            await peer.send(Drain(deadline_ms=5))
            assert await traced.receive() == Drain(deadline_ms=5)
            assert traced.payload_bytes_up == link.payload_bytes_up > 0
            assert traced.payload_bytes_down == link.payload_bytes_down > 0
            await traced.finish()
            assert await peer.receive() is None
            await traced.close()
            await traced.close()
            with pytest.raises(LinkClosed):
                await traced.receive()

    run_virtually(main())
    first, up, down, last = trace.facts().facts
    assert (first, last) == (
        StreamChange(at_s=first.at_s, is_up=True),
        StreamChange(at_s=last.at_s, is_up=False),
    )
    assert isinstance(up, Upward)
    assert isinstance(down, Downward)
    assert (up.message, down.message) == ("close", "drain")
    assert up.num_bytes > 0


def invoked(*options: str) -> str:
    result = CliRunner().invoke(session, ["--tokens", "24", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_tells_what_drafts_bring_and_says_the_same_again() -> None:
    said = invoked("--network", "lte", "--acceptance", "0.9", "--seed", "4")
    assert "simulated session over lte" in said
    assert "24 tokens" in said
    assert "plain streaming in the same world: 24 tokens" in said
    assert said == invoked("--network", "lte", "--acceptance", "0.9", "--seed", "4")
    assert said != invoked("--network", "lte", "--acceptance", "0.9", "--seed", "5")


def test_the_command_writes_the_recording_and_keeps_the_text_to_itself(tmp_path: Path) -> None:
    file = tmp_path / "session.jsonl"
    invoked("--timeline", str(file))
    facts = read_recording(file)
    assert not facts.has_tokens
    check_timeline(timeline_of(facts, title="again"), num_tokens=24)
    invoked("--timeline", str(file), "--timeline-tokens")
    assert read_recording(file).has_tokens


def test_neighbours_make_it_slower() -> None:
    def duration_ms(said: str) -> float:
        return float(said.split("24 tokens in ")[1].partition(" ms")[0])

    assert duration_ms(invoked("--neighbours", "3")) > duration_ms(invoked())
