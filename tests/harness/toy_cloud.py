"""A whole verifier without gRPC and without a model: real CloudSessions on a toy target, in virtual time.

Serves in-memory links. Messages take `one_way_s` in each direction, many may be under way. A test can kill it, start it
again (its sessions are lost then), cut all streams (they are kept), or let it drain or refuse.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from harness.toy import ToyTarget
from harness.toy_verifier import toy_identity

from paceline.client.link import VerifierInfo
from paceline.client.memory import MemoryPeer
from paceline.errors import LinkClosed, PacelineError
from paceline.messages import (
    Close,
    CloudMessage,
    Drain,
    EdgeMessage,
    Failure,
    Limits,
    Open,
    Opened,
    Proposal,
    Resume,
)
from paceline.session import CloudSession
from paceline.session.events import Attach, Detach, FromEdge, Stepped
from paceline.session.table import CloudState
from paceline.settings import Address
from paceline.tokens import SessionId

LIMITS = Limits(window=64, max_lead=256, context_length=512, max_tokens=256, lease_ms=1000)


@dataclass(kw_only=True, eq=False)
class _Stream:
    number: int
    peer: MemoryPeer
    down: deque[tuple[float, CloudMessage]] = field(default_factory=deque)
    posted: asyncio.Event = field(default_factory=asyncio.Event)
    session: CloudSession | None = None


class ToyCloud:
    """See the module. `failure`, if set, answers every new stream."""

    def __init__(
        self,
        *,
        target: ToyTarget,
        step_s: float = 0.01,
        one_way_s: float = 0.0,
        race: bool = True,
        limits: Limits = LIMITS,
    ) -> None:
        self.target = target
        self.limits = limits
        self.failure: Failure | None = None
        self.is_up = True
        self.received: list[EdgeMessage] = []
        self.sessions: dict[SessionId, CloudSession] = {}
        self.one_way_s = one_way_s
        """How long a message takes; what is posted from now on takes so long."""
        self._step_s = step_s
        self._race = race
        self._streams: list[_Stream] = []
        self._num_streams = 0
        self._work = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._stepper = self._group.create_task(self._step_all())
        self._serving: list[asyncio.Task[None]] = []
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in (self._stepper, *self._serving):
            task.cancel()
        await self._group.__aexit__(None, None, None)

    # --- MemoryServer

    def accept(self, peer: MemoryPeer) -> None:
        if not self.is_up:
            raise LinkClosed("toy: nobody listens")
        self._num_streams += 1
        stream = _Stream(number=self._num_streams, peer=peer)
        self._streams.append(stream)
        self._serving.append(self._group.create_task(self._serve(stream)))

    async def describe(self, address: Address) -> VerifierInfo:
        if not self.is_up:
            raise LinkClosed("toy: nobody listens")
        await asyncio.sleep(2 * self.one_way_s)
        return VerifierInfo(
            address=address,
            target=toy_identity(self.target.vocabulary_size),
            limits=self.limits,
            protocol_version=1,
            rtt_s=2 * self.one_way_s,
        )

    # --- what a test does to it

    def kill(self) -> None:
        """SIGKILL: streams break, sessions are forgotten, nobody listens."""
        self.is_up = False
        self.sessions.clear()
        for stream in self._streams:
            stream.peer.vanish()

    def cut(self) -> None:
        """All streams break; the sessions stay."""
        for stream in self._streams:
            stream.peer.vanish()

    def drain(self) -> None:
        """Ask every edge to move."""
        for stream in self._streams:
            if stream.session is not None:  # `Opened` always comes first
                self._post(stream, Drain(deadline_ms=60_000))

    @property
    def num_drafted(self) -> int:
        return sum(len(m.tokens) for m in self.received if isinstance(m, Proposal))

    # --- the shell

    async def _serve(self, stream: _Stream) -> None:
        up: asyncio.Queue[tuple[float, EdgeMessage | None]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(stream))
                taker = group.create_task(self._take_all(stream, up))
                while (message := await _receive(stream.peer)) is not None:
                    up.put_nowait((loop.time() + self.one_way_s, message))
                up.put_nowait((loop.time() + self.one_way_s, None))
                await taker
                writer.cancel()
        finally:
            self._streams.remove(stream)
            stream.peer.end()
            if stream.session is not None and stream.session.state is not CloudState.CLOSED:
                stream.session.handle(Detach(stream=stream.number))

    async def _take_all(
        self, stream: _Stream, up: "asyncio.Queue[tuple[float, EdgeMessage | None]]"
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, message = await up.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if message is None:
                return
            self.received.append(message)
            self._take(stream, message)

    def _take(self, stream: _Stream, message: EdgeMessage) -> None:
        match message:
            case Open() | Resume() if self.failure is not None:
                self._post(stream, self.failure)
            case Open():
                session = CloudSession(
                    request=message,
                    limits=self.limits,
                    vocabulary_size=self.target.vocabulary_size,
                    stream=stream.number,
                )
                self.sessions[SessionId(stream.number.to_bytes(16))] = session
                self._welcome(stream, session)
            case Resume():
                held = self.sessions.get(message.session_id)
                if held is None:
                    lost = Failure(reason="SESSION_LOST", message="not held", retryable=True)
                    self._post(stream, lost)
                    return
                held.handle(Attach(stream=stream.number, length=message.length))
                self._welcome(stream, held)
            case Proposal() | Close():
                if stream.session is not None:
                    stream.session.handle(FromEdge(stream=stream.number, message=message))
                    if isinstance(message, Close):
                        self._forget(stream.session)
        self._work.set()

    def _welcome(self, stream: _Stream, session: CloudSession) -> None:
        stream.session = session
        known = next(key for key, held in self.sessions.items() if held is session)
        opened = Opened(
            session_id=known,
            limits=self.limits,
            target=toy_identity(self.target.vocabulary_size),
            length=session.length,
        )
        self._post(stream, opened)

    def _forget(self, session: CloudSession) -> None:
        self.sessions = {key: held for key, held in self.sessions.items() if held is not session}

    def _post(self, stream: _Stream, message: CloudMessage) -> None:
        due_s = asyncio.get_running_loop().time() + self.one_way_s
        stream.down.append((due_s, message))
        stream.posted.set()

    async def _write(self, stream: _Stream) -> None:
        while True:
            while stream.down:
                due_s, message = stream.down[0]
                await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
                stream.down.popleft()
                try:
                    await stream.peer.send(message)
                except PacelineError:
                    return
            stream.posted.clear()
            await stream.posted.wait()

    async def _step_all(self) -> None:
        """One step at a time for each session that may have one, all of them together."""
        while True:
            self._work.clear()
            ready = [
                session
                for session in self.sessions.values()
                if session.may_step and (self._race or session.has_drafts or session.edge_is_idle)
            ]
            if not ready:
                self._commit_all()
                await self._work.wait()
                continue
            drawn = [(s, self.target.walk(s.log, s.offer(64))) for s in ready]
            await asyncio.sleep(self._step_s)
            for session, tokens in drawn:
                session.handle(
                    Stepped(
                        tokens=tokens, num_rows=len(tokens), verify_ns=round(self._step_s * 1e9)
                    )
                )
            self._commit_all()

    def _commit_all(self) -> None:
        for stream in self._streams:
            session = stream.session
            while session is not None:
                commit = session.next_commit(stream=stream.number)
                if commit is None:
                    break
                self._post(stream, commit)


async def _receive(peer: MemoryPeer) -> EdgeMessage | None:
    try:
        return await peer.receive()
    except PacelineError:
        return None
