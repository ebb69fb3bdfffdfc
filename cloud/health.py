"""The standard gRPC health service, which answers without credentials and therefore has to be bounded."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # stubs lack it

MAX_WATCHERS = 16
"""Calls of `Watch` at once. Balancers need one each; more would take the calls that sessions need."""


class HealthService(health_aio.HealthServicer):  # type: ignore[misc]  # for the same reason
    """`Check` as it comes, and `Watch` for so many only."""

    def __init__(self) -> None:
        super().__init__()
        self.num_watchers = 0
        """Calls of `Watch` now."""

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Send the status now and whenever it changes."""
        if self.num_watchers >= MAX_WATCHERS:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"health: {self.num_watchers} watch already, which is the most; ask with Check instead",
            )
        self.num_watchers += 1
        try:
            await super().Watch(request, context)
        finally:
            self.num_watchers -= 1
