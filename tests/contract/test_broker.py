"""What the control plane expects of a broker and of the link to it.

Each test runs with amqtt, embedded, with mosquitto, and with the simulated one in virtual time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
from harness.brokers import (
    MOSQUITTO,
    BrokerRig,
    EmbeddedRig,
    MosquittoRig,
    VirtualRig,
    rig_link,
    running_rig,
)
from harness.control import (
    away,
    eventually,
    here,
    policy,
    status,
    telemetry,
    until,
)
from harness.event_loop import run_async

from paceline.codec.control import MAX_PAYLOAD_BYTES
from paceline.mqtt.lanes import Letter
from paceline.mqtt.link import ControlLink, Will
from paceline.mqtt.transport import Transport
from paceline.topics import (
    EDGE_POLICY,
    EDGE_PRESENCE,
    EDGE_TELEMETRY,
    ORCHESTRATOR_PRESENCE,
    VERIFIER_STATUS,
    Topic,
)
from simulator.virtual.loop import run_virtually

Body = Callable[[BrokerRig], Awaitable[None]]
Run = Callable[[Body], None]


@pytest.fixture(params=["amqtt", "mosquitto", "simulated"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a body with a broker."""
    if request.param == "mosquitto" and MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")

    async def main(body: Body) -> None:
        rig = EmbeddedRig() if request.param == "amqtt" else MosquittoRig(tmp_path)
        async with running_rig(rig):
            await body(rig)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task outlived its owner"

    async def virtual_main(body: Body) -> None:
        async with asyncio.TaskGroup() as group, running_rig(VirtualRig(group)) as rig:
            await body(rig)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task outlived its owner"

    def run_body(body: Body) -> None:
        if request.param == "simulated":
            run_virtually(virtual_main(body))
        else:
            run_async(main(body))

    return run_body


def edge_link(
    rig: BrokerRig,
    edge: str,
    *,
    incarnation: int = 1,
    subscriptions: tuple[Topic, ...] = (),
    transport: Transport | None = None,
) -> AbstractAsyncContextManager[ControlLink]:
    """Return the link of an edge, as the edge itself opens it."""
    return rig_link(
        rig,
        name=f"edge-{edge}",
        will=Will(topic=EDGE_PRESENCE, member=edge, value=away(incarnation)),
        subscriptions=subscriptions,
        transport=transport,
    )


