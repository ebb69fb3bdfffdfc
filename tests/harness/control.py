"""Values of the control plane for tests, and links that come back quickly."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from harness.toy_verifier import toy_identity

from paceline.control.messages import EdgePolicy, EdgeTelemetry, Presence, VerifierStatus
from paceline.mqtt.link import ControlLink, Will, control_link
from paceline.mqtt.settings import BrokerSettings
from paceline.settings import Address
from paceline.topics import EDGE_PRESENCE, Received, Topic


def quick(address: Address, **fields: object) -> BrokerSettings:
    """Return settings that try again at once, near enough."""
    known: dict[str, object] = {"first_retry_s": 0.02, "max_retry_s": 0.1} | fields
    return BrokerSettings(address=address, **known)  # type: ignore[arg-type]


def edge_link(
    settings: BrokerSettings,
    edge: str,
    *,
    incarnation: int = 1,
    subscriptions: tuple[Topic, ...] = (),
) -> AbstractAsyncContextManager[ControlLink]:
    """Return the link of an edge, as the edge itself opens it."""
    return control_link(
        settings,
        name=f"edge-{edge}",
        will=Will(topic=EDGE_PRESENCE, member=edge, value=away(incarnation)),
        subscriptions=subscriptions,
    )


def here(incarnation: int = 1) -> Presence:
    return Presence(online=True, incarnation=incarnation)


def away(incarnation: int = 1) -> Presence:
    return Presence(online=False, incarnation=incarnation)


def telemetry(sequence: int) -> EdgeTelemetry:
    return EdgeTelemetry(incarnation=1, sequence=sequence, tokenizer_fingerprint=bytes(32))


def policy(revision: int) -> EdgePolicy:
    return EdgePolicy(revision=revision, draft_length=4, window=32)


def status(sequence: int) -> VerifierStatus:
    return VerifierStatus(
        online=True,
        incarnation=1,
        sequence=sequence,
        address="127.0.0.1:7700",
        target=toy_identity(24),
        max_sessions=8,
    )


async def until(messages: AsyncIterator[Received], value: object) -> list[object]:
    """Read up to a value; return all values that came, it included."""
    values: list[object] = []
    async for received in messages:
        values.append(received.value)
        if received.value == value:
            break
    return values


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so that nobody tells; the test's own bound ends it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
