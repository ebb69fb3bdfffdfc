"""Anything may happen at any time: the text is the same, and nothing is left behind."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from harness.drafters import toy_drafter
from harness.toy_client import PROMPT, TARGET, generation, place, surroundings
from harness.toy_cloud import ToyCloud
from harness.virtual_time import run_virtually
from hypothesis import given
from hypothesis import strategies as st

from paceline.client.runner import Surroundings
from paceline.client.settings import DraftingSettings, RetryPolicy

COUNT = 40
EXPECTED = TARGET.run(PROMPT, COUNT)

ASSIGNMENTS = (
    (place(0),),
    (place(1),),
    (place(0), place(1)),
    (place(1), place(0)),
)

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["cut", "kill", "start", "drain", "reach", "assign"]),
        st.integers(0, 7),
        st.floats(0.0, 0.3, allow_nan=False),
    ),
    max_size=12,
)


@pytest.mark.slow
@given(
    events=EVENTS,
    accuracy=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    one_way_s=st.sampled_from([0.0, 0.03, 0.125]),
    race=st.booleans(),
    drafting=st.builds(
        DraftingSettings,
        draft_length=st.integers(0, 20),
        window=st.integers(1, 64),
        tokens_per_message=st.integers(1, 6),
    ),
)
def test_the_text_survives(
    events: list[tuple[str, int, float]],
    accuracy: float,
    one_way_s: float,
    race: bool,
    drafting: DraftingSettings,
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            clouds = [
                await stack.enter_async_context(
                    ToyCloud(target=TARGET, one_way_s=one_way_s, race=race)
                )
                for _ in range(2)
            ]
            around = surroundings(
                clouds,
                drafter=toy_drafter(TARGET, accuracy=accuracy),
                drafting=drafting,
                retry=RetryPolicy(give_up_after_s=600.0),
            )
            async with asyncio.TaskGroup() as group:
                trouble = group.create_task(_make_trouble(clouds, events, around))
                async with generation(around, max_tokens=COUNT) as answer:
                    result = await answer.complete()
                trouble.cancel()
            assert result.token_ids == EXPECTED
            statistics = result.statistics
            assert statistics.accepted <= statistics.judged <= statistics.drafted

    run_virtually(main())


async def _make_trouble(
    clouds: list[ToyCloud], events: list[tuple[str, int, float]], around: Surroundings
) -> None:
    """Let things happen, then leave everything running."""
    for action, number, after_s in events:
        await asyncio.sleep(after_s)
        cloud = clouds[number % 2]
        match action:
            case "cut":
                cloud.cut()
            case "kill":
                cloud.kill()
            case "start":
                cloud.is_up = True
            case "drain":
                cloud.drain()
            case "reach":
                around.drafting = DraftingSettings(
                    draft_length=(0, 1, 5, 20)[number // 2], window=(1, 64)[number % 2]
                )
                around.steer()
            case "assign":
                around.verifiers = ASSIGNMENTS[number % 4]
                around.steer()
    for cloud in clouds:
        cloud.is_up = True
