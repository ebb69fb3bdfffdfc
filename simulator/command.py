"""`paceline link`: the emulated wide-area link as a process of its own, and control of a running one."""

import asyncio
import contextlib
import dataclasses
import json
import signal
from typing import Any

import click

from paceline.errors import ConfigError
from paceline.settings import ADDRESS, BANDWIDTH, DURATION, Address
from simulator.control import WITH_VALUE, Action, ControlSocket, Request, ask
from simulator.network import NetworkSettings
from simulator.notation import parse_network
from simulator.profiles import PROFILES
from simulator.relay import Relay, RelayStatistics, precise_loop

DEFAULT_RTT = "60ms"
_KEYS = ("profile", "rtt", "jitter", "bandwidth", "loss", "loss_burst", "drop_idle_after")


@click.group(invoke_without_command=True)
@click.option(
    "--listen", type=ADDRESS, default="127.0.0.1:0", help="Where clients connect; port 0 is any."
)
@click.option("--to", type=ADDRESS, help="The server behind the link.  [required]")
@click.option("--profile", type=click.Choice(list(PROFILES)), help="A network to start from.")
@click.option(
    "--rtt",
    type=DURATION,
    help=f"Shortest round trip time; half of it each way.  [{DEFAULT_RTT} without a profile]",
)
@click.option("--jitter", type=DURATION, help="Standard deviation of the round trip time.")
@click.option("--bandwidth", type=BANDWIDTH, help="Of each way, 20mbit for example.")
@click.option("--loss", help="Share of the segments lost each way, 1% for example.")
@click.option("--loss-burst", type=DURATION, help="Mean length of bursts of loss.  [single losses]")
@click.option("--trace-up", metavar="FILE", help="When packets could be sent: Mahimahi's format.")
@click.option("--trace-down", metavar="FILE", help="The same for the way back.")
@click.option("--up", help="Of the way up only: bandwidth=1mbit,loss=2% for example.")
@click.option("--down", help="Of the way down only.")
@click.option(
    "--network",
    metavar="TEXT",
    help="All of the network in one text, instead of the options from --profile to --down; docs/link.md has the keys.",
)
@click.option(
    "--drop-idle-after", type=DURATION, help="Forget idle flows after this, as NATs do.  [never]"
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of jitter, loss and capacity.")
@click.option(
    "--control",
    "--control-at",  # what a configuration file calls it, where [link.control] is the sub-command's
    "control_at",
    type=ADDRESS,
    help="Let `paceline link control` change it, at this address of this machine; port 0 is any.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines.")
@click.pass_context
def link(ctx: click.Context, /, **values: Any) -> None:
    """Carry TCP connections over an emulated wide-area link.

    Programs that connect to --listen reach --to with delay, jitter, loss and bandwidth of a long way, without root rights.
    Ends on Ctrl-C or SIGTERM and then tells what it carried.

    Example: paceline link --profile lte --seed 7 --listen 127.0.0.1:7701 --to 127.0.0.1:7700
    """
    if ctx.invoked_subcommand is not None:
        return
    to: Address | None = values["to"]
    if to is None:
        raise click.UsageError("Missing option '--to': the server behind the link", ctx)
    as_json: bool = values["as_json"]
    relay = Relay(to=to, listen=values["listen"], network=_network(values), seed=values["seed"])
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        statistics = runner.run(_carry(relay, control=values["control_at"], as_json=as_json))
    click.echo(
        _json_line("closed", **dataclasses.asdict(statistics)) if as_json else _told(statistics)
    )


@link.command()
@click.argument("address", type=ADDRESS, metavar="HOST:PORT")
@click.argument("action", type=click.Choice([*(action.value for action in Action), "profile"]))
@click.argument("value", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Write the answer as JSON.")
def control(*, address: Address, action: str, value: str, as_json: bool) -> None:
    """Change a running link, started with --control HOST:PORT.

    status, cut (connections are reset, new ones refused), black-hole (nothing passes, nobody is told), heal, rtt DURATION,
    profile NAME, network TEXT (rtt=80ms,loss=1% for example).

    Example: paceline link control 127.0.0.1:7702 rtt 200ms
    """
    named = Action.NETWORK if action == "profile" else Action(action)
    if named in WITH_VALUE and not value:
        raise click.UsageError(f"{action} needs a value", click.get_current_context())
    if action == "profile" and value not in PROFILES:
        parse_network({"profile": value})  # tells the nearest name
    answer = ask(address, Request(action=named, value=value))
    if as_json:
        click.echo(json.dumps(answer))
        return
    click.echo(
        f"{answer['state']}, network {answer['network']}, round trip {answer['rtt_s'] * 1e3:.1f} ms now, "
        f"{answer['num_open']} connections open, {answer['up_bytes']} bytes up, {answer['down_bytes']} bytes down, "
        f"{answer['num_lost']} segments lost"
    )


def _network(values: dict[str, Any]) -> NetworkSettings:
    """Return the network that the options describe.

    Raises:
        ConfigError: two options exclude each other, or a value is wrong.
    """
    table = {key: values[key] for key in _KEYS if values[key] is not None}
    if values["network"] is not None:
        parts = ("trace_up", "trace_down", "up", "down")
        others = [*table, *(key for key in parts if values[key])]
        if others:
            raise ConfigError(f"--network: got --{others[0].replace('_', '-')} too, expected one")
        return parse_network(values["network"])
    if "profile" not in table:
        table.setdefault("rtt", DEFAULT_RTT)
    for way in ("up", "down"):
        own = dict(_pair(item) for item in (values[way] or "").split(",") if item.strip())
        if (trace := values[f"trace_{way}"]) is not None:
            own["trace"] = trace
        if own:
            table[way] = own
    return parse_network(table)


def _pair(item: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    return key.strip(), value.strip()


async def _carry(relay: Relay, *, control: Address | None, as_json: bool) -> RelayStatistics:
    """Run the relay until a signal ends it."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with relay, contextlib.AsyncExitStack() as stack:
        where = relay.address
        told: dict[str, object] = {
            "host": where.host,
            "port": where.port,
            "origin_s": relay.origin_s,
        }
        text = f"listening on {where}"
        if control is not None:
            socket = await stack.enter_async_context(ControlSocket(relay, listen=control))
            told["control"] = str(socket.address)
            text += f", controlled at {socket.address}"
        click.echo(_json_line("listening", **told) if as_json else text)
        await ended.wait()
    return dataclasses.replace(relay.statistics(), num_open=0)


def _json_line(event: str, **fields: object) -> str:
    return json.dumps({"event": event, **fields})


def _told(statistics: RelayStatistics) -> str:
    return (
        f"carried {statistics.up_bytes} bytes up and {statistics.down_bytes} bytes down "
        f"on {statistics.num_connections} connections"
    )
