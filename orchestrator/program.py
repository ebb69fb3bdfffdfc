"""The orchestrator as a process: from settings to a broker, a history, a service and its page, until a signal."""

import asyncio
import contextlib
import secrets
import signal

import click

from orchestrator.api import Api, serving
from orchestrator.board import Board
from orchestrator.embedded import embedded_broker
from orchestrator.history import open_history
from orchestrator.history_file import unix_s
from orchestrator.links import fleet_links, say_present
from orchestrator.metrics import FIGURES
from orchestrator.options import OrchestratorSettings
from orchestrator.service import Service, running_service
from paceline.clock import MonotonicClock
from paceline.metrics.figures import Figures, new_registry
from paceline.metrics.serving import METRICS_PATH, serving_metrics
from paceline.mqtt.settings import BrokerSettings


def run(settings: OrchestratorSettings) -> None:
    """Serve until Ctrl-C or SIGTERM, which are the usual ways to end.

    Raises:
        ConfigError: an address is taken, or the history cannot be used.
    """
    asyncio.run(_serve(settings))


async def _serve(settings: OrchestratorSettings) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with contextlib.AsyncExitStack() as stack:
        history = await stack.enter_async_context(
            open_history(settings.history, bounds=settings.history_bounds)
        )
        broker = settings.broker or BrokerSettings(
            address=await stack.enter_async_context(embedded_broker(settings.broker_listen))
        )
        incarnation = secrets.randbelow(2**64 - 1) + 1
        clock = MonotonicClock()
        board = Board(
            broker=str(broker.address),
            history="in memory" if settings.history is None else str(settings.history),
            unix_offset_s=unix_s() - clock.now_s(),
        )
        link, telemetry = await stack.enter_async_context(
            fleet_links(broker, incarnation=incarnation, is_apart=settings.has_telemetry_connection)
        )
        service = Service(link, telemetry=telemetry, history=history, board=board, clock=clock)
        await service.recall()
        registry = new_registry("orchestrator")
        registry.register(Figures(service.figures, FIGURES))
        scraped = await stack.enter_async_context(
            serving_metrics(registry, settings.metrics_listen)
        )
        if scraped is not None:
            click.echo(f"paceline orchestrator metrics on http://{scraped}{METRICS_PATH}")
        address = await stack.enter_async_context(
            serving(
                Api(service, settings=settings.gate).application(),
                listen=settings.gate.listen,
                tls=settings.tls,
            )
        )
        await stack.enter_async_context(running_service(service))
        say_present(link, incarnation=incarnation)
        _tell(settings, page=str(address), broker=str(broker.address))
        await ended.wait()


def _tell(settings: OrchestratorSettings, *, page: str, broker: str) -> None:
    """Say that we are there, and what would surprise later."""
    if settings.history is None:
        click.echo("history is kept in memory and ends with this program; see --history", err=True)
    scheme = "http" if settings.tls is None else "https"
    click.echo(f"paceline orchestrator ready on {scheme}://{page} with broker {broker}")
