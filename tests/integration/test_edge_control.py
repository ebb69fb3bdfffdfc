"""An edge with a real broker and real verifiers: it follows, it goes on alone, it moves; the text is always the same."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiomqtt
import pytest
from harness import endpoint
from harness.brokers import EmbeddedRig, running_rig
from harness.control import eventually, here, quick
from harness.event_loop import run_async
from harness.models import llama_config, save_tiny, tiny_llama, tiny_model
from harness.processes import free_port
from harness.raw_edge import serving
from harness.reference import reference_output
from harness.relay import threaded_relay

from cloud.scheduler import SchedulerSettings
from cloud.server import Verifier
from cloud.worker import WorkerSettings
from edge.agent import Agent, open_agent
from edge.control_options import ControlSettings
from edge.options import AgentSettings
from edge.steering import LengthPolicy
from paceline.client.generation import Generation
from paceline.client.settings import ConnectionSettings, DraftingSettings, RetryPolicy
from paceline.codec.control import encode_control
from paceline.control.messages import EdgePolicy, EdgeTelemetry, Presence
from paceline.engine.engine import Engine
from paceline.mqtt.link import ControlLink, control_link
from paceline.sampling.settings import SamplingSettings
from paceline.settings import Address
from paceline.tokens import TokenId
from paceline.topics import EDGE_POLICY, EDGE_PRESENCE, EDGE_TELEMETRY, ORCHESTRATOR_PRESENCE
from simulator.relay import CutMode

EDGE = "kiosk-7"
PROMPT = [TokenId(token) for token in (5, 17, 99, 200, 31, 8)]
COUNT = 300
ENDLESS = SamplingSettings(
    temperature=0.8,
    seed=1234,
    logit_bias=tuple((token, -1000.0) for token in endpoint.tiny_tokenizer().stop_tokens),
)
"""No text ends by itself."""

WAITING = SchedulerSettings(race=False, patience_s=30.0)
"""The verifier waits for drafts, so that what is in flight is what the edge wants there."""
UNHURRIED = WorkerSettings(min_step_s=0.02)
NOBODY = Address(host="127.0.0.1", port=free_port())


@pytest.fixture(scope="module")
def folder() -> Iterator[str]:
    with TemporaryDirectory() as path:
        yield str(save_tiny(Path(path)))


@pytest.fixture(scope="module")
def expected(folder: str) -> tuple[TokenId, ...]:
    """The target's own text, by the plain loop."""
    return tuple(
        reference_output(
            tiny_model(llama_config()),
            PROMPT,
            sampling=ENDLESS,
            max_tokens=COUNT,
            stop_tokens=(),
            vocabulary_size=endpoint.tiny_tokenizer().vocabulary_size,
        )
    )


def other_weights() -> Engine:
    """An engine with the same tokenizer."""
    engine = tiny_llama(seed=3)
    engine.identity = replace(
        engine.identity, tokenizer_fingerprint=endpoint.tiny_tokenizer().fingerprint
    )
    return engine


class Orchestrator:
    """What a test says and hears in the orchestrator's place."""

    def __init__(self, link: ControlLink) -> None:
        self.link = link
        self.telemetry: list[EdgeTelemetry] = []
        self.presences: list[Presence] = []
        self._revision = 0

    async def listen(self) -> None:
        async for received in self.link.messages():
            match received.value:
                case EdgeTelemetry():
                    self.telemetry.append(received.value)
                case Presence():
                    self.presences.append(received.value)

    def is_here(self) -> None:
        self.link.publish(ORCHESTRATOR_PRESENCE, "", here(99))

    def orders(self, draft_length: int, *verifiers: Address | str, **fields: Any) -> EdgePolicy:
        self._revision = fields.pop("revision", self._revision + 1)
        policy = EdgePolicy(
            revision=self._revision,
            draft_length=draft_length,
            window=max(1, 2 * draft_length),
            verifiers=tuple(map(str, verifiers)),
            **fields,
        )
        self.link.publish(EDGE_POLICY, EDGE, policy)
        return policy

    async def hears(self, revision: int) -> EdgeTelemetry:
        """Return the first report of an edge that follows this policy."""
        await eventually(lambda: any(t.gauges.policy_revision == revision for t in self.telemetry))
        return next(t for t in self.telemetry if t.gauges.policy_revision == revision)


