"""A real edge, `paceline edge`, and somebody who asks it over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, fields
from typing import Any

import aiohttp

from paceline.client.outcome import EndReason, Statistics
from simulator.testing.answer import DEFAULT_TOKENS, Answer, AskingFailedError, asking_seed
from simulator.testing.diary import Diary
from simulator.testing.process import Process
from simulator.testing.thread import LoopThread

PATIENCE_S = 180.0
"""Longest time for an answer; an edge itself gives up after 120 s without a token."""

_STATISTICS = tuple(field.name for field in fields(Statistics))
_DATA = b"data: "
_DONE = b"[DONE]"


class RealEdge:
    """An edge. What is asked here is asked one after the other.

    Args:
        process: the program.
        index: its number.
        seed: of the world.
        thread: where it is asked.
        diary: takes what happens.
    """

    def __init__(
        self, process: Process, *, index: int, seed: int, thread: LoopThread, diary: Diary
    ) -> None:
        self._process = process
        self._index = index
        self._seed = seed
        self._thread = thread
        self._diary = diary
        self._num_asked = 0
        self._turn = asyncio.Lock()

    @property
    def endpoint(self) -> str:
        """Where OpenAI clients connect, "http://HOST:PORT/v1"."""
        return f"http://{self._process.address}/v1"

    @property
    def model(self) -> str:
        """What OpenAI clients call the model."""
        return self._process.model

    def ask(self, prompt: str, *, max_tokens: int = DEFAULT_TOKENS) -> Answer:
        """Return the answer, drawn at temperature 0.

        Raises:
            AskingFailedError: the edge gave up.
        """
        return self.submit(prompt, max_tokens=max_tokens).answer()

    def submit(self, prompt: str, *, max_tokens: int = DEFAULT_TOKENS) -> "RealAsking":
        """Ask, and do not wait for the answer."""
        number = self._num_asked
        body = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "seed": asking_seed(self._seed, self._index, number),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        asking = RealAsking(self._thread)
        self._thread.do(lambda: self._thread.spawn(self._answer(asking, body, number)))
        self._num_asked += 1
        return asking

    def kill(self) -> None:
        """End the program with SIGKILL."""
        self._process.kill()

    def start(self) -> None:
        """Start it again; return when it is ready. What was not answered yet is asked again."""
        self._process.start()

    async def _answer(self, asking: "RealAsking", body: dict[str, Any], number: int) -> None:
        """Ask, and again for as long as the test kills the edge meanwhile."""
        name = self._process.settings.name
        async with self._turn:
            while not asking.is_over:
                await self._process.ready()
                self._diary.tell(name, "asks", request=number)
                life, asking.progress = self._process.num_lives, Progress()
                try:
                    await self._ask_once(asking, body | {"model": self.model})
                except aiohttp.ClientError as error:
                    if life == self._process.num_lives and self._process.is_running:
                        asking.fail(f"{name}: {type(error).__name__}: {error}")
                except AskingFailedError as error:
                    asking.fail(str(error))
        if asking.error is not None:
            self._diary.tell(name, "failed", error=asking.error)
        else:
            self._diary.tell(name, "answered", tokens=asking.num_tokens)

    async def _ask_once(self, asking: "RealAsking", body: dict[str, Any]) -> None:
        name = self._process.settings.name
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{self.endpoint}/completions", json=body) as response,
        ):
            if response.status != 200:
                raise AskingFailedError(f"{name}: {response.status}: {await response.text()}")
            async for chunk in _chunks(response.content):
                if "error" in chunk:
                    raise AskingFailedError(f"{name}: {chunk['error'].get('message')}")
                asking.take(chunk)
        if not asking.is_over:
            raise aiohttp.ClientPayloadError("the stream ended before the answer")


@dataclass(slots=True, kw_only=True)
class Progress:
    """What came of an answer so far."""

    text: str = ""
    num_tokens: int = 0
    reason: EndReason | None = None
    statistics: Statistics | None = None


class RealAsking:
    """Something that was asked.

    Args:
        thread: where it is asked.
    """

    def __init__(self, thread: LoopThread) -> None:
        self.progress = Progress()
        self.error: str | None = None
        self._thread = thread
        self._progressed = asyncio.Event()

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer so far."""
        return self.progress.num_tokens

    @property
    def is_over(self) -> bool:
        """It was answered, or failed."""
        return self.error is not None or self.progress.statistics is not None

    def wait_for_tokens(self, count: int) -> None:
        """Wait until the answer has so many tokens.

        Raises:
            AskingFailedError: it ended before.
        """
        self._wait(lambda: self.num_tokens >= count or self.is_over)
        if self.num_tokens < count:
            self.answer()
            raise AskingFailedError(
                f"the answer ended after {self.num_tokens} tokens, expected {count} before"
            )

    def answer(self) -> Answer:
        """Wait until the answer is complete, and return it.

        Raises:
            AskingFailedError: the edge gave up.
        """
        self._wait(lambda: self.is_over)
        if self.error is not None:
            raise AskingFailedError(self.error)
        done = self.progress
        assert done.reason is not None
        assert done.statistics is not None
        return Answer(
            text=done.text,
            num_tokens=done.num_tokens,
            finish_reason=done.reason,
            statistics=done.statistics,
        )

    # --- the edge's side, in the loop

    def take(self, chunk: dict[str, Any]) -> None:
        """Take a chunk of the stream."""
        progress = self.progress
        for choice in chunk["choices"]:
            if choice["finish_reason"] is not None:
                progress.reason = EndReason(choice["finish_reason"])
            else:
                progress.text += choice["text"]
                progress.num_tokens += 1
        if chunk.get("usage"):
            told = chunk["paceline"]["statistics"]
            progress.num_tokens = chunk["usage"]["completion_tokens"]
            progress.statistics = Statistics(**{name: told[name] for name in _STATISTICS})
        self._progress()

    def fail(self, error: str) -> None:
        """End without an answer."""
        self.error = error
        self._progress()

    def _progress(self) -> None:
        self._progressed.set()
        self._progressed = asyncio.Event()

    def _wait(self, is_true: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not is_true():
                await self._progressed.wait()

        self._thread.call(wait(), within_s=PATIENCE_S)


async def _chunks(stream: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Give the events of a stream up to its end."""
    async for line in stream:
        if line.startswith(_DATA) and (data := line.removeprefix(_DATA).strip()) != _DONE:
            yield json.loads(data)
