"""An edge's own controller on a toy verifier: draft length follows the link, the text does not change. Virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from harness.drafters import toy_drafter
from harness.toy_client import PROMPT, TARGET, client_of, generation, surroundings
from harness.toy_cloud import LIMITS, ToyCloud
from harness.virtual_time import run_virtually

from edge.controller import Activity, Controller
from edge.steering import LengthPolicy, Steering
from paceline.beside import running_beside
from paceline.client.client import Client
from paceline.client.generation import Generation
from paceline.client.outcome import EndReason, Statistics
from paceline.client.settings import DraftingSettings
from paceline.control.drafting import Bounds, Drafting
from paceline.errors import PacelineError
from paceline.messages import Proposal
from paceline.tokens import TokenId

COUNT = 1000
EXPECTED = TARGET.run(PROMPT, COUNT)
ROOMY = replace(LIMITS, window=128, context_length=8192, max_tokens=4096)


@dataclass(kw_only=True)
class Scene:
    cloud: ToyCloud
    client: Client
    steering: Steering
    sentences: list[str] = field(default_factory=list)

    @property
    def num_proposals(self) -> int:
        return sum(isinstance(m, Proposal) and bool(m.tokens) for m in self.cloud.received)


@asynccontextmanager
async def steered(
    *, start: int = 8, policy: LengthPolicy = LengthPolicy.CLOSED_FORM, accuracy: float = 1.0
) -> AsyncIterator[Scene]:
    async with ToyCloud(target=TARGET, one_way_s=0.01, limits=ROOMY, race=False) as cloud:
        activity, sentences = Activity(), list[str]()
        drafter = toy_drafter(TARGET, accuracy=accuracy)
        drafting = DraftingSettings(draft_length=start)
        around = surroundings([cloud], drafter=drafter, drafting=drafting, call_s=0.1)
        around.observer = activity
        client = client_of(around)
        steering = Steering(
            start=Drafting(draft_length=start, window=64),
            length_policy=policy,
            bounds=Bounds(),
            explain=sentences.append,
        )
        controller = Controller(client, steering=steering, activity=activity)
        async with running_beside(controller.run):
            yield Scene(cloud=cloud, client=client, steering=steering, sentences=sentences)


async def _read(answer: Generation, scene: Scene, *, num_proposals: int) -> list[TokenId]:
    """Read until so many more proposals have arrived, or to the end."""
    enough = scene.num_proposals + num_proposals
    tokens: list[TokenId] = []
    async for piece in answer:
        tokens.extend(piece.token_ids)
        if scene.num_proposals >= enough:
            break
    return tokens


def test_the_length_follows_a_link_that_steps_away_and_back() -> None:
    async def main() -> None:
        async with steered() as scene:
            lengths: list[int] = []
            tokens: list[TokenId] = []
            async with generation(scene.client._surroundings, max_tokens=COUNT) as answer:
                for one_way_s in (0.01, 0.1, 0.01):
                    scene.cloud.one_way_s = one_way_s
                    tokens += await _read(answer, scene, num_proposals=50)
                    lengths.append(scene.client.drafting.draft_length)
                tokens += await _read(answer, scene, num_proposals=COUNT)
            assert tuple(tokens) == EXPECTED
            near, far, back = lengths
            assert far >= near + 3
            assert abs(back - near) <= 1
            assert len(scene.sentences) >= 4
            assert all("round trip" in sentence for sentence in scene.sentences)

    run_virtually(main())


def test_what_is_told_to_be_fixed_stays() -> None:
    async def main() -> None:
        async with steered(start=5, policy=LengthPolicy.FIXED) as scene:
            async with generation(scene.client._surroundings, max_tokens=300) as answer:
                assert (await answer.complete()).token_ids == EXPECTED[:300]
            assert scene.client.drafting.draft_length == 5
            assert scene.sentences == []

    run_virtually(main())


def test_guesses_that_hardly_ever_hold_are_made_less_deep_but_never_given_up() -> None:
    async def main() -> None:
        async with steered(accuracy=0.2) as scene:
            scene.cloud.one_way_s = 0.1
            async with generation(scene.client._surroundings, max_tokens=300) as answer:
                assert (await answer.complete()).token_ids == EXPECTED[:300]
            assert 1 <= scene.client.drafting.draft_length <= 3

    run_virtually(main())


def test_nothing_is_decided_without_something_new() -> None:
    async def main() -> None:
        async with steered(start=40) as scene:
            async with generation(scene.client._surroundings, max_tokens=100) as answer:
                await answer.complete()
            controller = Controller(scene.client, steering=scene.steering, activity=Activity())
            controller.tick()
            length = scene.steering.drafting.draft_length
            for _ in range(5):
                controller.tick()
                assert scene.steering.drafting.draft_length == length

    run_virtually(main())


@dataclass(kw_only=True)
class Follower:
    heard: list[str] = field(default_factory=list)

    def generation_started(self) -> None:
        self.heard.append("started")

    def generation_ended(
        self, *, statistics: Statistics, reason: EndReason | None, error: PacelineError | None
    ) -> None:
        self.heard.append(str(reason))


def test_activity_passes_on_what_it_hears() -> None:
    async def main() -> None:
        follower = Follower()
        activity = Activity(follower)
        for _ in range(2):
            activity.generation_started()
        for _ in range(2):
            assert activity.is_busy
            await activity.busy()
            activity.generation_ended(statistics=Statistics(), reason=EndReason.STOP, error=None)
        assert not activity.is_busy
        assert follower.heard == ["started", "started", "stop", "stop"]

    run_virtually(main())


def test_work_that_fails_ends_what_it_goes_on_beside() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        try:
            async with running_beside(fail):
                await asyncio.Event().wait()
        except ZeroDivisionError:
            return
        raise AssertionError

    run_virtually(main())
