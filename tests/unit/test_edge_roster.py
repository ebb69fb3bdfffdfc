"""Which verifiers an edge uses, and which it measures."""

from dataclasses import replace

from harness.toy_client import place
from harness.toy_verifier import toy_identity

from edge.roster import PROBE_S, Roster
from paceline.control.messages import MAX_TELEMETRY_VERIFIERS
from paceline.settings import Address

TARGET = toy_identity(24)
OTHER_WEIGHTS = replace(TARGET, name="other", weights_fingerprint=bytes(32))
OTHER_TOKENIZER = replace(TARGET, name="other", tokenizer_fingerprint=bytes(32))
OWN: tuple[Address, ...] = (place(0), place(1))


def _roster(*, follows: bool = True) -> Roster:
    return Roster(OWN, target=TARGET, follows=follows)


def _names(*indices: int) -> tuple[str, ...]:
    return tuple(str(place(index)) for index in indices)


def test_without_a_policy_the_verifiers_are_those_it_was_started_with() -> None:
    assert _roster().usable == OWN


def test_a_policy_puts_verifiers_into_its_order_that_have_shown_what_they_serve() -> None:
    roster = _roster()
    assert roster.assign(_names(1)) == ()
    assert [*roster.usable] == [*OWN]
    roster.answered(place(1), now_s=0.0, target=TARGET)
    assert [*roster.usable] == [place(1), place(0)]
    roster.assign(())
    assert [*roster.usable] == [*OWN]


def test_a_policy_does_not_prefer_what_would_write_another_text() -> None:
    roster = _roster()
    roster.answered(place(1), now_s=0.0, target=OTHER_WEIGHTS)
    roster.assign(_names(1))
    assert [*roster.usable] == [*OWN]
    # Nor does anything prove a stranger if the weights looked for are not known.
    blank = replace(TARGET, weights_fingerprint=b"")
    roster = Roster(OWN, target=blank, follows=True)
    roster.assign(_names(5))
    assert "weights" in roster.answered(place(5), now_s=0.0, target=blank)
    assert [*roster.usable] == [*OWN]


def test_a_stranger_must_serve_at_every_session_what_it_has_shown() -> None:
    roster = _roster()
    roster.assign(_names(5, 1))
    assert roster.weights == {}
    roster.answered(place(5), now_s=0.0, target=TARGET)
    roster.answered(place(1), now_s=0.0, target=TARGET)
    assert roster.weights == {place(5): TARGET.weights_fingerprint}


def test_a_stranger_is_used_once_it_has_shown_what_it_serves() -> None:
    roster = _roster()
    roster.assign(_names(5, 1))
    roster.answered(place(1), now_s=-1.0, target=TARGET)
    assert [*roster.usable] == [place(1), place(0)]
    assert roster.due(now_s=0.0) == place(5)
    assert roster.answered(place(5), now_s=0.0, target=TARGET) == ""
    assert [*roster.usable] == [place(5), place(1), place(0)]
    # One that falls silent stays: those who use it find out, and it may be back at any moment.
    roster.silent(place(5), now_s=20.0)
    assert not roster.answers(place(5))
    assert roster.usable[0] == place(5)
    roster.assign(_names(1))
    assert roster.answered(place(5), now_s=30.0, target=OTHER_WEIGHTS) == ""  # forgotten meanwhile
    roster.silent(place(5), now_s=30.0)
    assert place(5) not in roster.all


def test_a_stranger_with_other_weights_or_another_tokenizer_is_told_of_once_and_not_used() -> None:
    roster = _roster()
    roster.assign(_names(5, 6))
    assert "whose weights are not" in roster.answered(place(5), now_s=0.0, target=OTHER_WEIGHTS)
    assert "another tokenizer" in roster.answered(place(6), now_s=0.0, target=OTHER_TOKENIZER)
    assert roster.answered(place(5), now_s=20.0, target=OTHER_WEIGHTS) == ""
    assert [*roster.usable] == [*OWN]
    assert roster.answered(place(5), now_s=40.0, target=TARGET) == ""  # it was restarted
    assert [*roster.usable] == [place(5), *OWN]
    assert "weights" in roster.answered(place(5), now_s=60.0, target=OTHER_WEIGHTS)


def test_the_users_own_verifiers_may_serve_other_weights_but_no_other_tokenizer() -> None:
    roster = _roster()
    assert roster.answered(place(0), now_s=0.0, target=OTHER_WEIGHTS) == ""
    assert "tokenizer" in roster.answered(place(0), now_s=0.0, target=OTHER_TOKENIZER)
    assert [*roster.usable] == [place(1)]
    roster.answered(place(1), now_s=0.0, target=OTHER_TOKENIZER)
    assert [*roster.usable] == [*OWN]  # none fits: let the error say so


def test_each_is_measured_in_turn_and_not_too_often() -> None:
    roster = _roster()
    roster.assign(_names(5))
    asked = []
    for second in range(25):
        due = roster.due(now_s=float(second))
        if due is not None:
            asked.append((second, due.port - 1))
            roster.silent(due, now_s=float(second))
    assert asked == [(0, 5), (1, 0), (2, 1), (10, 5), (11, 0), (12, 1), (20, 5), (21, 0), (22, 1)]
    assert PROBE_S == 10.0


def test_nothing_is_told_of_who_was_never_asked() -> None:
    roster = _roster()
    assert not roster.asked
    roster.silent(place(1), now_s=0.0)
    assert roster.asked == (place(1),)


def test_nonsense_is_told_and_left_out() -> None:
    roster = _roster()
    assert roster.assign(("nowhere", *_names(1), "", "x:99999")) == ("nowhere", "", "x:99999")
    roster.answered(place(1), now_s=0.0, target=TARGET)
    assert [*roster.usable] == [place(1), place(0)]


def test_policies_need_not_be_followed() -> None:
    roster = _roster(follows=False)
    assert roster.assign(_names(1, 5)) == ()
    assert [*roster.usable] == [*OWN]
    assert roster.all == OWN


def test_telemetry_takes_so_many_only() -> None:
    own = tuple(place(index) for index in range(100))
    assert len(Roster(own, target=TARGET, follows=True).all) == MAX_TELEMETRY_VERIFIERS
