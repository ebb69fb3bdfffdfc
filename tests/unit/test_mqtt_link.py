"""The link with brokers that are away, stuck, or do not let it in: nobody waits, and the log says it once."""

import asyncio
import logging
import random
from pathlib import Path

import pytest
from harness.brokers import (
    MOSQUITTO,
    MosquittoRig,
    StuckBroker,
    password_lines,
    running_rig,
    tls_lines,
)
from harness.certificates import make_certificates
from harness.control import (
    away,
    edge_link,
    eventually,
    here,
    policy,
    quick,
    telemetry,
    until,
)
from harness.event_loop import run_async
from harness.processes import free_port

from paceline.errors import ConfigError, LocalProtocolError
from paceline.mqtt.link import Will, control_link
from paceline.settings import Address
from paceline.topics import EDGE_POLICY, EDGE_PRESENCE, EDGE_TELEMETRY

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def test_without_a_broker_nobody_waits(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        nowhere = Address(host="127.0.0.1", port=free_port())
        async with edge_link(quick(nowhere), "kiosk-7") as link:
            for number in range(1, 1001):
                link.publish(EDGE_TELEMETRY, "kiosk-7", telemetry(number))
            link.publish(EDGE_PRESENCE, "kiosk-7", here())
            await eventually(lambda: link.statistics.attempts > 5)
            assert not link.is_connected
            assert link.statistics.dropped == 999

    with caplog.at_level(logging.INFO):
        run_async(main())
    lines = [record for record in caplog.records if record.name.startswith("paceline")]
    assert [line.message for line in lines] == ["no broker, trying on"]


@pytest.mark.parametrize("lets_in", [False, True])
def test_a_broker_that_is_stuck_is_left_and_tried_again(lets_in: bool) -> None:
    async def main() -> None:
        broker = StuckBroker(lets_in=lets_in)
        async with broker.running() as address:
            settings = quick(address, timeout_s=0.05)
            async with edge_link(settings, "kiosk-7") as link:
                link.publish(EDGE_PRESENCE, "kiosk-7", here())
                link.publish(EDGE_TELEMETRY, "kiosk-7", telemetry(1))
                await eventually(lambda: broker.num_connections >= 4)
                assert link.statistics.published == 0
                assert (link.statistics.connections > 0) is lets_in
                assert (link.statistics.dropped > 0) is lets_in
            await eventually(lambda: broker.num_open == 0)

    run_async(main())
    assert not _left_over()


def _left_over() -> set[asyncio.Task[object]]:
    async def tasks() -> set[asyncio.Task[object]]:
        return asyncio.all_tasks() - {asyncio.current_task()}

    return run_async(tasks())


def test_the_bodys_own_error_comes_out_as_it_is() -> None:
    async def main() -> None:
        nowhere = Address(host="127.0.0.1", port=free_port())
        async with control_link(quick(nowhere), name="one", generator=random.Random(1)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_async(main())


def test_wrong_names_and_values_are_refused_at_once() -> None:
    async def main() -> None:
        settings = quick(Address(host="127.0.0.1", port=free_port()))
        with pytest.raises(ConfigError, match="name: got 'a/b'"):
            async with control_link(settings, name="a/b"):
                pass
        wrong = Will(topic=EDGE_PRESENCE, member="e", value=policy(1))
        with pytest.raises(LocalProtocolError, match="expected Presence"):
            async with control_link(settings, name="one", will=wrong):
                pass
        async with control_link(settings, name="one") as link:
            with pytest.raises(ConfigError, match="id: got"):
                link.publish(EDGE_PRESENCE, "a/b", here())
            with pytest.raises(LocalProtocolError, match="revision"):
                link.publish(EDGE_POLICY, "e", policy(0))

    run_async(main())


@needs_mosquitto
def test_a_wrong_password_is_told_and_the_right_one_lets_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        rig = MosquittoRig(tmp_path, *password_lines(tmp_path, user="kiosk", password="hush"))
        async with running_rig(rig):
            wrong = quick(rig.address, user="kiosk", password="guess-guess")
            async with edge_link(wrong, "kiosk-7") as link:
                await eventually(lambda: link.statistics.attempts > 2)
                assert link.statistics.connections == 0
            right = quick(rig.address, user="kiosk", password="hush")
            async with edge_link(right, "kiosk-7") as link:
                await link.connected()

    with caplog.at_level(logging.INFO, logger="paceline.mqtt"):
        run_async(main())
    lines = [(record.levelname, record.message) for record in caplog.records]
    assert lines == [("ERROR", "no broker, trying on"), ("INFO", "broker found")]
    assert "--broker-user" in vars(caplog.records[0])["reason"]
    assert "guess" not in str([vars(record) for record in caplog.records])


def test_a_subscription_that_is_refused_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        broker = StuckBroker(lets_in=True, refuses=True)
        async with (
            broker.running() as address,
            control_link(quick(address), name="one", subscriptions=(EDGE_POLICY,)) as link,
        ):
            await eventually(lambda: link.statistics.attempts > 1)
            assert link.statistics.connections == 0

    run_async(main())
    (line,) = [record for record in caplog.records if record.name.startswith("paceline")]
    assert line.levelname == "ERROR"
    assert f"refuses {EDGE_POLICY.filter}" in vars(line)["reason"]


@needs_mosquitto
def test_tls_with_certificates_on_both_sides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    for folder in (ours, others):
        folder.mkdir()
    made, foreign = make_certificates(ours), make_certificates(others)

    async def main() -> None:
        rig = MosquittoRig(tmp_path, *tls_lines(made))
        async with running_rig(rig):
            settings = quick(
                rig.address,
                ca_file=made.authority,
                cert_file=made.client,
                key_file=made.client_key,
            )
            async with (
                control_link(settings, name="reader", subscriptions=(EDGE_PRESENCE,)) as reader,
                edge_link(settings, "kiosk-7") as edge,
            ):
                messages = reader.messages()
                edge.publish(EDGE_PRESENCE, "kiosk-7", here())
                await until(messages, here())
                edge.publish(EDGE_PRESENCE, "kiosk-7", away())
                await until(messages, away())
            caplog.clear()
            untrusted = quick(rig.address, ca_file=foreign.authority)
            async with edge_link(untrusted, "kiosk-7") as edge:
                await eventually(lambda: edge.statistics.attempts > 1)
                assert edge.statistics.connections == 0
            assert "--broker-ca" in vars(caplog.records[0])["reason"]

    run_async(main())
