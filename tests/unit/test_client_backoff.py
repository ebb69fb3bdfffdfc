"""When and where to try again."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.client.backoff import AVOID_S, Attempt, Reconnection, Unreachable
from paceline.client.settings import RetryPolicy
from paceline.errors import ConfigError
from paceline.settings import Address


class Highest:
    """No jitter: the longest delay every time."""

    def random(self) -> float:
        return 1.0


def _places(count: int) -> tuple[Address, ...]:
    return tuple(Address(host="127.0.0.1", port=index) for index in range(count))


def _reconnection(count: int = 1, **policy: float) -> Reconnection:
    return Reconnection(_places(count), policy=RetryPolicy(**policy), generator=Highest())


def _ports(attempts: list[Attempt | None]) -> list[int]:
    return [attempt.address.port for attempt in attempts if attempt is not None]


def test_the_same_verifier_first_then_the_others_in_turn() -> None:
    reconnection = _reconnection(3)
    attempts = [reconnection.next_attempt(now_s=0.0) for _ in range(6)]
    assert _ports(attempts) == [0, 1, 2, 0, 1, 2]


def test_another_one_first_if_the_verifier_asks_for_it() -> None:
    reconnection = _reconnection(3)
    attempts = [reconnection.next_attempt(now_s=0.0, elsewhere=True) for _ in range(3)]
    assert _ports(attempts) == [1, 2, 0]


def test_alone_it_stays_where_it_is() -> None:
    assert _ports([_reconnection(1).next_attempt(now_s=0.0, elsewhere=True)]) == [0]


def test_delays_double_with_every_round_up_to_the_longest() -> None:
    reconnection = _reconnection(2, first_s=0.1, max_s=0.5)
    attempts = [reconnection.next_attempt(now_s=0.0) for _ in range(8)]
    delays = [attempt.after_s for attempt in attempts if attempt is not None]
    assert delays == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.5, 0.5])


def test_progress_forgets_what_failed() -> None:
    reconnection = _reconnection(2, first_s=0.125, give_up_after_s=10.0)
    for now_s in (0.0, 5.0, 9.0):
        reconnection.next_attempt(now_s=now_s)
    address = reconnection.address
    reconnection.progressed()
    attempt = reconnection.next_attempt(now_s=100.0)
    assert attempt == Attempt(address=address, after_s=0.125)


def test_it_gives_up_in_time() -> None:
    reconnection = _reconnection(1, first_s=1.0, max_s=1.0, give_up_after_s=3.0)
    assert reconnection.next_attempt(now_s=0.0) is not None
    assert reconnection.next_attempt(now_s=1.9) is not None
    assert reconnection.next_attempt(now_s=2.1) is None  # it would come too late


def test_one_attempt_only_if_the_policy_says_so() -> None:
    assert _reconnection(2, give_up_after_s=0.0).next_attempt(now_s=5.0) is None


def test_retry_after_is_respected_and_others_are_asked_meanwhile() -> None:
    reconnection = _reconnection(2, first_s=0.125, max_s=0.125)
    first = reconnection.next_attempt(now_s=0.0, retry_after_s=7.0)
    assert first == Attempt(address=_places(2)[1], after_s=0.125)
    second = reconnection.next_attempt(now_s=1.0)
    assert second == Attempt(address=_places(2)[1], after_s=0.125)
    reconnection.next_attempt(now_s=2.0, retry_after_s=60.0)
    assert reconnection.address == _places(2)[0]


def test_a_wait_beyond_the_patience_gives_up_at_once() -> None:
    reconnection = _reconnection(1, give_up_after_s=5.0)
    assert reconnection.next_attempt(now_s=0.0, retry_after_s=6.0) is None


@given(seed=st.integers(), count=st.integers(1, 4), failures=st.integers(1, 200))
def test_delays_are_jittered_within_their_bounds(seed: int, count: int, failures: int) -> None:
    policy = RetryPolicy(first_s=0.1, max_s=2.0, give_up_after_s=1e9)
    reconnection = Reconnection(_places(count), policy=policy, generator=Random(seed))
    for number in range(failures):
        attempt = reconnection.next_attempt(now_s=float(number))
        assert attempt is not None
        longest_s = min(2.0, 0.1 * 2.0 ** (number // count))
        assert longest_s / 2 - 1e-9 <= attempt.after_s <= longest_s + 1e-9


@pytest.mark.parametrize("fields", [{"first_s": 0.0}, {"first_s": 6.0}, {"give_up_after_s": -1.0}])
def test_a_policy_out_of_range_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="retry"):
        RetryPolicy(**fields)


def test_what_could_not_be_reached_lately_comes_last_for_a_while() -> None:
    first, second, third = places = tuple(Address(host="a", port=port) for port in (1, 2, 3))
    unreachable = Unreachable()
    assert unreachable.order(places, now_s=0.0) == places
    unreachable.note(first, now_s=10.0)
    assert unreachable.order(places, now_s=10.0) == (second, third, first)
    unreachable.note(third, now_s=20.0)
    assert unreachable.order(places, now_s=20.0) == (second, first, third)
    assert unreachable.order(places, now_s=10.0 + AVOID_S) == (first, second, third)
    unreachable.forget(third)
    assert unreachable.order(places, now_s=20.0) == (second, third, first)