@dataclass(kw_only=True)
class Scene:
    rig: EmbeddedRig
    orchestrator: Orchestrator
    stack: AsyncExitStack
    folder: str

    async def edge(
        self, *verifiers: Address, policy: LengthPolicy = LengthPolicy.CLOSED_FORM, start: int = 2
    ) -> Agent:
        """Open an edge that drafts with the target's own weights: every guess is right."""
        settings = AgentSettings(
            verifiers=verifiers,
            target=self.folder,
            draft=self.folder,
            drafting=DraftingSettings(draft_length=start, tokens_per_message=4),
            length_policy=policy,
            connection=ConnectionSettings(retry=RetryPolicy(give_up_after_s=10.0)),
            threads=1,
        )
        control = ControlSettings(
            broker=quick(self.rig.address), edge_id=EDGE, telemetry_interval_s=1.0
        )
        return await self.stack.enter_async_context(open_agent(settings, control=control))

    async def verifier(self) -> Verifier:
        return await self.stack.enter_async_context(
            serving(endpoint.tiny_engine(), scheduler=WAITING, worker=UNHURRIED)
        )


@asynccontextmanager
async def scene(folder: str) -> AsyncIterator[Scene]:
    rig = EmbeddedRig()
    async with (
        running_rig(rig),
        asyncio.TaskGroup() as group,
        control_link(
            quick(rig.address), name="orchestrator", subscriptions=(EDGE_TELEMETRY, EDGE_PRESENCE)
        ) as link,
    ):
        orchestrator = Orchestrator(link)
        listener = group.create_task(orchestrator.listen())
        await link.connected()
        async with AsyncExitStack() as stack:
            yield Scene(rig=rig, orchestrator=orchestrator, stack=stack, folder=folder)
        listener.cancel()


def generation(agent: Agent, *, count: int = COUNT) -> Generation:
    return agent.client.generate(prompt_ids=PROMPT, max_tokens=count, sampling=ENDLESS)


async def read(answer: Generation, *, until: int = COUNT) -> None:
    async for piece in answer:
        if piece.position - len(PROMPT) + 1 >= until:
            break


def depth(*verifiers: Verifier) -> int:
    """How many drafted tokens lie at the verifiers now, or are known there to be under way no more."""
    return max(
        (entry.session.num_live_nodes for v in verifiers for entry in v.registry.entries),
        default=0,
    )


@pytest.mark.slow
def test_a_policy_deepens_what_a_running_edge_sends_and_the_broker_may_go(
    folder: str, expected: tuple[TokenId, ...]
) -> None:
    async def main() -> None:
        async with scene(folder) as here_:
            verifier = await here_.verifier()
            relay = here_.stack.enter_context(threaded_relay(verifier.address, rtt_s=0.1))
            here_.orchestrator.is_here()
            here_.orchestrator.orders(2)
            agent = await here_.edge(relay.address)
            await here_.orchestrator.hears(1)
            async with generation(agent) as answer:
                await read(answer, until=40)
                assert agent.client.drafting.draft_length == 2  # though this link wants more
                loop = asyncio.get_running_loop()
                deepest = 0
                here_.orchestrator.orders(24, explanation="the test wants it")
                told_s = loop.time()
                async for _ in answer:
                    deepest = max(deepest, depth(verifier))
                    if deepest > 8:
                        break
                assert loop.time() - told_s < 2.0
                report = await here_.orchestrator.hears(2)
                assert report.gauges.draft_length == 24
                assert report.gauges.num_generations == 1
                assert 0.1 <= report.gauges.rtt_s < 0.2
                assert report.gauges.verifier == str(relay.address)

                await here_.rig.stop()
                # Its own controller takes over.
                await eventually(lambda: agent.client.drafting.draft_length != 24)
                result = await answer.complete()
            assert result.token_ids == expected
            assert result.statistics.reconnects == 0

    run_async(main())


@pytest.mark.slow
def test_a_policy_moves_the_next_generation_and_saves_the_one_whose_verifier_dies(
    folder: str, expected: tuple[TokenId, ...]
) -> None:
    async def main() -> None:
        async with scene(folder) as here_:
            first, second = await here_.verifier(), await here_.verifier()
            relay = here_.stack.enter_context(threaded_relay(first.address))
            here_.orchestrator.is_here()
            agent = await here_.edge(relay.address)
            async with generation(agent) as running:
                await read(running, until=20)
                # Unreachable; of other weights; then one that will do.
                stranger = await here_.stack.enter_async_context(serving(other_weights()))
                here_.orchestrator.orders(8, NOBODY, stranger.address, second.address)
                await eventually(lambda: agent.client.verifiers[0] == second.address)
                assert agent.client.verifiers == (second.address, relay.address)
                async with generation(agent) as following:
                    await read(following, until=10)
                    assert len(second.registry.entries) == 1
                    assert len(first.registry.entries) == 1  # a running session stays
                    await asyncio.to_thread(relay.cut, CutMode.RESET)
                    await read(running)
                    await read(following)
                assert running.result.token_ids == expected
                assert following.result.token_ids == expected
                assert running.statistics.reconnects == 1
                assert following.statistics.reconnects == 0
            await eventually(
                lambda: (
                    {str(second.address), str(NOBODY)}
                    <= {one.address for one in here_.orchestrator.telemetry[-1].verifiers}
                )
            )
            distances = {v.address: v.rtt_s for v in here_.orchestrator.telemetry[-1].verifiers}
            assert distances[str(second.address)] > 0.0
            assert distances[str(NOBODY)] == 0.0

    run_async(main())


