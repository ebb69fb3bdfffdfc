"""Tells the fleet how this verifier is, as long as it runs. Serving does not depend on any of it."""

import asyncio
import contextlib
import functools
import logging
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from cloud.account import VerifierStatistics
from cloud.sessions import Registry
from cloud.status import Teller, advertised, default_id, status
from paceline.beside import running_beside
from paceline.control.messages import VerifierStatus
from paceline.errors import ConfigError, LocalProtocolError
from paceline.mqtt.backoff import Generator
from paceline.mqtt.link import ControlLink, Will, control_link
from paceline.mqtt.settings import BrokerSettings
from paceline.mqtt.transport import Transport
from paceline.settings import Address
from paceline.topics import VERIFIER_STATUS, check_id

if TYPE_CHECKING:
    from cloud.server import Verifier

log = logging.getLogger(__name__)

PERIOD_S = 2.0
"""How often the status is told when nothing happens; readers take a verifier that was silent for much longer for gone."""
MIN_PERIOD_S = 0.1
"""How often at most: sessions that come and go at the bound must not keep the link busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncementSettings:
    """How a verifier takes part in the fleet.

    Raises:
        ConfigError: the id is none, or nobody could connect where it says.
    """

    broker: BrokerSettings
    listen: Address
    """Where it listens; checked here because weights are loaded before the port is known."""
    verifier_id: str | None = None
    """Its name among all verifiers, and the same after a restart; None: host name and port."""
    advertise: Address | None = None
    """Where edges reach it; None: where it listens."""

    def __post_init__(self) -> None:
        """Check every field."""
        advertised(self.listen, self.advertise)
        if self.verifier_id is not None:
            try:
                check_id(self.verifier_id)
            except ConfigError as error:
                raise ConfigError(f"--verifier-{error}") from error


class Serving(Protocol):
    """A verifier with a server before it, or one without."""

    @property
    def registry(self) -> Registry:
        """Tells when there is news."""
        ...

    @property
    def statistics(self) -> VerifierStatistics:
        """What it has done so far and holds now."""
        ...


@contextlib.asynccontextmanager
async def announcing(
    verifier: "Verifier", settings: AnnouncementSettings | None, *, row_budget: int
) -> AsyncIterator[None]:
    """Tell the fleet while the body runs, and in the end that the verifier is gone.

    Args:
        verifier: that serves.
        settings: None tells nobody.
        row_budget: most rows of a step.

    Raises:
        ConfigError: the broker's certificate cannot be read.
    """
    if settings is None:
        yield
        return
    verifier_id = settings.verifier_id or default_id(socket.gethostname(), verifier.address.port)
    teller = Teller(
        incarnation=secrets.randbelow(2**64 - 1) + 1,
        address=advertised(verifier.address, settings.advertise),
        target=verifier.registry.target,
        row_budget=row_budget,
        version=version("paceline"),
    )
    async with telling(verifier, teller, broker=settings.broker, verifier_id=verifier_id):
        yield


@contextlib.asynccontextmanager
async def telling(
    serving: Serving,
    teller: Teller,
    *,
    broker: BrokerSettings,
    verifier_id: str,
    generator: Generator | None = None,
    transport: Transport | None = None,
) -> AsyncIterator[None]:
    """Do the same for whatever has statistics.

    Args:
        serving: what is told of.
        teller: who tells.
        broker: where.
        verifier_id: its name among all verifiers.
        generator: see `control_link`.
        transport: the same.

    Raises:
        ConfigError: the broker's certificate cannot be read.
    """
    gone = VerifierStatus(online=False, incarnation=teller.incarnation)
    will = Will(topic=VERIFIER_STATUS, member=verifier_id, value=gone)
    async with control_link(
        broker, name=f"verifier-{verifier_id}", will=will, generator=generator, transport=transport
    ) as link:
        work = functools.partial(_tell, link, serving, teller, verifier_id=verifier_id)
        async with running_beside(work):
            yield


async def _tell(link: ControlLink, serving: Serving, teller: Teller, *, verifier_id: str) -> None:
    """Publish now, then every so often and when there is news."""
    news, sequence, is_broken = serving.registry.news, 0, False
    while True:
        sequence += 1
        news.clear()
        message = status(teller, serving.statistics, sequence=sequence)
        try:
            link.publish(VERIFIER_STATUS, verifier_id, message)
        except LocalProtocolError:
            # A figure that the schema does not take is a bug, but no reason to serve nobody.
            if not is_broken:
                is_broken = True
                log.exception("status cannot be told")
        await asyncio.sleep(MIN_PERIOD_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PERIOD_S - MIN_PERIOD_S):
                await news.wait()
