"""What the control plane expects of a broker and of the link to it. Each test runs with amqtt, embedded, and with mosquitto."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiomqtt
import pytest
from harness.brokers import MOSQUITTO, BrokerRig, EmbeddedRig, MosquittoRig, running_rig
from harness.control import (
    away,
    edge_link,
    eventually,
    here,
    policy,
    quick,
    status,
    telemetry,
    until,
)
from harness.event_loop import run_async

from paceline.codec.control import MAX_PAYLOAD_BYTES
from paceline.mqtt.link import control_link
from paceline.topics import (
    EDGE_POLICY,
    EDGE_PRESENCE,
    EDGE_TELEMETRY,
    ORCHESTRATOR_PRESENCE,
    VERIFIER_STATUS,
)
from simulator.link import LinkSettings
from simulator.relay import CutMode, Relay

Body = Callable[[BrokerRig], Awaitable[None]]
Run = Callable[[Body], None]


@pytest.fixture(params=["amqtt", "mosquitto"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a body with a broker."""
    if request.param == "mosquitto" and MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")

    def run_body(body: Body) -> None:
        async def main() -> None:
            rig = EmbeddedRig() if request.param == "amqtt" else MosquittoRig(tmp_path)
            async with running_rig(rig):
                await body(rig)
            assert asyncio.all_tasks() == {asyncio.current_task()}, "a task outlived its owner"

        run_async(main())

    return run_body


def test_what_is_retained_reaches_those_who_come_later(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        settings = quick(rig.address)
        async with control_link(settings, name="orchestrator") as orchestrator:
            await orchestrator.connected()
            for revision in (1, 2, 3):
                orchestrator.publish(EDGE_POLICY, "kiosk-7", policy(revision))
                orchestrator.publish(EDGE_POLICY, "kiosk-8", policy(revision))
        own = EDGE_POLICY.of("kiosk-7")
        async with edge_link(settings, "kiosk-7", subscriptions=(own,)) as edge:
            received = await anext(edge.messages())
            assert edge.statistics.received == 1
            assert (received.topic, received.member) == (EDGE_POLICY, "kiosk-7")
            assert received.value == policy(3)

    run(body)


def test_what_is_cleared_is_gone(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        settings = quick(rig.address)
        async with (
            control_link(settings, name="reader", subscriptions=(EDGE_POLICY,)) as reader,
            control_link(settings, name="orchestrator") as orchestrator,
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
        async with control_link(settings, name="late", subscriptions=(EDGE_POLICY,)) as late:
            assert (await anext(late.messages())).member == "kiosk-8"

    run(body)


def test_messages_of_a_topic_arrive_in_order(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        settings = quick(rig.address)
        async with (
            control_link(settings, name="reader", subscriptions=(EDGE_POLICY,)) as reader,
            control_link(settings, name="orchestrator") as orchestrator,
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
            Relay(to=rig.address, settings=LinkSettings()) as relay,
            control_link(
                quick(rig.address), name="reader", subscriptions=(EDGE_PRESENCE,)
            ) as reader,
            edge_link(quick(relay.address), "kiosk-7") as edge,
        ):
            messages = reader.messages()
            edge.publish(EDGE_PRESENCE, "kiosk-7", here())
            await until(messages, here())
            relay.cut(CutMode.RESET)
            await until(messages, away())
            await relay.heal()
            await until(messages, here())

    run(body)


def test_who_leaves_says_so_once(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        settings = quick(rig.address)
        async with control_link(
            settings, name="reader", subscriptions=(EDGE_PRESENCE, ORCHESTRATOR_PRESENCE)
        ) as reader:
            messages = reader.messages()
            await reader.connected()
            async with edge_link(settings, "kiosk-7") as edge:
                edge.publish(EDGE_PRESENCE, "kiosk-7", here())
                assert (await anext(messages)).value == here()
            async with control_link(settings, name="orchestrator") as orchestrator:
                orchestrator.publish(ORCHESTRATOR_PRESENCE, "", here(77))
                assert await until(messages, here(77)) == [away(), here(77)]

    run(body)


def test_a_subscription_covers_all_members_of_its_topic_and_no_other(run: Run) -> None:
    async def body(rig: BrokerRig) -> None:
        settings = quick(rig.address)
        async with (
            control_link(
                settings, name="reader", subscriptions=(EDGE_PRESENCE, VERIFIER_STATUS)
            ) as reader,
            control_link(settings, name="writer") as writer,
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
            edge_link(quick(rig.address), "kiosk-7", subscriptions=(EDGE_POLICY,)) as edge,
            control_link(
                quick(rig.address), name="orchestrator", subscriptions=(EDGE_PRESENCE,)
            ) as orchestrator,
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
        settings = quick(rig.address)
        async with (
            control_link(
                settings, name="orchestrator", subscriptions=(EDGE_TELEMETRY, VERIFIER_STATUS)
            ) as orchestrator,
            control_link(settings, name="quiet") as quiet,
            aiomqtt.Client(rig.address.host, rig.address.port, identifier="flood") as flood,
        ):
            await orchestrator.connected()
            await quiet.connected()
            quiet.publish(VERIFIER_STATUS, "gpu", status(1))
            quiet.publish(EDGE_TELEMETRY, "quiet", telemetry(1))
            payload = EDGE_TELEMETRY.encode(telemetry(2))
            for number in range(5000):
                await flood.publish(EDGE_TELEMETRY.name("loud"), payload)
                if number % 10 == 0:
                    await flood.publish(EDGE_TELEMETRY.name("mad"), b"\xff" * 100)
                    await flood.publish(EDGE_TELEMETRY.name("mad"), bytes(MAX_PAYLOAD_BYTES + 1))
                await asyncio.sleep(0)
            quiet.publish(VERIFIER_STATUS, "gpu", status(2))
            await flood.publish(
                VERIFIER_STATUS.name("end"), VERIFIER_STATUS.encode(status(3)), qos=1
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
        settings = quick(rig.address)
        hung = aiomqtt.Client(
            rig.address.host,
            rig.address.port,
            identifier="paceline-edge-kiosk-7",
            will=aiomqtt.Will(
                EDGE_PRESENCE.name("kiosk-7"), EDGE_PRESENCE.encode(away(1)), qos=1, retain=True
            ),
        )
        async with (
            control_link(settings, name="reader", subscriptions=(EDGE_PRESENCE,)) as reader,
            hung,
        ):
            messages = reader.messages()
            await reader.connected()
            await hung.publish(
                EDGE_PRESENCE.name("kiosk-7"), EDGE_PRESENCE.encode(here(1)), qos=1, retain=True
            )
            await until(messages, here(1))
            async with edge_link(settings, "kiosk-7", incarnation=2) as edge:
                edge.publish(EDGE_PRESENCE, "kiosk-7", here(2))
                assert await until(messages, here(2)) == [away(1), here(2)]
                with pytest.raises(aiomqtt.MqttError):
                    await anext(hung.messages)
                async with control_link(
                    settings, name="late", subscriptions=(EDGE_PRESENCE,)
                ) as late:
                    assert (await anext(late.messages())).value == here(2)

    run(body)
