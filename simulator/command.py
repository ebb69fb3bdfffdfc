"""`paceline link`: the emulated wide-area link as a process of its own."""

import asyncio
import dataclasses
import json
import signal

import click

from paceline.settings import ADDRESS, BANDWIDTH, DURATION, Address
from simulator.link import LinkSettings
from simulator.relay import Relay, RelayStatistics, precise_loop


@click.command()
@click.option(
    "--listen", type=ADDRESS, default="127.0.0.1:0", help="Where clients connect; port 0 is any."
)
@click.option("--to", type=ADDRESS, required=True, help="The server behind the link.")
@click.option("--rtt", type=DURATION, default="60ms", help="Round trip time; half of it each way.")
@click.option("--bandwidth", type=BANDWIDTH, help="Of each way, 20mbit for example.  [unlimited]")
@click.option(
    "--drop-idle-after", type=DURATION, help="Forget idle flows after this, as NATs do.  [never]"
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines.")
def link(
    *,
    listen: Address,
    to: Address,
    rtt: float,
    bandwidth: float | None,
    drop_idle_after: float | None,
    as_json: bool,
) -> None:
    """Carry TCP connections over an emulated wide-area link.

    Programs that connect to --listen reach --to with the delay and bandwidth of a long way, without root rights.
    Ends on Ctrl-C or SIGTERM and then tells what it carried.

    Example: paceline link --rtt 60ms --bandwidth 20mbit --listen 127.0.0.1:7701 --to 127.0.0.1:7700
    """
    settings = LinkSettings(
        delay_s=rtt / 2, bandwidth_bps=bandwidth, drop_idle_after_s=drop_idle_after
    )
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        statistics = runner.run(_carry(to=to, listen=listen, settings=settings, as_json=as_json))
    click.echo(
        _json_line("closed", **dataclasses.asdict(statistics)) if as_json else _told(statistics)
    )


async def _carry(
    *, to: Address, listen: Address, settings: LinkSettings, as_json: bool
) -> RelayStatistics:
    """Run the relay until a signal ends it."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Relay(to=to, listen=listen, settings=settings) as relay:
        where = relay.address
        ready = _json_line("listening", host=where.host, port=where.port)
        click.echo(ready if as_json else f"listening on {where}")
        await ended.wait()
    return dataclasses.replace(relay.statistics(), num_open=0)


def _json_line(event: str, **fields: object) -> str:
    return json.dumps({"event": event, **fields})


def _told(statistics: RelayStatistics) -> str:
    return (
        f"carried {statistics.up_bytes} bytes up and {statistics.down_bytes} bytes down "
        f"on {statistics.num_connections} connections"
    )
