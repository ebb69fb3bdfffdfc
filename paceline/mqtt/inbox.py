"""What came and waits to be read."""

import asyncio
import logging
from collections.abc import AsyncIterator

from paceline.codec.control import MAX_PAYLOAD_BYTES
from paceline.errors import RemoteProtocolError
from paceline.mqtt.lanes import Lanes, Letter
from paceline.topics import Received, locate, read

log = logging.getLogger(__name__)

DEPTH = 8
"""How many unread messages of one name that is not retained are kept."""

READ_AT_ONCE = 64
"""Messages that are read before other tasks have their turn."""

MALFORMED_LOG_S = 60.0
"""Shortest time between two log lines about messages that cannot be read."""


class Inbox:
    """Takes in whatever comes, at once, and sheds what is not read in time."""

    def __init__(self) -> None:
        self._letters = Lanes(depth=DEPTH)
        self._news = asyncio.Event()
        self._logged_s: float | None = None
        self.num_received = 0
        self.num_shed = 0
        self.num_malformed = 0

    def deliver(self, name: str, payload: bytes) -> None:
        """Take in a message. Never waits and never raises: the broker's library calls it."""
        self.num_received += 1
        if len(payload) > MAX_PAYLOAD_BYTES:
            size = len(payload)
            self._refuse(name, f"payload: got {size} bytes, expected at most {MAX_PAYLOAD_BYTES}")
            return
        try:
            topic, _ = locate(name)
        except RemoteProtocolError as error:
            self._refuse(name, str(error))
            return
        letter = Letter(name=name, payload=payload, retain=topic.retain)
        self.num_shed += self._letters.put(letter)
        self._news.set()

    async def messages(self) -> AsyncIterator[Received]:
        """Give what came and can be read, for ever; for one reader."""
        num_read = 0
        while True:
            while (letter := self._letters.take()) is None:
                self._news.clear()
                await self._news.wait()
            num_read += 1
            if num_read % READ_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                received = read(letter.name, letter.payload)
            except RemoteProtocolError as error:
                self._refuse(letter.name, str(error))
                continue
            yield received

    def _refuse(self, name: str, reason: str) -> None:
        self.num_malformed += 1
        now_s = asyncio.get_running_loop().time()
        if self._logged_s is None or now_s - self._logged_s >= MALFORMED_LOG_S:
            self._logged_s = now_s
            so_far = {"topic": name[:100], "reason": reason, "num_so_far": self.num_malformed}
            log.warning("control message cannot be read", extra=so_far)