@pytest.mark.slow
def test_what_cannot_be_followed_is_counted_and_stops_nothing(
    folder: str, expected: tuple[TokenId, ...]
) -> None:
    async def main() -> None:
        async with scene(folder) as here_:
            verifier = await here_.verifier()
            orchestrator = here_.orchestrator
            orchestrator.is_here()
            orchestrator.orders(6, revision=5)
            agent = await here_.edge(verifier.address)
            await orchestrator.hears(5)  # retained, and followed from the start
            async with generation(agent, count=120) as answer:
                await read(answer, until=20)
                orchestrator.orders(20, revision=4)
                async with aiomqtt.Client(
                    here_.rig.address.host, here_.rig.address.port, identifier="vandal"
                ) as vandal:
                    for payload in (b"\xff\xff", b"", b"\x08\x01\x10\xff\xff\x7f"):
                        await vandal.publish(EDGE_POLICY.name(EDGE), payload, qos=1)
                    orchestrator.orders(0, revision=7)
                    await orchestrator.hears(7)
                    result = await answer.complete()
            assert result.token_ids == expected[:120]
            assert orchestrator.telemetry[-1].gauges.draft_length == 0
            assert orchestrator.telemetry[-1].counters.malformed == 2  # the empty one withdraws
            assert all(t.gauges.draft_length != 20 for t in orchestrator.telemetry)

    run_async(main())


@pytest.mark.slow
def test_a_broker_that_forgot_the_orchestrator_between_two_looks_leaves_the_edge_to_itself(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.control.IDLE_S", 3600.0)  # it looks at the link when messages come

    async def main() -> None:
        async with scene(folder) as here_:
            verifier = await here_.verifier()
            # Of an orchestrator that is gone without a word, as with its machine.
            async with aiomqtt.Client(
                here_.rig.address.host, here_.rig.address.port, identifier="past"
            ) as past:
                name, payload = ORCHESTRATOR_PRESENCE.name(), encode_control(here(99))
                await past.publish(name, payload, qos=1, retain=True)
            here_.orchestrator.orders(6)
            agent = await here_.edge(verifier.address)
            await eventually(lambda: agent.gauges().policy_revision == 1)
            await here_.rig.stop()
            await here_.rig.start()
            await eventually(lambda: agent.gauges().policy_revision == 0)
            assert agent.gauges().draft_length == 6

    run_async(main())


@pytest.mark.slow
def test_an_edge_says_that_it_is_there_what_it_does_and_that_it_goes(folder: str) -> None:
    async def main() -> None:
        async with scene(folder) as here_:
            verifier = await here_.verifier()
            async with AsyncExitStack() as stack:
                outer, here_.stack = here_.stack, stack
                agent = await here_.edge(verifier.address, policy=LengthPolicy.FIXED, start=3)
                orchestrator = here_.orchestrator
                orchestrator.is_here()
                policy = orchestrator.orders(9)
                async with generation(agent) as answer:
                    await read(answer, until=30)
                await eventually(lambda: orchestrator.telemetry[-1].counters.num_generations == 1)
                here_.stack = outer
            reports = orchestrator.telemetry
            assert [t.sequence for t in reports] == [*range(1, len(reports) + 1)]
            last = reports[-1]
            assert last.tokenizer_fingerprint == agent.tokenizer.fingerprint
            assert last.drafter
            assert last.counters.committed == answer.statistics.committed
            assert last.counters.drafted == answer.statistics.drafted
            # Fixed: the policy was heard, and followed in all but its length.
            assert policy.draft_length == 9
            assert (last.gauges.draft_length, last.gauges.policy_revision) == (3, policy.revision)
            await eventually(lambda: len(orchestrator.presences) >= 2)
            assert [p.online for p in orchestrator.presences] == [True, False]
            assert {p.incarnation for p in orchestrator.presences} == {last.incarnation}

    run_async(main())


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_waited_for_by_nobody(
    folder: str, expected: tuple[TokenId, ...]
) -> None:
    async def main() -> None:
        async with scene(folder) as here_:
            verifier = await here_.verifier()
            await here_.rig.stop()
            agent = await here_.edge(verifier.address)
            async with generation(agent, count=150) as answer:
                await read(answer, until=30)
                await here_.rig.start()
                here_.orchestrator.is_here()
                here_.orchestrator.orders(5)
                await here_.orchestrator.hears(1)
                result = await answer.complete()
            assert result.token_ids == expected[:150]

    run_async(main())