def test_what_is_retained_reaches_those_who_come_later(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        async with rig_link(rig, name="orchestrator") as orchestrator:
            await orchestrator.connected()
            for revision in (1, 2, 3):
                orchestrator.publish(EDGE_POLICY, "kiosk-7", policy(revision))
                orchestrator.publish(EDGE_POLICY, "kiosk-8", policy(revision))
        own = EDGE_POLICY.of("kiosk-7")
        async with edge_link(rig, "kiosk-7", subscriptions=(own,)) as edge:
            received = await anext(edge.messages())
            assert edge.statistics.received == 1
            assert (received.topic, received.member) == (EDGE_POLICY, "kiosk-7")
            assert received.value == policy(3)

    run(body)


def test_what_is_cleared_is_gone(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        async with (
            rig_link(rig, name="reader", subscriptions=(EDGE_POLICY,)) as reader,
            rig_link(rig, name="orchestrator") as orchestrator,
        ):
            messages = reader.messages()
            # Else a value could come twice: because it is retained, and because it is said.
            await reader.connected()
            orchestrator.publish(EDGE_POLICY, "kiosk-7", policy(1))
            await until(messages, policy(1))
            orchestrator.publish(EDGE_POLICY, "kiosk-7", None)
            received = await anext(messages)
            assert (received.member, received.value) == ("kiosk-7", None)
            orchestrator.publish(EDGE_POLICY, "kiosk-8", policy(2))
            await until(messages, policy(2))
        async with rig_link(rig, name="late", subscriptions=(EDGE_POLICY,)) as late:
            assert (await anext(late.messages())).member == "kiosk-8"

    run(body)


def test_messages_of_a_topic_arrive_in_order(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        async with (
            rig_link(rig, name="reader", subscriptions=(EDGE_POLICY,)) as reader,
            rig_link(rig, name="orchestrator") as orchestrator,
        ):
            await reader.connected()
            await orchestrator.connected()
            for revision in range(1, 301):
                orchestrator.publish(EDGE_POLICY, "kiosk-7", policy(revision))
                await asyncio.sleep(0)
            values = await until(reader.messages(), policy(300))
            revisions = [getattr(value, "revision", 0) for value in values]
            assert revisions == sorted(set(revisions))
            sums = orchestrator.statistics
            assert sums.published + sums.dropped >= 300 - 8  # those the broker still answers for

    run(body)


def test_a_killed_connection_is_told_by_the_will_and_a_new_one_by_ourselves(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        async with (
            rig.way() as way,
            rig_link(rig, name="reader", subscriptions=(EDGE_PRESENCE,)) as reader,
            edge_link(rig, "kiosk-7", transport=way.transport) as edge,
        ):
            messages = reader.messages()
            edge.publish(EDGE_PRESENCE, "kiosk-7", here())
            await until(messages, here())
            way.cut()
            await until(messages, away())
            await way.heal()
            await until(messages, here())

    run(body)


def test_who_leaves_says_so_once(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        async with rig_link(
            rig, name="reader", subscriptions=(EDGE_PRESENCE, ORCHESTRATOR_PRESENCE)
        ) as reader:
            messages = reader.messages()
            await reader.connected()
            async with edge_link(rig, "kiosk-7") as edge:
                edge.publish(EDGE_PRESENCE, "kiosk-7", here())
                assert (await anext(messages)).value == here()
            async with rig_link(rig, name="orchestrator") as orchestrator:
                orchestrator.publish(ORCHESTRATOR_PRESENCE, "", here(77))
                assert await until(messages, here(77)) == [away(), here(77)]

    run(body)


def test_a_subscription_covers_all_members_of_its_topic_and_no_other(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        async with (
            rig_link(rig, name="reader", subscriptions=(EDGE_PRESENCE, VERIFIER_STATUS)) as reader,
            rig_link(rig, name="writer") as writer,
        ):
            await reader.connected()
            for number in range(20):
                writer.publish(EDGE_PRESENCE, f"edge-{number}", here())
                writer.publish(EDGE_POLICY, f"edge-{number}", policy(1))
                writer.publish(VERIFIER_STATUS, f"gpu.{number}", status(1))
            writer.publish(VERIFIER_STATUS, "last", status(2))
            seen = set()
            async for received in reader.messages():
                seen.add((received.topic, received.member))
                if received.value == status(2):
                    break
            expected = {(EDGE_PRESENCE, f"edge-{number}") for number in range(20)}
            expected |= {(VERIFIER_STATUS, f"gpu.{number}") for number in range(20)}
            assert seen == expected | {(VERIFIER_STATUS, "last")}

    run(body)


def test_a_broker_that_restarts_is_told_everything_again(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(rig: BrokerRig) -> None:
        async with (
            edge_link(rig, "kiosk-7", subscriptions=(EDGE_POLICY,)) as edge,
            rig_link(rig, name="orchestrator", subscriptions=(EDGE_PRESENCE,)) as orchestrator,
        ):
            presences, policies = orchestrator.messages(), edge.messages()
            edge.publish(EDGE_PRESENCE, "kiosk-7", here())
            orchestrator.publish(EDGE_POLICY, "kiosk-7", policy(1))
            await until(presences, here())
            await until(policies, policy(1))
            await rig.stop()
            await eventually(lambda: edge.statistics.attempts > 3 and not orchestrator.is_connected)
            edge.publish(EDGE_PRESENCE, "kiosk-7", here(2))
            await rig.start()
            await until(presences, here(2))
            await until(policies, policy(1))
            assert edge.statistics.connections == orchestrator.statistics.connections == 2

    with caplog.at_level("INFO", logger="paceline.mqtt"):
        run(body)
    lines = [record.message for record in caplog.records if record.name == "paceline.mqtt.link"]
    assert sorted(lines) == [
        *["broker found"] * 2,
        *["broker is back"] * 2,
        *["broker lost, trying on"] * 2,
    ]


@pytest.mark.slow
def test_a_flood_pushes_out_its_own_messages_only(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        async with (
            rig_link(
                rig, name="orchestrator", subscriptions=(EDGE_TELEMETRY, VERIFIER_STATUS)
            ) as orchestrator,
            rig_link(rig, name="quiet") as quiet,
            rig.raw("flood") as flood,
        ):
            await orchestrator.connected()
            await quiet.connected()
            quiet.publish(VERIFIER_STATUS, "gpu", status(1))
            quiet.publish(EDGE_TELEMETRY, "quiet", telemetry(1))
            payload = EDGE_TELEMETRY.encode(telemetry(2))
            say = partial(flood.publish, qos=0, retain=False)
            for number in range(5000):
                await say(EDGE_TELEMETRY.name("loud"), payload)
                if number % 10 == 0:
                    await say(EDGE_TELEMETRY.name("mad"), b"\xff" * 100)
                    await say(EDGE_TELEMETRY.name("mad"), bytes(MAX_PAYLOAD_BYTES + 1))
                await asyncio.sleep(0)
            quiet.publish(VERIFIER_STATUS, "gpu", status(2))
            await flood.publish(
                VERIFIER_STATUS.name("end"),
                VERIFIER_STATUS.encode(status(3)),
                qos=1,
                retain=False,
            )
            await eventually(lambda: orchestrator.statistics.received == 6004)
            messages = orchestrator.messages()
            assert (await anext(messages)).value == status(2)
            assert (await anext(messages)).value == status(3)
            quiet.publish(EDGE_TELEMETRY, "last", telemetry(3))
            values = await until(messages, telemetry(3))
            assert values.count(telemetry(1)) == 1
            assert values.count(telemetry(2)) == 8
            sums = orchestrator.statistics
            num_read = 2 + len(values)
            assert sums.received == num_read + sums.shed + sums.malformed
            assert sums.shed > 2000
            assert sums.malformed > 500

    run(body)


def test_a_program_that_starts_again_takes_over(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        hung_will = Letter(
            name=EDGE_PRESENCE.name("kiosk-7"), payload=EDGE_PRESENCE.encode(away(1)), retain=True
        )
        async with (
            rig_link(rig, name="reader", subscriptions=(EDGE_PRESENCE,)) as reader,
            rig.raw("paceline-edge-kiosk-7", will=hung_will) as hung,
        ):
            messages = reader.messages()
            await reader.connected()
            await hung.publish(
                EDGE_PRESENCE.name("kiosk-7"), EDGE_PRESENCE.encode(here(1)), qos=1, retain=True
            )
            await until(messages, here(1))
            async with edge_link(rig, "kiosk-7", incarnation=2) as edge:
                edge.publish(EDGE_PRESENCE, "kiosk-7", here(2))
                assert await until(messages, here(2)) == [away(1), here(2)]
                await hung.until_lost()
                async with rig_link(rig, name="late", subscriptions=(EDGE_PRESENCE,)) as late:
                    assert (await anext(late.messages())).value == here(2)

    run(body)
