"""Worlds in virtual time as a test drives them."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from paceline.client.settings import ConnectionSettings, DraftingSettings, RetryPolicy
from paceline.errors import ConfigError, PacelineError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.testing import AskingFailedError, TimedDrafter, VirtualWorld, network
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.target import ToyTarget
from simulator.virtual.verifier import VerifierSettings

PROMPT = "Hello"


@contextmanager
def made(written: str = "rtt=50ms", *, seed: int = 0, **parts: Any) -> Iterator[VirtualWorld]:
    with network(written, seed=seed) as scene:
        world = scene.world(**parts)
        assert isinstance(world, VirtualWorld)
        yield world


def test_time_passes_only_while_a_test_waits() -> None:
    with made() as pair:
        assert pair.now_s == 0.0
        pair.wait("1.5s")
        assert pair.now_s == 1.5
        answer = pair.edge.ask(PROMPT)
        assert answer.text == pair.target_text(PROMPT)
        assert answer.num_tokens == 64
        assert answer.finish_reason == "length"
        assert pair.now_s == pytest.approx(1.5 + answer.statistics.duration_s, abs=0.2)
        assert answer.statistics.accepted > 0


def test_an_edge_answers_one_thing_after_the_other() -> None:
    with made() as pair:
        first, second = pair.edge.submit(PROMPT), pair.edge.submit("Another one", max_tokens=8)
        second.wait_for_tokens(1)
        assert first.num_tokens == 64
        assert second.answer().text == pair.target_text("Another one", max_tokens=8)
        with pytest.raises(AskingFailedError, match="ended after 8 tokens, expected 9"):
            second.wait_for_tokens(9)


def test_the_same_seed_is_the_same_run_and_another_one_is_another() -> None:
    def lines(seed: int) -> list[str]:
        with made("lte,loss=2%", seed=seed) as pair:
            pair.after("300ms", pair.link.black_hole)
            pair.after("900ms", pair.link.heal)
            pair.edge.ask(PROMPT)
            return [event.line() for event in pair.events]

    assert lines(1) == lines(1)
    assert lines(1) != lines(2)


def test_a_link_that_changes_stays_changed_when_it_heals() -> None:
    with made() as pair:
        pair.link.change(rtt="1s")
        slow = pair.edge.ask(PROMPT, max_tokens=2).statistics
        assert slow.time_to_first_token_s > 1.0
        pair.link.cut()
        assert pair.link.state == "cut"
        pair.link.heal()
        assert pair.link.state == "open"
        assert pair.edge.ask(PROMPT, max_tokens=2).statistics.time_to_first_token_s > 1.0
        pair.wait("1s")  # what was sent over the slow link is still on its way
        pair.link.change("rtt=50ms")
        assert pair.edge.ask(PROMPT, max_tokens=2).statistics.time_to_first_token_s < 0.5


def test_a_killed_edge_asks_again_and_a_killed_verifier_is_found_again() -> None:
    with made() as pair:
        asking = pair.edge.submit(PROMPT)
        asking.wait_for_tokens(10)
        pair.edge.kill()
        pair.wait("1s")
        pair.edge.start()
        asking.wait_for_tokens(20)
        pair.verifier.kill()
        pair.wait("1s")
        pair.verifier.start()
        assert asking.answer().text == pair.target_text(PROMPT)
        kinds = [event.kind for event in pair.events]
        assert kinds.count("killed") == 2


def test_an_answer_that_never_comes_is_an_error_with_the_edge_s_own_words() -> None:
    impatient = ConnectionSettings(retry=RetryPolicy(give_up_after_s=5.0))
    edge = EdgeSettings(requests=(), is_open=True, connection=impatient)
    with made(edges=[edge]) as pair:
        pair.link.cut()
        with pytest.raises(AskingFailedError, match=r"edge0: .*10\.0\.0\.1"):
            pair.edge.ask(PROMPT)
        pair.link.heal()
        assert pair.edge.ask(PROMPT).text == pair.target_text(PROMPT)


def test_a_wait_in_vain_ends() -> None:
    with made() as pair:
        asking = pair.edge.submit(PROMPT)
        pair.edge.kill()
        with pytest.raises(TimeoutError, match=r"did not come within 3600 s") as raised:
            asking.answer()
    assert "SimulatedEdge.wait_until at edge.py" in str(raised.value)
    assert '"kind":"killed"' in str(raised.value)


def test_every_way_between_edges_and_verifiers_is_a_link() -> None:
    with made(edges=2, verifiers=[VerifierSettings(), VerifierSettings()]) as fleet:
        assert sorted(fleet.links) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        fleet.links[1, 0].cut()
        answers = [edge.ask(PROMPT) for edge in fleet.edges]
        assert {answer.text for answer in answers} == {fleet.target_text(PROMPT)}
        told = {event.place for event in fleet.events if event.kind == "connected"}
        assert {"edge0-verifier0", "edge1-verifier1"} <= told
        assert "edge1-verifier0" not in told


def test_what_is_to_happen_later_may_fail_and_is_told_at_the_end() -> None:
    def broken() -> None:
        raise ValueError("a mistake of the test")

    def run() -> None:
        with made() as pair:
            pair.after("10ms", broken)
            pair.edge.ask(PROMPT, max_tokens=4)

    with pytest.raises(ExceptionGroup, match="nobody took") as raised:
        run()
    assert raised.group_contains(ValueError, match="a mistake of the test")


@dataclass(frozen=True)
class Cheat:
    """A drafter of the user's own: it knows the target."""

    target: ToyTarget
    name: str = "cheat"

    def open(self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings) -> "Cheat":
        return self

    def prepare(self, text: Sequence[TokenId]) -> bool:
        return False

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        return self.target.run(text, limit)

    def close(self) -> None:
        pass


