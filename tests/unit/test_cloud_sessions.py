"""The registry under a clock of its own: leases, fencing, silence, quotas, and that nothing is left."""

import pytest
from harness.cloud_house import ALICE, BOB, House, T

from cloud.entry import PACE_STEPS, Cache, Pace
from cloud.experience import MAX_TENANTS, Experience
from cloud.tenants import Peer
from paceline.errors import (
    DrainingError,
    FencedError,
    LinkTimeout,
    LocalProtocolError,
    ModelError,
    OverloadedError,
    RemoteProtocolError,
    SessionLostError,
)
from paceline.messages import Close, CloseReason, Proposal, Resume
from paceline.session.ranks import PRIOR
from paceline.tokens import Position


def test_ids_are_unguessable_and_differ() -> None:
    house = House()
    ids = {house.open()[0].session_id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(session_id) == 16 for session_id in ids)


def test_a_session_is_admitted_when_it_has_memory() -> None:
    house = House()
    entry, stream = house.open()
    assert not entry.is_admitted
    house.arrange()
    assert entry.is_admitted
    assert [view.key for view in house.workload.scheduler_views()[0]] == [entry.key]
    house.registry.deliver(entry, stream, Close(reason=CloseReason.DONE))
    assert stream.is_over
    assert stream.error is None
    house.registry.detach(entry, stream)
    assert house.is_empty()


def test_no_memory_ends_the_stream() -> None:
    house = House()
    entry, stream = house.open()
    closes, opens = house.workload.take_cache_orders()
    assert (closes, [order.key for order in opens]) == ([], [entry.key])
    error = OverloadedError("full", retry_after_s=3.0)
    house.workload.cache_opened(entry.key, error)
    assert stream.error is error
    house.registry.detach(entry, stream)
    assert house.is_empty()


def test_a_session_closed_while_its_cache_is_made() -> None:
    house = House()
    entry, stream = house.open()
    _, opens = house.workload.take_cache_orders()
    house.registry.deliver(entry, stream, Close(reason=CloseReason.CANCELLED))
    house.worker.add(opens[0].key)
    house.workload.cache_opened(entry.key, None)
    house.registry.check_integrity(house.worker)
    assert house.is_empty()


def test_the_lease() -> None:
    house = House()
    entry, stream = house.open()
    house.arrange()
    house.registry.detach(entry, stream)
    assert house.registry.next_deadline_s == house.clock.at_s + 10.0
    assert house.registry.num_streams == 0
    house.later(9.9)
    assert house.registry.entries
    house.later(0.2)
    assert house.is_empty()
    with pytest.raises(SessionLostError, match=r"resume\.session_id"):
        house.registry.resume(
            Resume(session_id=entry.session_id, length=Position(3)), house.stream()
        )


def test_resuming_stops_the_lease() -> None:
    house = House()
    entry, stream = house.open()
    house.arrange()
    house.registry.detach(entry, stream)
    again = house.stream()
    resume = Resume(session_id=entry.session_id, length=Position(3))
    assert house.registry.resume(resume, again) is entry
    house.later(4.0)
    assert house.registry.entries == (entry,)
    assert entry.stream is again
    house.registry.check_integrity(house.worker)


def test_fencing() -> None:
    house = House()
    entry, old = house.open()
    house.arrange()
    new = house.stream()
    house.registry.resume(Resume(session_id=entry.session_id, length=Position(3)), new)
    assert isinstance(old.error, FencedError)
    assert not new.is_over
    # The end of the old stream, and what it still says, change nothing.
    house.registry.deliver(entry, old, Close(reason=CloseReason.CANCELLED))
    house.registry.detach(entry, old)
    assert entry.stream is new
    assert entry.lease_ends_s is None
    house.registry.check_integrity(house.worker)


def test_a_try_that_a_dead_connection_delivers_late_fences_nobody() -> None:
    house = House()
    entry, _ = house.open()
    length = Position(3)
    new, late = house.stream(), house.stream()
    house.registry.resume(Resume(session_id=entry.session_id, length=length, attempt=3), new)
    with pytest.raises(FencedError, match=r"resume\.attempt"):
        house.registry.resume(Resume(session_id=entry.session_id, length=length, attempt=2), late)
    assert entry.stream is new
    assert not new.is_over


def test_only_its_owner_can_resume() -> None:
    house = House()
    entry, stream = house.open(ALICE)
    resume = Resume(session_id=entry.session_id, length=Position(3))
    with pytest.raises(SessionLostError):
        house.registry.resume(resume, house.stream(BOB))
    assert not stream.is_over


