"""Fault schedules: the same everywhere, clean on the programs as they are, and sharp enough to find what is planted."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from cloud.sessions import Registry
from cloud.stepper import Stepper
from cloud.workload import Workload
from paceline.client.backoff import Attempt, Reconnection
from paceline.client.outbox import Outbox
from paceline.messages import Open
from paceline.mqtt.backoff import Backoff
from paceline.mqtt.outbox import Outbox as ControlOutbox
from paceline.session import CloudSession, EdgeSession
from paceline.session.events import Attach, LinkUp, Send, StartLease
from paceline.session.growth import Frontier
from paceline.session.tree import Node
from paceline.tokens import Position, TokenId
from simulator.simulate import simulate
from simulator.virtual.campaign import campaign, explained, limited, quiet
from simulator.virtual.coverage import Coverage
from simulator.virtual.events import EventLog
from simulator.virtual.faults import CONTROL, MIN_FAULTS, NUM_TOKENS, FaultKind, Schedule, drawn
from simulator.virtual.shrink import shrunk
from simulator.virtual.trial import tried

MOST = 1000
"""Schedules within which every planted bug must be found."""

Plant = Callable[[pytest.MonkeyPatch], None]


def test_a_schedule_is_what_its_seed_says() -> None:
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    kinds = set()
    for seed in range(200):
        schedule = drawn(seed)
        assert len(schedule.world.edges) == len(schedule.world.verifiers) == 2
        lengths = tuple(e.requests[0].max_tokens for e in schedule.world.edges)
        assert lengths == NUM_TOKENS
        assert len(schedule.faults) >= MIN_FAULTS
        of_plane = {fault.kind for fault in schedule.faults} & CONTROL
        assert bool(of_plane) == (schedule.world.orchestrator is not None)
        kinds |= {fault.kind for fault in schedule.faults}
    assert kinds == set(FaultKind)


def test_the_same_schedule_gives_the_same_log() -> None:
    def lines() -> list[str]:
        log = EventLog()
        with quiet():
            tried(drawn(11), log=log)
        return log.lines()

    assert lines() == lines()


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_stuck() -> None:
    report = campaign(first=0, count=100, num_processes=1)
    assert not report.failures, [failure.wrongs for failure in report.failures]
    assert report.num_tokens >= 100 * sum(NUM_TOKENS)
    assert report.num_faults >= 100 * MIN_FAULTS


def test_coverage_tells_which_fault_met_which_state() -> None:
    coverage = Coverage()
    with quiet():
        for seed in range(5):
            tried(drawn(seed), coverage=coverage)
    num_faults = sum(len(drawn(seed).faults) for seed in range(5))
    assert sum(n for (_, state), n in coverage.counts.items() if "cloud" not in state) == num_faults
    assert (FaultKind.CUT, "cloud kept") in coverage.empty
    assert len(coverage.lines()) == 1 + len(FaultKind)


# --- planted bugs


def _resumes_one_token_late(patch: pytest.MonkeyPatch) -> None:
    """A verifier believes that an edge which comes back has one token more than it says."""
    attach = CloudSession._attach

    def wrong(self: CloudSession, event: Attach) -> Any:
        effects = attach(self, event)
        self._cursor = Position(min(self.length, self._cursor + 1))
        return effects

    patch.setattr(CloudSession, "_attach", wrong)


def _opens_without_output(patch: pytest.MonkeyPatch) -> None:
    """An edge that lost its verifier opens on another one as if nothing had been committed."""
    link_up = EdgeSession._link_up

    def wrong(self: EdgeSession, event: LinkUp) -> Any:
        return tuple(
            Send(message=replace(effect.message, output=()))
            if isinstance(effect, Send) and isinstance(effect.message, Open)
            else effect
            for effect in link_up(self, event)
        )

    patch.setattr(EdgeSession, "_link_up", wrong)


def _forgets_the_lease(patch: pytest.MonkeyPatch) -> None:
    """A verifier keeps a session for ever once its stream has broken after the text was complete."""
    apply = Registry._apply

    def wrong(self: Registry, entry: Any, effects: Any) -> None:
        if entry.session.finish is not None:
            effects = [one for one in effects if not isinstance(one, StartLease)]
        apply(self, entry, effects)

    patch.setattr(Registry, "_apply", wrong)


def _keeps_what_was_meant_for_another_stream(patch: pytest.MonkeyPatch) -> None:
    """A client sends on a new stream what had waited for the one before."""
    patch.setattr(Outbox, "clear", lambda self: None)


def _loses_heart(patch: pytest.MonkeyPatch) -> None:
    """A client that failed to reach a verifier three times in a row does not try again for a day."""
    following = Reconnection.next_attempt

    def wrong(self: Reconnection, **known: Any) -> Attempt | None:
        attempt = following(self, **known)
        if attempt is not None and self._num_failures > 3:
            attempt = replace(attempt, after_s=86_400.0)
        return attempt

    patch.setattr(Reconnection, "next_attempt", wrong)


def _accepts_the_last_draft_unseen(patch: pytest.MonkeyPatch) -> None:
    """A verifier takes a drafted token for the target's own when the edge resumed while a step was under way."""
    stepped = CloudSession._stepped

    def wrong(self: CloudSession, event: Any) -> Any:
        if self._attempt > 1 and self._root.children:
            drafted = next(iter(self._root.children))
            event = replace(event, tokens=(*event.tokens[:-1], TokenId(drafted)))
        return stepped(self, event)

    patch.setattr(CloudSession, "_stepped", wrong)


