"""`paceline edge`: the agent that serves an OpenAI-compatible endpoint."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.control_options import control_options, control_settings
from edge.endpoint.gate import EndpointSettings
from edge.endpoint.listener import bound
from edge.options import agent_options, agent_settings
from paceline.metrics.options import metrics_option
from paceline.settings import ADDRESS, Address, secret

if TYPE_CHECKING:
    from edge.agent import Agent

_ENDPOINT = EndpointSettings(listen=Address(host="127.0.0.1", port=8080))


@click.command()
@click.option(
    "--listen",
    type=ADDRESS,
    default=str(_ENDPOINT.listen),
    help="Where OpenAI clients connect; port 0 is any.",
)
@click.option("--api-key", help="What clients must present; needed beyond this machine.")
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the key, kept out of `ps`.",
)
@click.option("--model-name", help="What clients call the model.  [default: as --target says]")
@click.option(
    "--max-concurrent",
    type=int,
    default=_ENDPOINT.max_concurrent,
    help="Answers in the making at once; more are refused with status 429.",
)
@click.option(
    "--max-tokens",
    type=int,
    default=_ENDPOINT.max_tokens,
    help="Most tokens of an answer whose request does not say.",
)
@click.option(
    "--explain", is_flag=True, help="Say why, in a line on stderr, whenever the draft length moves."
)
@metrics_option
@control_options
@agent_options
def edge(  # noqa: PLR0913 - one per option
    *,
    listen: Address,
    api_key: str | None,
    api_key_file: Path | None,
    model_name: str | None,
    max_concurrent: int,
    max_tokens: int,
    explain: bool,
    metrics_listen: Address | None,
    **values: Any,
) -> None:
    """Serve an OpenAI-compatible endpoint that drafts here and verifies in the cloud.

    Point any OpenAI client at http://127.0.0.1:8080/v1. Without --cloud a private verifier runs on this machine.
    --insecure also lets other machines use the endpoint without an API key. Ends on Ctrl-C or SIGTERM.

    Example: paceline edge --cloud gpu-box:50051 --draft lookup
    """
    settings = agent_settings(values)
    control = control_settings(values)
    endpoint = EndpointSettings(
        listen=listen,
        api_key=secret(api_key, api_key_file, name="--api-key"),
        insecure=settings.connection.insecure,
        max_concurrent=max_concurrent,
        max_tokens=max_tokens,
    )
    name = model_name or _model_name(settings.target)
    with bound(endpoint.listen) as listener:
        # PyTorch takes seconds to import; --help and a wrong flag must not wait for it.
        from edge.agent import open_agent  # noqa: PLC0415
        from edge.metrics import GenerationMeter, serving_edge_metrics  # noqa: PLC0415
        from edge.running import run  # noqa: PLC0415

        meter = GenerationMeter()
        agent = open_agent(
            settings, control=control, observer=meter, explain=_explain if explain else None
        )
        metrics = partial(serving_edge_metrics, generations=meter, listen=metrics_listen)
        run(_serve(agent, endpoint=endpoint, name=name, listener=listener, metrics=metrics))


async def _serve(
    opening: "AbstractAsyncContextManager[Agent]",
    *,
    endpoint: EndpointSettings,
    name: str,
    listener: socket.socket,
    metrics: "Callable[[Agent], AbstractAsyncContextManager[Address | None]]",
) -> None:
    """Serve until a signal comes."""
    from edge.endpoint.server import serving  # noqa: PLC0415
    from edge.endpoint.service import ServedModel, Service  # noqa: PLC0415
    from paceline.metrics.serving import METRICS_PATH  # noqa: PLC0415

    async with opening as agent:
        model = ServedModel(name=name, target=agent.verifier.target, limits=agent.verifier.limits)
        service = Service(agent.client, tokenizer=agent.tokenizer, model=model, settings=endpoint)
        async with metrics(agent) as scraped, serving(service, listener=listener) as address:
            if scraped is not None:
                click.echo(f"paceline edge metrics on http://{scraped}{METRICS_PATH}")
            click.echo(f"paceline edge ready on http://{address}/v1 with {name}")
            await _signalled()


def _explain(sentence: str) -> None:
    click.echo(f"paceline edge: {sentence}", err=True)


async def _signalled() -> None:
    """Wait for Ctrl-C or SIGTERM; both are the usual way to end, so neither is a failure."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()


def _model_name(target: str) -> str:
    """Return what clients call a model: a path's last part, any other name as it is."""
    path = Path(target).expanduser()
    return path.stem if path.suffix == ".gguf" else path.name if path.is_dir() else target