def test_an_impossible_resume_leaves_the_session_alone() -> None:
    house = House()
    entry, stream = house.open()
    with pytest.raises(RemoteProtocolError, match=r"resume\.length"):
        house.registry.resume(
            Resume(session_id=entry.session_id, length=Position(50)), house.stream()
        )
    assert entry.stream is stream
    assert not stream.is_over


def test_the_cache_is_freed_with_the_last_token_and_the_log_is_kept() -> None:
    house = House()
    entry, stream = house.open(max_tokens=2)
    house.arrange()
    house.step(entry, 7, 8)
    assert entry.cache is Cache.NONE
    house.arrange()
    assert not house.worker
    commit = entry.session.next_commit()
    assert commit is not None
    assert commit.tokens == (7, 8)
    house.registry.detach(entry, stream)
    house.later(11.0)
    assert house.is_empty()


def test_an_edge_that_owes_an_answer_is_given_up() -> None:
    house = House()
    entry, stream = house.open()
    house.arrange()
    house.step(entry, *range(10, 18))
    assert entry.owes_answer, "max_lead tokens are not acknowledged"
    assert house.registry.next_deadline_s == entry.heard_at_s + 5.0
    house.later(4.9)
    assert not stream.is_over
    house.later(0.2)
    assert isinstance(stream.error, LinkTimeout)
    assert house.registry.next_deadline_s is None, "its stream has still to end"
    house.registry.detach(entry, stream)
    house.later(11.0)
    assert house.is_empty()


def test_a_slow_step_is_not_the_silence_of_the_edge() -> None:
    house = House()
    entry, stream = house.open(max_tokens=2)
    house.arrange()
    house.clock.at_s += 60.0
    house.step(entry, 7, 8)
    assert entry.owes_answer, "the text has ended and was not closed"
    house.later(4.9)
    assert not stream.is_over, "it has as long as ever to take the last commit and close"
    house.later(0.2)
    assert isinstance(stream.error, LinkTimeout)


def test_an_edge_that_answers_is_not() -> None:
    house = House()
    entry, stream = house.open()
    house.arrange()
    house.step(entry, *range(10, 18))
    for _ in range(10):
        house.later(3.0)
        house.registry.deliver(entry, stream, Proposal(base_position=Position(3)))
    assert not stream.is_over
    house.registry.deliver(entry, stream, Proposal(base_position=Position(11)))
    assert not entry.owes_answer
    assert entry.waiting_since_s == house.clock.at_s, "its work came with the acknowledgement"
    house.later(1000.0)
    assert not stream.is_over, "now it is the verifier's turn"


def test_a_model_error_ends_its_session() -> None:
    house = House()
    entry, stream = house.open()
    other, other_stream = house.open()
    house.arrange()
    error = ModelError("logits: nan")
    house.step(entry, failed=error)
    assert stream.error is error
    assert house.registry.entries == (other,)
    assert not other_stream.is_over


def test_a_draft_that_the_model_cannot_compute_does_not_end_the_text() -> None:
    house = House()
    entry, stream = house.open()
    house.arrange()
    drafts = Proposal(base_position=Position(3), tokens=(T(7), T(8)), parents=(0,))
    house.registry.deliver(entry, stream, drafts)
    house.step(entry, failed=ModelError("logits: got nan"))
    assert not stream.is_over
    (view,) = house.workload.scheduler_views()[0]
    assert (view.may_step, view.num_offered, view.has_drafts) == (True, 0, True)
    house.step(entry, 7)
    assert entry.session.output == [7]
    # Without drafts it is the text itself that cannot be computed.
    house.step(entry, failed=ModelError("logits: got nan"))
    assert isinstance(stream.error, ModelError)


def test_a_step_that_breaks_the_rules_of_its_session_ends_that_one_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House()
    # Log probabilities were asked for and do not come: a bug on our side.
    entry, stream = house.open(num_logprobs=2)
    other, other_stream = house.open()
    house.arrange()
    house.step(entry, 5)
    assert isinstance(stream.error, LocalProtocolError)
    assert "a step broke its session" in caplog.text
    house.step(other, 5)
    assert not other_stream.is_over


def test_results_for_closed_sessions_are_dropped() -> None:
    house = House()
    entry, stream = house.open()
    house.arrange()
    house.registry.deliver(entry, stream, Close(reason=CloseReason.DONE))
    house.step(entry, 5)
    assert house.registry.account.num_served == 0
    house.registry.detach(entry, stream)
    assert house.is_empty()


