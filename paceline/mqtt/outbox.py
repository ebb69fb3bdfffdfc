"""What waits to be taken by the broker, and what it must be told again after it was lost."""

import asyncio
from collections import OrderedDict

from paceline.mqtt.lanes import MAX_NAMES, Lanes, Letter


class Outbox:
    """The newest letter of each name, from `post` until the broker has taken it; retained ones for good.

    A letter is taken out with `take` and then either `taken` by the broker or `lost`.
    """

    def __init__(self) -> None:
        self._letters = Lanes(depth=1)
        self._retained: OrderedDict[str, bytes] = OrderedDict()
        self._num_waiting = asyncio.Semaphore(0)
        self._num_under_way = 0
        self._all_taken = asyncio.Event()
        self._all_taken.set()
        self.num_taken = 0
        self.num_dropped = 0

    def post(self, letter: Letter) -> None:
        """Put a letter in; one of the same name that still waits is dropped."""
        if letter.retain:
            # Also what clears a topic, until the broker has taken it.
            self._retained[letter.name] = letter.payload
            self._retained.move_to_end(letter.name)
            if len(self._retained) > MAX_NAMES:
                self._retained.popitem(last=False)
        self.num_dropped += self._put(letter)

    def repost_retained(self) -> None:
        """Say everything retained again: the broker may have lost it, or have published our will."""
        for name, payload in self._retained.items():
            self._put(Letter(name=name, payload=payload, retain=True))

    async def take(self) -> Letter:
        """Wait for a letter and return it."""
        letter = None
        while letter is None:  # fewer wait than were counted if a large one pushed out several
            # One letter wakes one of those who wait.
            await self._num_waiting.acquire()
            letter = self._letters.take()
        self._num_under_way += 1
        return letter

    def taken(self, letter: Letter) -> None:
        """The broker has it."""
        self.num_taken += 1
        if letter.retain and not letter.payload and self._retained.get(letter.name) == b"":
            del self._retained[letter.name]
        self._ended()

    def lost(self, letter: Letter) -> None:
        """The connection broke before the broker said that it has it. What is retained comes again with the next one."""
        self.num_dropped += 0 if letter.retain else 1
        self._ended()

    async def all_taken(self) -> None:
        """Wait until nothing waits and nothing is under way."""
        await self._all_taken.wait()

    def _put(self, letter: Letter) -> int:
        """Put a letter in and return how many were dropped for it."""
        num_dropped = self._letters.put(letter)
        if not num_dropped:
            self._num_waiting.release()
        self._all_taken.clear()
        return num_dropped

    def _ended(self) -> None:
        self._num_under_way -= 1
        if not self._letters and not self._num_under_way:
            self._all_taken.set()
