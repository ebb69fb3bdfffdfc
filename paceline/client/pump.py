"""Drafting while proposals are in flight: the one thread that drafts, and the loop that keeps it busy."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ClassVar, Protocol, Self, TypeVar

from paceline.client.session_trace import SessionTrace
from paceline.client.tally import DrafterWork
from paceline.clock import Clock
from paceline.drafter import Draft, Drafter, TreeDraft
from paceline.errors import ModelError
from paceline.messages import Open
from paceline.session import EdgeSession
from paceline.session.events import Drafted, EdgeEvent, Grown, NothingToDraft, Steer
from paceline.session.growth import GrownLeaf, GrowthRequest
from paceline.tokens import TokenId

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Worker(Protocol):
    """Runs the drafter's calls one after the other, outside the event loop."""

    async def run(self, call: Callable[[], Result]) -> Result:
        """Return what `call` returns. A cancelled caller does not wait for a call that has begun."""
        ...


class DraftingThread:
    """The process's one drafting thread: models are not made for two callers at once. Lives while anybody holds it.

    What waits for it is bounded by the callers: each generation waits for one call at a time.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _executor: ClassVar[ThreadPoolExecutor | None] = None
    _num_holders: ClassVar[int] = 0

    def __enter__(self) -> Self:
        """Hold the thread."""
        cls = type(self)
        with cls._lock:
            cls._num_holders += 1
            if cls._executor is None:
                cls._executor = ThreadPoolExecutor(1, thread_name_prefix="paceline-drafting")
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it; the last one waits until it has ended."""
        cls = type(self)
        with cls._lock:
            cls._num_holders -= 1
            executor = cls._executor if cls._num_holders == 0 else None
            if executor is not None:
                cls._executor = None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=False)

    async def run(self, call: Callable[[], Result]) -> Result:
        """See `Worker`."""
        executor = type(self)._executor  # noqa: SLF001 - our own class
        assert executor is not None, "the thread is not held"
        return await asyncio.get_running_loop().run_in_executor(executor, call)


class DraftingPump:
    """Drafts for one session until it is cancelled.

    Args:
        session: whose text goes on; only read here.
        apply: hands an event to the session and carries out what follows.
        changed: is set whenever the session may have moved; cleared here.
        worker: runs the drafter.
        clock: for the time the drafter takes.
        drafted: is told of the time in seconds and the number of tokens, whenever the drafter gave some.
    """

    def __init__(
        self,
        session: EdgeSession,
        *,
        apply: Callable[[EdgeEvent], None],
        changed: asyncio.Event,
        worker: Worker,
        clock: Clock,
        drafted: Callable[[float, int], None],
    ) -> None:
        self._session = session
        self._apply = apply
        self._changed = changed
        self._worker = worker
        self._clock = clock
        self._drafted = drafted
        self.work = DrafterWork()
        self.has_failed = False
        """The drafter is left alone for good."""
        self.tokens_per_message = 1
        """Most tokens drafted at a time; may change while it runs."""
        self.log_fields: dict[str, str] = {}
        """What log lines say of the session."""
        self.trace: SessionTrace | None = None
        """Notes every call, if anybody wants to know."""

    async def run(self, drafter: Drafter) -> None:
        """Draft until the session is over. A drafter that fails is left alone from then on, which is logged."""
        holder = _Holder(drafter)
        session = self._session
        try:
            while session.draft_length == 0:  # a model's memory is taken when it is needed, if ever
                self._changed.clear()
                await self._changed.wait()
            await self._worker.run(lambda: holder.open(session.request))
            pump = self._pump_tree if holder.has_trees and session.has_growth else self._pump
            await pump(holder)
        except ModelError as error:
            logger.warning(
                "drafter %s failed, the text goes on without drafts: %s",
                drafter.name,
                error,
                extra=self.log_fields,
            )
            self.has_failed = True
            self._apply(Steer(draft_length=0, window=session.window))
            self._apply(NothingToDraft())
        finally:
            # Queued behind a call that may still run, so it is done even if we are cancelled once more.
            await asyncio.shield(self._worker.run(holder.close))

    async def _pump(self, holder: "_Holder") -> None:
        session = self._session
        while not session.is_over:
            self._changed.clear()
            request = session.draft_request
            if request is None:
                await self._changed.wait()
                continue
            text = (*session.log, *request.path)
            limit = min(request.limit, self.tokens_per_message)
            started_s = self._clock.now_s()
            extend = partial(holder.extend, text, limit, num_guessed=len(request.path))
            tokens = await self._worker.run(extend)
            self._note(started_s, position=len(text), num_tokens=len(tokens or ()))
            if tokens:
                self._apply(Drafted(position=request.position, tokens=(*request.path, *tokens)))
            elif tokens is not None and session.length == request.position:
                self._apply(NothingToDraft())
                while session.length == request.position and not session.is_over:
                    self._changed.clear()
                    await self._changed.wait()

    async def _pump_tree(self, holder: "_Holder") -> None:
        session = self._session
        while not session.is_over:
            self._changed.clear()
            request = session.growth_request
            if request is None:
                await self._changed.wait()
                continue
            started_s = self._clock.now_s()
            branch = partial(holder.branch, tuple(session.log), request)
            leaves = await self._worker.run(branch)
            num_tokens = sum(len(leaf.guesses) for leaf in leaves or ())
            self._note(started_s, position=request.position, num_tokens=num_tokens)
            if leaves is not None:
                now_s = self._clock.now_s()
                self._apply(Grown(position=request.position, leaves=leaves, at_s=now_s))

    def _note(self, started_s: float, *, position: int, num_tokens: int) -> None:
        """Count a call of the drafter that has just ended."""
        took_s = self._clock.now_s() - started_s
        self.work.time_s += took_s
        if self.trace is not None:
            self.trace.drafted(
                at_s=started_s, end_s=started_s + took_s, position=position, num_tokens=num_tokens
            )
        if num_tokens:
            self.work.num_tokens += num_tokens
            self._drafted(took_s, num_tokens)


class _Holder:
    """A draft and its drafter; all methods run on the worker."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self._draft: Draft | None = None
        self._trees: TreeDraft | None = None

    def open(self, request: Open) -> None:
        self._draft = self._drafter.open(
            prompt_length=len(request.prompt),
            max_tokens=request.max_tokens,
            sampling=request.sampling,
        )
        # Looked at once: a protocol takes as long to look at as a message takes to send.
        self._trees = self._draft if isinstance(self._draft, TreeDraft) else None

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int
    ) -> tuple[TokenId, ...] | None:
        """Return guesses, or None while there is more to prepare."""
        assert self._draft is not None, "opened before"
        if self._draft.prepare(text):
            return None
        return self._draft.extend(text, limit, num_guessed=num_guessed)

    @property
    def has_trees(self) -> bool:
        return self._trees is not None

    def branch(
        self, text: Sequence[TokenId], request: GrowthRequest
    ) -> tuple[GrownLeaf, ...] | None:
        """Return guesses after each leaf, or None while there is more to prepare."""
        assert self._trees is not None, "looked at before"
        if self._trees.prepare(text):
            return None
        found = self._trees.branch(text, request.paths, width=request.width)
        return tuple(
            GrownLeaf(path=path, guesses=guesses)
            for path, guesses in zip(request.paths, found, strict=True)
        )

    def close(self) -> None:
        if self._draft is not None:
            self._draft.close()
