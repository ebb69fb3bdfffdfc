"""mosquitto with the configuration and the rules of deploy/: who may say and read what."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from harness.brokers import MOSQUITTO
from harness.deployment import BrokerPorts, broker_login, certificates, deployed_broker

from paceline.control.messages import EdgePolicy, EdgeTelemetry, Presence, VerifierStatus
from paceline.mqtt.link import ControlLink, control_link
from paceline.mqtt.settings import BrokerSettings
from paceline.settings import Address
from paceline.topics import (
    EDGE_POLICY,
    EDGE_PRESENCE,
    EDGE_TELEMETRY,
    ORCHESTRATOR_PRESENCE,
    TOPICS,
    VERIFIER_STATUS,
)
from simulator.doctor.probes.broker import visit_broker
from simulator.doctor.verdicts.broker import judge_login

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
]
BOUND_S = 20.0
NUM_POLICIES = 4500
"""More than an orchestrator is told at once in a fleet of 2,000: a policy and a presence of each edge, and verifiers."""
HERE = Presence(online=True, incarnation=1)
TELEMETRY = EdgeTelemetry(incarnation=1, sequence=1, tokenizer_fingerprint=bytes(32))
STATUS = VerifierStatus(online=False, incarnation=1)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(
        tmp_path_factory.mktemp("secrets"),
        servers=("broker", "verifier-1"),
        clients=("kitchen", "garden"),
    )


@pytest.fixture
def ports(tmp_path: Path, secrets: Path) -> Iterator[BrokerPorts]:
    ports = BrokerPorts()
    with deployed_broker(tmp_path, secrets=secrets, ports=ports):
        yield ports


@asynccontextmanager
async def _linked(secrets: Path, name: str, ports: BrokerPorts) -> AsyncIterator[ControlLink]:
    """As somebody who subscribes to everything, whatever the rules say."""
    login = broker_login(secrets, name, ports=ports)
    async with control_link(login, name=name, subscriptions=TOPICS) as link:
        async with asyncio.timeout(BOUND_S):
            await link.connected()
        yield link


async def _heard(link: ControlLink, *, until: str) -> set[str]:
    """Return the names of all topics under which something came, up to and with this one."""
    names: set[str] = set()
    async with asyncio.timeout(BOUND_S):
        async for received in link.messages():
            names.add(received.topic.name(received.member))
            if until in names:
                return names
    raise AssertionError(names)


def test_an_edge_speaks_under_its_own_name_only(secrets: Path, ports: BrokerPorts) -> None:
    async def scene() -> None:
        async with (
            _linked(secrets, "orchestrator", ports) as orchestrator,
            _linked(secrets, "kitchen", ports) as kitchen,
        ):
            for member in ("garden", "kitchen"):
                kitchen.publish(EDGE_PRESENCE, member, HERE)
                kitchen.publish(
                    EDGE_POLICY, member, EdgePolicy(revision=1, draft_length=1, window=1)
                )
                kitchen.publish(VERIFIER_STATUS, member, STATUS)
            kitchen.publish(VERIFIER_STATUS, "verifier-1", STATUS)
            kitchen.publish(ORCHESTRATOR_PRESENCE, "", HERE)
            kitchen.publish(EDGE_TELEMETRY, "garden", TELEMETRY)
            kitchen.publish(EDGE_TELEMETRY, "kitchen", TELEMETRY)
            # What one client says arrives in order: had the broker taken the rest, it would have come before.
            heard = await _heard(orchestrator, until=EDGE_TELEMETRY.name("kitchen"))
        assert heard == {EDGE_PRESENCE.name("kitchen"), EDGE_TELEMETRY.name("kitchen")}

    asyncio.run(scene())


def test_the_orchestrator_steers_and_each_edge_is_told_its_own_policy(
    secrets: Path, ports: BrokerPorts
) -> None:
    async def scene() -> None:
        async with (
            _linked(secrets, "orchestrator", ports) as orchestrator,
            _linked(secrets, "kitchen", ports) as kitchen,
            _linked(secrets, "verifier-1", ports) as verifier,
        ):
            verifier.publish(VERIFIER_STATUS, "verifier-2", STATUS)
            verifier.publish(VERIFIER_STATUS, "verifier-1", STATUS)
            status = VERIFIER_STATUS.name("verifier-1")
            assert await _heard(orchestrator, until=status) == {status}
            policy = EdgePolicy(revision=7, draft_length=4, window=8)
            orchestrator.publish(EDGE_POLICY, "garden", policy)
            orchestrator.publish(EDGE_POLICY, "kitchen", policy)
            orchestrator.publish(ORCHESTRATOR_PRESENCE, "", HERE)
            presence = ORCHESTRATOR_PRESENCE.name()
            own = EDGE_POLICY.name("kitchen")
            assert await _heard(kitchen, until=presence) == {own, presence}

    asyncio.run(scene())


def test_a_retained_policy_outlives_the_broker(tmp_path: Path, secrets: Path) -> None:
    ports = BrokerPorts()

    async def steer() -> None:
        async with _linked(secrets, "orchestrator", ports) as orchestrator:
            policy = EdgePolicy(revision=7, draft_length=4, window=8)
            orchestrator.publish(EDGE_POLICY, "kitchen", policy)
            await _heard(orchestrator, until=EDGE_POLICY.name("kitchen"))

    async def follow() -> None:
        async with _linked(secrets, "kitchen", ports) as kitchen:
            await _heard(kitchen, until=EDGE_POLICY.name("kitchen"))

    with deployed_broker(tmp_path, secrets=secrets, ports=ports) as broker:
        asyncio.run(steer())
        assert broker.terminate() == 0
    (tmp_path / "data").rename(tmp_path / "kept")
    with deployed_broker(tmp_path, secrets=secrets, ports=ports, kept=tmp_path / "kept"):
        asyncio.run(follow())


def test_an_orchestrator_that_comes_back_to_a_large_fleet_is_told_everything(
    secrets: Path, ports: BrokerPorts
) -> None:
    members = {f"edge-{number}" for number in range(NUM_POLICIES)}
    policy = EdgePolicy(revision=7, draft_length=4, window=8, explanation="because " * 50)

    async def told(link: ControlLink) -> None:
        missing = set(members)
        async with asyncio.timeout(BOUND_S):
            async for received in link.messages():
                missing.discard(received.member)
                if not missing:
                    return

    async def scene() -> None:
        async with _linked(secrets, "orchestrator", ports) as first:
            for member in members:
                first.publish(EDGE_POLICY, member, policy)
            await told(first)
        async with _linked(secrets, "orchestrator", ports) as second:
            await told(second)

    asyncio.run(scene())


def test_nobody_gets_in_without_a_certificate_of_the_authority(
    tmp_path: Path, secrets: Path
) -> None:
    stranger = certificates(tmp_path / "strangers", clients=("kitchen",))
    ports = BrokerPorts()
    address = Address(host="127.0.0.1", port=ports.members)
    nobody = BrokerSettings(address=address, ca_file=secrets / "ca.pem", timeout_s=1.0)
    forged = replace(nobody, cert_file=stranger / "kitchen.pem", key_file=stranger / "kitchen.key")
    kitchen = replace(broker_login(secrets, "kitchen", ports=ports), timeout_s=1.0)
    door = Address(host="127.0.0.1", port=ports.steering)
    with deployed_broker(tmp_path, secrets=secrets, ports=ports) as broker:
        for login, said in (
            (nobody, "peer did not return a certificate"),
            (forged, "certificate verify failed"),
            # An edge at the orchestrator's door.
            (replace(kitchen, address=door), "certificate verify failed"),
        ):
            finding = asyncio.run(visit_broker(login, edge_id="kitchen", deadline_s=1.0))
            assert finding.reason == "TRANSPORT"
            assert "--broker-cert" in judge_login("login", finding).advice
            broker.wait_for_stderr(said, timeout_s=5.0)


def test_the_doctor_sees_what_the_rules_allow(secrets: Path, ports: BrokerPorts) -> None:
    async def scene() -> None:
        async with _linked(secrets, "orchestrator", ports) as orchestrator:
            login = broker_login(secrets, "kitchen", ports=ports)
            alone = await visit_broker(login, edge_id="kitchen", deadline_s=5.0)
            assert alone.echo_s is not None
            assert alone.orchestrator is None
            orchestrator.publish(ORCHESTRATOR_PRESENCE, "", HERE)
            await _heard(orchestrator, until=ORCHESTRATOR_PRESENCE.name())
            steered = await visit_broker(login, edge_id="kitchen", deadline_s=5.0)
            assert steered.orchestrator == "online"
            # The certificate says kitchen.
            wrong = await visit_broker(login, edge_id="garden", deadline_s=1.0)
            assert (wrong.reason, wrong.echo_s, wrong.orchestrator) == ("", None, "online")

    asyncio.run(scene())


def test_the_doctor_and_a_running_edge_of_the_same_name_both_get_in(
    secrets: Path, ports: BrokerPorts
) -> None:
    async def scene() -> None:
        async with _linked(secrets, "kitchen", ports) as kitchen:
            login = broker_login(secrets, "kitchen", ports=ports)
            finding = await visit_broker(login, edge_id="kitchen", deadline_s=5.0)
            # Either of them may be the last to come; nobody is refused.
            assert finding.reason == ""
            assert finding.was_replaced or finding.echo_s is not None
            async with asyncio.timeout(BOUND_S):
                await kitchen.connected()

    asyncio.run(scene())
