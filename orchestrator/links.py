"""The orchestrator's links to its broker, and what it says of itself there."""

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from paceline.control.messages import Presence
from paceline.mqtt.backoff import Generator
from paceline.mqtt.link import ControlLink, Will, control_link
from paceline.mqtt.settings import BrokerSettings
from paceline.mqtt.transport import Transport
from paceline.topics import (
    EDGE_POLICY,
    EDGE_PRESENCE,
    EDGE_TELEMETRY,
    ORCHESTRATOR_PRESENCE,
    VERIFIER_STATUS,
)

LINK_NAME = "orchestrator"
TELEMETRY_LINK_NAME = "orchestrator-telemetry"
SUBSCRIPTIONS = (EDGE_PRESENCE, EDGE_POLICY, VERIFIER_STATUS)


@contextlib.asynccontextmanager
async def fleet_links(
    broker: BrokerSettings,
    *,
    incarnation: int,
    is_apart: bool,
    generator: Generator | None = None,
    transport: Transport | None = None,
) -> AsyncIterator[tuple[ControlLink, ControlLink | None]]:
    """Keep the links while the body runs: that for everything, and that for telemetry if it has one of its own.

    Args:
        broker: where.
        incarnation: of this program.
        is_apart: telemetry comes over a second one.
        generator: see `control_link`.
        transport: the same.

    Raises:
        ConfigError: a certificate cannot be read.
    """
    will = Will(topic=ORCHESTRATOR_PRESENCE, value=Presence(online=False, incarnation=incarnation))
    subscriptions = SUBSCRIPTIONS if is_apart else (*SUBSCRIPTIONS, EDGE_TELEMETRY)
    async with contextlib.AsyncExitStack() as stack:
        link = await stack.enter_async_context(
            control_link(
                broker,
                name=LINK_NAME,
                will=will,
                subscriptions=subscriptions,
                generator=generator,
                transport=transport,
            )
        )
        telemetry = None
        if is_apart:
            # When an edge floods, what says who is there need not stand behind it in the broker's queue.
            telemetry = await stack.enter_async_context(
                control_link(
                    broker,
                    name=TELEMETRY_LINK_NAME,
                    subscriptions=(EDGE_TELEMETRY,),
                    generator=generator,
                    transport=transport,
                )
            )
        yield link, telemetry


def say_present(link: ControlLink, *, incarnation: int) -> None:
    """Say to the edges that somebody plans for them; to be called when that is true."""
    presence = Presence(online=True, incarnation=incarnation, version=version("paceline"))
    link.publish(ORCHESTRATOR_PRESENCE, "", presence)
