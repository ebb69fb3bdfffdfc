"""Whether the agent can answer: asks the verifier, but not more often than anybody needs to know."""

import asyncio
from typing import Any

from paceline.client.client import Client
from paceline.clock import Clock, MonotonicClock
from paceline.errors import PacelineError
from paceline.logs import mask_secrets

FRESH_S = 1.0
"""A report this young is given again: health is open to everybody who can connect."""
PATIENCE_S = 2.0
"""Longest wait for the verifier's answer, below the timeout of usual probes."""


class Health:
    """Reports on the verifier."""

    def __init__(self, client: Client, *, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or MonotonicClock()
        self._asking = asyncio.Lock()
        self._report: dict[str, Any] = {}
        self._reported_s = -FRESH_S

    async def report(self) -> dict[str, Any]:
        """Return status and verifier; waits at most PATIENCE_S for others and as long again for its own."""
        async with self._asking:
            if self._clock.now_s() - self._reported_s >= FRESH_S or not self._report:
                self._report = await self._ask()
                self._reported_s = self._clock.now_s()
            return self._report

    async def _ask(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                info = await self._client.describe()
        except TimeoutError:
            problem = f"no answer within {PATIENCE_S:g} s"
        except PacelineError as error:
            problem = mask_secrets(str(error))
        else:
            verifier = {
                "reachable": True,
                "address": str(info.address),
                "rtt_ms": round(info.rtt_s * 1000, 3),
            }
            return {"status": "ok", "verifier": verifier}
        return {"status": "unavailable", "verifier": {"reachable": False, "problem": problem}}
