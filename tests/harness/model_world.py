"""Worlds whose logs must be the same everywhere: one of tiny real models in trouble, and some of fault schedules."""

import hashlib
from functools import partial
from pathlib import Path

import torch
from harness.models import llama_config, save_tiny, tiny_model, tiny_tokenizer

from paceline.tokens import TokenId
from simulator.cost import StepCost
from simulator.notation import parse_network
from simulator.virtual.draft import RealDraftSettings
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.events import EventLog
from simulator.virtual.faults import drawn
from simulator.virtual.model import ModelSettings
from simulator.virtual.real_target import RealTarget
from simulator.virtual.trouble import make_trouble
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import World, WorldSettings, run

SEEDS = (1, 2, 3)
"""Of fault schedules."""

NUM_TOKENS = 32
NOISE = 0.04
"""Of the draft's weights, as part of the target's: it draws the target's token more often than not."""


def save_pair(folder: Path) -> tuple[str, str]:
    """Write a target and a draft that resembles it; return their folders."""
    config = llama_config()
    target = save_tiny(folder / "target", config=config, seed=5)
    noisy = tiny_model(config, seed=5)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(6)
        for weight in noisy.parameters():
            weight.add_(torch.randn_like(weight), alpha=NOISE * float(weight.std(correction=0)))
    noisy.save_pretrained(folder / "draft")
    tiny_tokenizer().save_pretrained(folder / "draft")
    return str(target), str(folder / "draft")


def settings_of(pair: tuple[str, str], *, seed: int = 3) -> WorldSettings:
    """Two edges, one greedy and one at temperature 0.8, and two verifiers."""
    target, draft = pair
    return WorldSettings(
        edges=tuple(
            EdgeSettings(
                requests=tuple(
                    Request(
                        prompt=tuple(TokenId(10 + number + i) for i in range(5 + 8 * index)),
                        max_tokens=NUM_TOKENS,
                        seed=17 * number + index,
                        temperature=0.8 * number,
                    )
                    for index in range(2)
                ),
                draft=RealDraftSettings(model=draft),
            )
            for number in range(2)
        ),
        verifiers=(
            VerifierSettings(model=ModelSettings(cost=StepCost(fixed_s=0.02, per_row_s=0.001))),
        )
        * 2,
        target=RealTarget(model=target),
        network=parse_network("rtt=60ms,jitter=5ms,loss=1%"),
        seed=seed,
    )


async def trouble(world: World) -> None:
    """Cut one edge's link, then kill the verifier that serves both, and start it again."""
    await world.edges[0].has(6)
    world.path(0, 0).cut()
    await world.edges[1].has(12)
    world.verifiers[0].kill()
    await world.edges[1].has(16)
    world.verifiers[0].start(world.group)


def digests(pair: tuple[str, str]) -> list[str]:
    """Return SHA-256 of the logs of worlds with faults: toy ones, and one of real models."""
    schedules = [drawn(seed) for seed in SEEDS]
    worlds = [
        partial(
            run,
            schedule.world,
            script=partial(make_trouble, schedule=schedule, coverage=None),
        )
        for schedule in schedules
    ]
    worlds.append(partial(run, settings_of(pair), script=trouble))
    found = []
    for world in worlds:
        log = EventLog()
        world(log=log)
        assert len(log) > 100
        found.append(hashlib.sha256("\n".join(log.lines()).encode()).hexdigest())
    return found
