"""One generation as its caller sees it: an asynchronous iterator of pieces, then a result."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from paceline.client.outcome import EndReason, GenerationResult, Piece, Statistics
from paceline.client.runner import SessionRunner, Surroundings
from paceline.client.session_trace import SessionTrace
from paceline.client.text import StopStrings
from paceline.engine.detokenizer import Detokenizer
from paceline.errors import LocalProtocolError, PacelineError
from paceline.messages import Commit, FinishReason, Open
from paceline.session import EdgeSession
from paceline.session.events import Failed, Finished, Stop
from paceline.tokens import Position, TokenId


class Generation:
    """Made by `Client.generate`; runs while it is entered with `async with`. Leaving early cancels it.

        async with client.generate(prompt="...") as generation:
            async for piece in generation: ...
        generation.result

    Pieces that nobody fetches are kept; there are at most `max_tokens` of them.
    """

    def __init__(
        self,
        request: Open,
        *,
        detokenizer: Detokenizer,
        stop: Sequence[str],
        surroundings: Surroundings,
        trace: SessionTrace | None = None,
    ) -> None:
        self._request = request
        self._detokenizer = detokenizer
        self._stops = StopStrings(stop)
        self._around = surroundings
        self._stop_tokens = frozenset(request.stop_tokens)
        drafts = surroundings.drafter is not None
        session = EdgeSession(
            request=request,
            draft_length=surroundings.drafting.draft_length if drafts else 0,
            window=surroundings.drafting.window,
            growth=surroundings.drafting.growth,
            pipeline=surroundings.drafting.pipeline,
        )
        self._runner = SessionRunner(
            session,
            surroundings=surroundings,
            deliver=self._on_commit,
            end=self._on_end,
            trace=trace,
        )
        self._group = asyncio.TaskGroup()
        self._fresh: deque[Piece] = deque()
        self._news = asyncio.Event()
        self._text: list[str] = []
        self._token_ids: list[TokenId] = []
        self._end: EndReason | None = None
        self._error: BaseException | None = None
        self._ended_statistics: Statistics | None = None

    async def __aenter__(self) -> Self:
        """Start."""
        around, now_s = self._around, self._around.clock.now_s()
        self._runner.started(now_s=now_s)
        around.running[self._runner] = None
        around.ledger.began(now_s=now_s)
        if around.observer is not None:
            around.observer.generation_started()
        await self._group.__aenter__()
        self._group.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel what is not over yet and wait until everything is put away."""
        self.cancel()
        try:
            # The group never sees the caller's own exception: it would come out wrapped in an ExceptionGroup.
            await self._group.__aexit__(None, None, None)
        finally:
            self._account()  # a task that is cancelled before its first step does not come to its end

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Return the pieces, one per committed token, as they come."""
        return self

    async def __anext__(self) -> Piece:
        """Return the next piece.

        Raises:
            PacelineError: the generation failed; what was given before is final.
        """
        while not self._fresh:
            if self._error is not None:
                raise self._error
            if self._end is not None:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._fresh.popleft()

    async def complete(self) -> GenerationResult:
        """Wait for the end and return the result, for callers who do not want the pieces.

        Raises:
            PacelineError: the generation failed.
        """
        async for _ in self:
            pass
        return self.result

    def cancel(self) -> None:
        """End the generation now and free the session; does nothing if it is over."""
        if self._end is None and self._error is None:
            self._give(self._stops.flush())
            self._finish(EndReason.CANCELLED)
            self._runner.apply(Stop(cancelled=True))

    @property
    def seed(self) -> int:
        """Seed of the noise."""
        return self._request.sampling.seed

    @property
    def prompt_ids(self) -> tuple[TokenId, ...]:
        """The prompt as the target sees it."""
        return self._request.prompt

    @property
    def statistics(self) -> Statistics:
        """What it cost up to now."""
        return self._ended_statistics or self._runner.statistics(now_s=self._around.clock.now_s())

    @property
    def result(self) -> GenerationResult:
        """The result of a generation that is over; what there is of a cancelled one.

        Raises:
            PacelineError: the generation failed.
            LocalProtocolError: it still runs.
        """
        if self._error is not None:
            raise self._error
        if self._end is None:
            raise LocalProtocolError("result: the generation still runs; iterate to its end first")
        return GenerationResult(
            text="".join(self._text),
            token_ids=tuple(self._token_ids),
            finish_reason=self._end,
            prompt_tokens=len(self._request.prompt),
            seed=self.seed,
            statistics=self.statistics,
        )

    # --- from the runner

    async def _run(self) -> None:
        try:
            await self._runner.run()
        except Exception as error:  # noqa: BLE001 - a bug, a drafter's perhaps; whoever iterates gets it
            self._fail(_innermost(error))
        finally:
            self._account()

    def _account(self) -> None:
        """Note once that it is over."""
        around, now_s = self._around, self._around.clock.now_s()
        if self._runner not in around.running:
            return
        del around.running[self._runner]
        statistics = self._ended_statistics = self._runner.statistics(now_s=now_s)
        around.ledger.ended(statistics, failed=self._error is not None, now_s=now_s)
        if around.observer is not None:
            error = self._error if isinstance(self._error, PacelineError) else None
            around.observer.generation_ended(statistics=statistics, reason=self._end, error=error)

    def _on_commit(self, commit: Commit) -> None:
        for i, token in enumerate(commit.tokens):
            if self._end is not None:
                return  # behind a stop string
            is_end = token in self._stop_tokens
            piece = Piece(
                text="" if is_end else self._detokenizer.feed((token,)),
                token_ids=(token,),
                accepted=bool(commit.accepted) and commit.accepted[i],
                position=Position(commit.position + i),
                logprobs=commit.logprobs[i] if commit.logprobs else None,
            )
            self._token_ids.append(token)
            progress = self._stops.push(piece)
            self._give(progress.pieces)
            if progress.stopped:
                self._finish(EndReason.STOP)
                self._runner.apply(Stop(cancelled=False))

    def _on_end(self, outcome: Finished | Failed) -> None:
        if self._end is not None:
            return
        if isinstance(outcome, Failed):
            self._give(self._stops.flush())
            self._fail(outcome.error)
            return
        self._flush(Position(len(self._request.prompt) + len(self._token_ids)))
        reason = EndReason.LENGTH if outcome.reason is FinishReason.LENGTH else EndReason.STOP
        self._finish(reason)

    def _flush(self, position: Position) -> None:
        """Give what was held back. An incomplete character at the very end belongs to no token of its own."""
        rest = self._detokenizer.finish()
        if rest:
            last = Piece(text=rest, token_ids=(), accepted=False, position=position)
            progress = self._stops.push(last)
            self._give(progress.pieces)
        self._give(self._stops.flush())

    def _give(self, pieces: Sequence[Piece]) -> None:
        self._fresh.extend(pieces)
        self._text.extend(piece.text for piece in pieces)
        self._news.set()

    def _finish(self, reason: EndReason) -> None:
        self._end = reason
        self._ended_statistics = self._runner.statistics(now_s=self._around.clock.now_s())
        self._news.set()

    def _fail(self, error: BaseException) -> None:
        if self._end is None and self._error is None:
            self._error = error
            self._news.set()


def _innermost(error: Exception) -> Exception:
    """Take a single exception out of the groups that task groups put it into."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
