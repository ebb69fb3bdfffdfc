"""One call of an edge that comes through Ray Serve's ingress, in the form in which the service takes calls.

Serve wants a generator of responses; the service reads and writes when it likes. Between the two lies a queue of one:
an edge that does not read costs what Serve itself buffers, which the protocol bounds by `max_lead`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NoReturn, Protocol
from urllib.parse import unquote

import grpc


class IngressContext(Protocol):
    """What is used of ray.serve.grpc_util.RayServegRPCContext."""

    def invocation_metadata(self) -> list[tuple[str, str]]: ...  # noqa: D102 - gRPC's own
    def auth_context(self) -> dict[str, Any]: ...  # noqa: D102
    def peer(self) -> str: ...  # noqa: D102
    def set_code(self, code: grpc.StatusCode) -> None: ...  # noqa: D102
    def set_details(self, details: str) -> None: ...  # noqa: D102


class CallRefused(Exception):  # noqa: N818 - it names what happened
    """Ends a call with the status that the context carries. Travels to the ingress, so that it must pickle."""


class IngressCall:
    """Implements `cloud.service.Context`.

    Args:
        context: Serve's.
        requests: what the edge sends, serialised; ends when it sends no more, or is gone.
        decode: parses one of them.
    """

    def __init__(
        self,
        context: IngressContext,
        *,
        requests: AsyncIterator[bytes],
        decode: Callable[[bytes], object],
    ) -> None:
        self._context = context
        self._requests = requests
        self._decode = decode
        self._responses: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
        self._failure: Exception | None = None

    async def read(self) -> object:
        """See `Context`."""
        try:
            payload = await anext(self._requests)
        except StopAsyncIteration:
            return None
        return self._decode(payload)

    async def write(self, message: Any, /) -> None:
        """See `Context`."""
        await self._responses.put(message)

    async def abort(self, code: grpc.StatusCode, details: str = "", /) -> NoReturn:
        """See `Context`."""
        refuse(self._context, code, details)

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """See `Context`."""
        return self._context.invocation_metadata()

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """See `Context`."""
        return self._context.auth_context()

    async def responses(
        self, serve: Callable[["IngressCall"], Awaitable[None]]
    ) -> AsyncIterator[Any]:
        """Run `serve` on this call and yield what it writes; leaving early cancels it.

        Raises:
            CallRefused: it aborted the call.
        """
        # No group: a generator is left by an exception that a group would wrap, and a task that failed in a group would
        # cancel whoever iterates, which is Serve's own code.
        serving = asyncio.create_task(self._run(serve))  # noqa: TID251
        try:
            while (message := await self._responses.get()) is not None:
                yield message
        finally:
            serving.cancel()
            await asyncio.wait({serving})
        if self._failure is not None:
            raise self._failure

    async def _run(self, serve: Callable[["IngressCall"], Awaitable[None]]) -> None:
        try:
            await serve(self)
        except Exception as error:  # noqa: BLE001 - raised again by `responses`
            self._failure = error
        await self._responses.put(None)


async def no_requests() -> AsyncIterator[bytes]:
    """Yield nothing: for calls whose only request has been read."""
    return
    yield b""


def refuse(context: IngressContext, code: grpc.StatusCode, details: str) -> NoReturn:
    """End a call with this status.

    Raises:
        CallRefused: always.
    """
    context.set_code(code)
    context.set_details(details)
    raise CallRefused(f"{code.name}: {details}")


def is_from_this_machine(peer: str) -> bool:
    """Return whether gRPC's name of a peer, "ipv4:127.0.0.1:4711" for example, is one on the machine of the ingress."""
    family, _, rest = unquote(peer).partition(":")
    if family == "unix":
        return True
    host = rest.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
