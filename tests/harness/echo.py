"""Servers, clients and pings of plain TCP, for tests of what carries it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from paceline.settings import Address
from simulator.relay import Relay

PATIENCE_S = 10.0
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[Address]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                await handle(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # the test is over
            raise
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield Address(host="127.0.0.1", port=listening.sockets[0].getsockname()[1])


@asynccontextmanager
async def connected(relay: Relay) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def echo_after_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read(-1)
    writer.write(data[::-1])
    await writer.drain()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await test()

    asyncio.run(bounded())


async def ping(stream: Stream, data: bytes = b"ping") -> float:
    """Return the seconds that one message takes there and back."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    stream[1].write(data)
    assert await stream[0].readexactly(len(data)) == data
    return loop.time() - started_s
