"""A target that says texts which were written down."""

import pytest

from cloud.scheduler import RaceDrafting, SchedulerSettings
from paceline.tokens import TokenId
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.known_target import KnownTarget, KnownText
from simulator.virtual.target import ToyTarget, toy_tokenizer
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run


def tokens(*numbers: int) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, numbers))


SIX = tokens(7, 8, 9, 10, 11, 12)
ONE = KnownText(prompt=tokens(1, 2), output=SIX * 8)
OTHER = KnownText(prompt=tokens(1, 2, 7), output=tokens(8, 30, 31))
TARGET = KnownTarget(texts=(ONE, OTHER))


def test_a_text_goes_on_as_it_was_written_down_the_first_that_begins_so() -> None:
    assert TARGET.run(ONE.prompt, 48) == ONE.output
    assert TARGET.draw(ONE.prompt, ONE.output[:5]) == 12
    assert TARGET.draw((*ONE.prompt, *SIX), SIX[:1]) == 8
    # What both begin with is the first one's; what only the other says is the other's.
    assert TARGET.draw(OTHER.prompt, tokens(8)) == 9
    assert TARGET.draw(OTHER.prompt, tokens(8, 30)) == 31


@pytest.mark.parametrize(
    "text",
    [
        tokens(1),
        tokens(2, 1),
        tokens(1, 2, 7, 8, 9, 11),
        tokens(1, 3, *SIX),
        tokens(1, 2, *SIX[:3], 40, 11),
        (*ONE.prompt, *ONE.output),
    ],
)
def test_anywhere_else_it_is_a_toy(text: tuple[TokenId, ...]) -> None:
    assert TARGET.draw(text) == ToyTarget().draw(text)
    assert TARGET.draw(text[:1], text[1:]) == ToyTarget().draw(text)


def test_what_a_text_repeats_is_there_to_be_guessed() -> None:
    def steps(drafting: RaceDrafting) -> int:
        settings = WorldSettings(
            edges=(
                EdgeSettings(requests=(Request(prompt=ONE.prompt, max_tokens=48),), draft=None),
            ),
            verifiers=(VerifierSettings(scheduler=SchedulerSettings(race_drafts=drafting)),),
            target=TARGET,
        )
        ((asked,),) = run(settings).asked
        assert tuple(asked.pieces) == ONE.output
        assert asked.statistics is not None
        return asked.statistics.steps

    assert steps(RaceDrafting.OFF) == 48
    assert steps(RaceDrafting.SUFFIX) < 24


def test_every_id_of_a_large_vocabulary_has_a_character_of_its_own_that_can_be_sent() -> None:
    text = toy_tokenizer(49_152).decode(tokens(*range(1, 49_152)))
    assert len(set(text)) == 49_151
    assert text.encode().decode() == text
    assert "\ufffd" not in text
