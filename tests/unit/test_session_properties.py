"""Every interleaving of proposals, commits, delays, cuts and resumes keeps the rules of paceline/session/__init__.py."""

import random
from collections import Counter

import pytest
from harness.session_world import World
from hypothesis import event, given
from hypothesis import strategies as st


@pytest.mark.slow
@given(data=st.data())
def test_every_interleaving_keeps_the_rules(data: st.DataObject) -> None:
    world = World(lambda below: data.draw(st.integers(0, below - 1)))
    for _ in range(data.draw(st.integers(0, 60))):
        world.move()
    world.heal()
    for name in world.seen:
        event(name)


@pytest.mark.slow
def test_long_random_walks_keep_the_rules() -> None:
    seen: Counter[str] = Counter()
    for seed in range(120):
        world = World(random.Random(seed).randrange)
        try:
            for _ in range(200):
                world.move()
            world.heal()
        except Exception as error:
            error.add_note(f"World(random.Random({seed}).randrange)")
            raise
        seen += Counter(set(world.seen.elements()))
    # The walk is worth something only if it gets everywhere; numbers of seeds that did.
    rare = {name: count for name, count in seen.items() if count < 8}
    assert not rare, f"the walk hardly meets {rare}: change its weights"
    assert len(seen) == 18