def _loses_a_refused_cache(patch: pytest.MonkeyPatch) -> None:
    """A verifier forgets to free the cache of a session that ended while the cache was being made."""
    free = Registry.free_cache

    def wrong(self: Registry, entry: Any) -> None:
        if entry.cache == "ordered":
            entry.cache = type(entry.cache).NONE
        free(self, entry)

    patch.setattr(Registry, "free_cache", wrong)


def _gives_a_late_step_to_nobody(patch: pytest.MonkeyPatch) -> None:
    """A step that ends while its session has no stream is thrown away, though the cache has moved on."""
    stepped = Workload._serve

    def wrong(self: Workload, entry: Any, event: Any, *, now_s: float, queued_s: float) -> None:
        if entry.stream is not None:
            stepped(self, entry, event, now_s=now_s, queued_s=queued_s)

    patch.setattr(Workload, "_serve", wrong)


def _tells_the_broker_nothing_again(patch: pytest.MonkeyPatch) -> None:
    """A link that found its broker again trusts it to remember what was retained."""
    patch.setattr(ControlOutbox, "repost_retained", lambda self: None)


def _loses_heart_at_the_broker(patch: pytest.MonkeyPatch) -> None:
    """A link that failed to reach the broker a few times in a row does not try again for a day."""
    following = Backoff.next_s

    def wrong(self: Backoff) -> float:
        delay_s = following(self)
        return 86_400.0 if self._num_failures > 3 else delay_s

    patch.setattr(Backoff, "next_s", wrong)


def _hangs_guesses_below_what_is_contradicted(patch: pytest.MonkeyPatch) -> None:
    """An edge keeps the branches that a commit has contradicted as places where a tree may grow."""
    advance = Frontier.advance

    def wrong(self: Frontier, root: Node, dropped: Any, *, now_s: float = 0.0) -> None:
        advance(self, root, (), now_s=now_s)

    patch.setattr(Frontier, "advance", wrong)


CONTROL_PLANTED = (_tells_the_broker_nothing_again, _loses_heart_at_the_broker)

TREE_PLANTED = (_hangs_guesses_below_what_is_contradicted,)

PLANTED: tuple[Plant, ...] = (
    _resumes_one_token_late,
    _opens_without_output,
    _forgets_the_lease,
    _keeps_what_was_meant_for_another_stream,
    _loses_heart,
    _accepts_the_last_draft_unseen,
    _loses_a_refused_cache,
    _gives_a_late_step_to_nobody,
)


BEGINS: dict[Plant, int] = {_keeps_what_was_meant_for_another_stream: 2000}
"""Where a thousand schedules begin for those that are found late, since each one that finds nothing takes its time; else at 0."""


def _found(patch: pytest.MonkeyPatch, plant: Plant) -> Schedule | None:
    plant(patch)
    begin = BEGINS.get(plant, 0)
    schedules: Iterable[Schedule] = map(drawn, range(begin, begin + MOST))
    if plant in CONTROL_PLANTED:  # the others would find nothing, and take their time
        schedules = (one for one in schedules if one.world.orchestrator is not None)
    elif plant in TREE_PLANTED:
        schedules = (one for one in schedules if any(e.make_drafter for e in one.world.edges))
    with quiet():
        return next((one for one in schedules if tried(one).wrongs), None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plant",
    [*PLANTED, *CONTROL_PLANTED, *TREE_PLANTED],
    ids=lambda plant: plant.__name__.strip("_"),
)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _found(monkeypatch, plant) is not None


@pytest.mark.slow
def test_a_program_that_never_waits_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rest(self: Stepper, wake_at_s: float | None) -> None:
        """Look for work again at once."""

    monkeypatch.setattr(Stepper, "_rest", rest)
    with quiet(), limited(1.0):
        verdict = tried(drawn(0))
    assert "goes in circles" in verdict.wrongs[0]


# --- what a failing seed tells


@pytest.mark.slow
def test_a_failing_schedule_is_told_in_full_and_made_smaller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule = _found(monkeypatch, _resumes_one_token_late)
    assert schedule is not None
    text = "\n".join(explained(schedule, smaller=False))
    for fault in schedule.faults:
        assert fault.line() in text
    assert f"faults --seed {schedule.seed}\n" in text
    assert "WRONG: edge" in text
    assert '"kind":"arrived"' in text
    with quiet():
        smaller = shrunk(schedule, fails=lambda one: bool(tried(one).wrongs), max_trials=100)
        assert tried(smaller).wrongs
        assert len(smaller.faults) == 1  # a broken stream is all it takes
        assert not tried(smaller.without(0)).wrongs


def test_the_command_replays_a_seed() -> None:
    done = CliRunner().invoke(simulate, ["faults", "--seed", "3"])
    assert done.exit_code == 0
    assert "nothing is wrong" in done.output
    assert all(fault.line() in done.output for fault in drawn(3).faults)


@pytest.mark.slow
def test_the_command_fails_if_anything_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["faults", "--count", "5", "--processes", "1"]
    assert CliRunner().invoke(simulate, options).exit_code == 0
    assert CliRunner().invoke(simulate, [*options, "--coverage"]).exit_code == 1
    _opens_without_output(monkeypatch)
    done = CliRunner().invoke(simulate, options)
    assert done.exit_code == 1
    assert "5 schedules" in done.output
    assert "a smaller schedule" in done.output