def test_waiting_is_measured() -> None:
    house = House()
    entry, _ = house.open()
    house.arrange()
    house.clock.at_s += 0.5
    house.step(entry, 5)
    assert (house.registry.account.queue_ns, house.registry.account.num_served) == (500_000_000, 1)
    assert entry.waiting_since_s == house.clock.at_s


def test_quotas() -> None:
    house = House(max_sessions=3, max_sessions_per_tenant=2, retry_after_s=4.0)
    entry, stream = house.open(ALICE)
    house.open(ALICE)
    with pytest.raises(OverloadedError, match="max_sessions_per_tenant is 2") as caught:
        house.open(ALICE)
    assert caught.value.retry_after_s == 4.0
    house.open(BOB)
    with pytest.raises(OverloadedError, match="max_sessions is 3"):
        house.open(BOB)
    house.registry.deliver(entry, stream, Close(reason=CloseReason.DONE))
    house.open(BOB)


def test_drain() -> None:
    house = House()
    entry, stream = house.open()
    detached, gone = house.open()
    house.arrange()
    house.registry.detach(detached, gone)
    house.registry.drain(house.clock.at_s + 20.0)
    assert stream.drain_deadline_s == house.clock.at_s + 20.0
    with pytest.raises(DrainingError):
        house.open()
    # Whoever comes back to a running session is told as well.
    again = house.stream()
    house.registry.resume(Resume(session_id=entry.session_id, length=Position(3)), again)
    assert again.drain_deadline_s is not None
    error = DrainingError("over")
    house.registry.end_all(error)
    assert again.error is error
    house.registry.detach(entry, again)
    assert house.registry.no_streams.is_set()
    assert house.is_empty()


def test_a_leak_is_found() -> None:
    house = House()
    house.open()
    house.arrange()
    with pytest.raises(AssertionError):
        house.registry.check_integrity(house.worker | {77})


def test_a_commit_carries_the_price_of_a_row() -> None:
    house = House()
    entry, _ = house.open()
    house.arrange()
    for row_price_s, told_ns in ((0.0, 0), (0.00125, 1_250_000)):
        house.step(entry, 7, row_price_s=row_price_s)
        commit = entry.session.next_commit()
        assert commit is not None
        assert commit.row_price_ns == told_ns


def test_what_drafts_of_a_tenant_were_worth_is_known_when_it_comes_again() -> None:
    house = House()

    def chance(peer: Peer) -> float:
        entry, stream = house.open(peer)
        house.arrange()
        guess = Proposal(base_position=Position(3), tokens=(T(5),), parents=(0,))
        house.registry.deliver(entry, stream, guess)
        found = entry.session.offer(1).chances[0]
        house.step(entry, 5)
        house.registry.deliver(entry, stream, Close(reason=CloseReason.DONE))
        return found

    first = chance(ALICE)
    for _ in range(30):
        last = chance(ALICE)
    assert last > first + 0.2
    assert chance(BOB) == first


def test_tenants_that_are_long_gone_are_forgotten() -> None:
    experience = Experience()
    for number in range(MAX_TENANTS + 1):
        rates = experience.rates_for(str(number))
        rates.judge([T(1)], T(1))
    assert experience.rates_for(str(MAX_TENANTS)).rate(0) > PRIOR[0]
    assert experience.rates_for("0").rate(0) == PRIOR[0]


def test_what_a_step_commits_for_a_session_is_followed_once_there_were_some() -> None:
    pace = Pace()
    for _ in range(PACE_STEPS - 1):
        pace.add(3)
    assert pace.tokens_per_step is None
    pace.add(3)
    assert pace.tokens_per_step == pytest.approx(3.0)
    for _ in range(100):
        pace.add(1)
    assert pace.tokens_per_step == pytest.approx(1.0, abs=0.1)


def test_sessions_that_share_a_step_offer_no_more_than_it_is_worth_looking_at() -> None:
    house = House()
    for peer in (ALICE, BOB):
        entry, stream = house.open(peer)
        house.arrange()
        guesses = tuple(T(token) for token in range(5, 19))
        many = Proposal(base_position=Position(3), tokens=guesses, parents=(0,) * 14)
        house.registry.deliver(entry, stream, many)
    for row_budget, offered in ((100, 14), (5, 10), (2, 8)):
        views, trees = house.workload.scheduler_views(row_budget=row_budget)
        assert [view.num_offered for view in views] == [offered, offered]
        assert all(len(tree.tokens) == offered for tree in trees.values())