def test_a_drafter_of_the_user_s_own_takes_the_time_it_is_said_to_take() -> None:
    def tokens_per_s(**parts: Any) -> float:
        with made(target=ToyTarget(), **parts) as pair:
            answer = pair.edge.ask(PROMPT)
            assert answer.text == pair.target_text(PROMPT)
            assert answer.statistics.acceptance_probability in {0.0, 1.0}
            return answer.statistics.tokens_per_s

    cheat = Cheat(ToyTarget())
    fast = tokens_per_s(draft=cheat, draft_length=8)
    slow = tokens_per_s(draft=TimedDrafter(drafter=cheat, token_s=0.5), draft_length=8)
    none = tokens_per_s(draft=None)
    assert fast > 1.5 * none
    assert slow == pytest.approx(none, rel=0.1)


def test_a_blocking_call_in_a_coroutine_says_what_to_write() -> None:
    with made() as pair:

        async def wrong() -> None:
            pair.edge.ask(PROMPT)

        async def right() -> str:
            answer = await asyncio.to_thread(pair.edge.ask, PROMPT)
            return answer.text

        with pytest.raises(RuntimeError, match=r"await asyncio\.to_thread"):
            asyncio.run(wrong())
        assert asyncio.run(right()) == pair.target_text(PROMPT)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"edges": 0}, "edges: got 0, expected 1 to 64"),
        ({"verifiers": 65}, "verifiers: got 65"),
        ({"edge": 2}, "world 'edge' is not known; did you mean 'edges'"),
        ({"draft_length": -1}, "draft_length: got -1"),
        (
            {"edges": [EdgeSettings(requests=(Request(prompt=(TokenId(1),), max_tokens=1),))]},
            "edges: got requests=",
        ),
        ({"edges": "2"}, "edges: got '2', expected 1 to 64"),
        ({"verifiers": 2.5}, "verifiers: got 2.5, expected 1 to 64"),
        ({"draft_length": "4"}, "draft_length: got '4', expected 0 to 4096"),
        ({"draft": 0.9}, "draft: got 0.9, expected what --draft takes"),
        ({"target": 5}, "target: got 5, expected a model"),
        ({"target": "/nowhere/model"}, "/nowhere/model"),
    ],
)
def test_wrong_parts_are_told_by_name_when_the_world_is_made(
    parts: dict[str, Any], told: str
) -> None:
    with pytest.raises(PacelineError, match=told.replace("(", r"\(")), made(**parts):
        pass


def test_what_breaks_a_program_is_told_once_and_as_it_is() -> None:
    wrong = made(draft="/nowhere/model.gguf")
    with pytest.raises(PacelineError, match=r"/nowhere/model\.gguf"), wrong as pair:
        pair.edge.ask(PROMPT)


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "told"),
    [("", 8, "prompt: it has 0 tokens"), (PROMPT, 0, "max_tokens: got 0")],
)
def test_what_cannot_be_asked_fails_alone(prompt: str, max_tokens: int, told: str) -> None:
    with made() as pair:
        with pytest.raises(AskingFailedError, match=f"edge0: {told}"):
            pair.edge.ask(prompt, max_tokens=max_tokens)
        assert pair.edge.ask(PROMPT).text == pair.target_text(PROMPT)


@pytest.mark.parametrize("duration", [-1, float("nan"), "-1s"])
def test_time_does_not_go_back(duration: float | str) -> None:
    with made() as pair:
        for call in (pair.wait, lambda value: pair.after(value, pair.link.cut)):
            with pytest.raises(ConfigError, match="duration: got"):
                call(duration)


def test_draft_length_stays_and_settings_of_an_edge_hold() -> None:
    chosen = EdgeSettings(
        requests=(),
        is_open=True,
        draft=DraftSettings(acceptance=1.0),
        drafting=DraftingSettings(draft_length=2),
    )
    with (
        made(edges=[chosen]) as one,
        made(draft=DraftSettings(acceptance=1.0), draft_length=2) as two,
    ):
        assert one.edge.ask(PROMPT).statistics == two.edge.ask(PROMPT).statistics


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"target": ToyTarget()}, "target: got ToyTarget, expected the name of a model"),
        ({"draft": DraftSettings()}, "draft: got DraftSettings, expected what --draft takes"),
        ({"edges": [EdgeSettings(requests=(), is_open=True)]}, "edges, verifiers: got settings"),
    ],
)
def test_parts_of_virtual_time_are_refused_in_real_time(parts: dict[str, Any], told: str) -> None:
    with network("lan", time="real") as scene, pytest.raises(ConfigError, match=told):
        scene.world(**parts)
