"""Verifiers that end a stream with a status, send what they must not, or name another place to resume at."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NoReturn

import pytest
from harness.toy_client import PROMPT, TARGET, generation, place, surroundings
from harness.toy_cloud import LIMITS, ToyCloud
from harness.toy_verifier import toy_identity
from harness.virtual_time import run_virtually

from paceline.client.generation import Generation
from paceline.client.link import VerifierInfo
from paceline.client.memory import (
    MemoryConnector,
    MemoryLink,
    MemoryPeer,
    MemoryServer,
    _Pipe,
)
from paceline.client.outcome import GenerationResult
from paceline.client.runner import Surroundings
from paceline.client.settings import RetryPolicy
from paceline.errors import (
    ConfigError,
    IncompatibleError,
    InvalidRequestError,
    LinkClosed,
    OverloadedError,
    PacelineError,
    RemoteProtocolError,
    UnauthenticatedError,
)
from paceline.messages import CloudMessage, Commit, EdgeMessage, Failure, Open, Opened, Resume
from paceline.settings import Address
from paceline.tokens import Position, SessionId, TokenId

COUNT = 12
EXPECTED = TARGET.run(PROMPT, COUNT)
Script = Callable[[MemoryPeer], Awaitable[None]]
OPENED = Opened(
    session_id=SessionId(bytes(16)),
    limits=LIMITS,
    target=toy_identity(TARGET.vocabulary_size),
    length=Position(len(PROMPT)),
)


class Scripted:
    """A verifier that follows a script on each stream; the last one is repeated."""

    def __init__(self, group: asyncio.TaskGroup, *scripts: Script) -> None:
        self._group = group
        self._scripts = list(scripts)
        self.num_streams = 0

    def accept(self, peer: MemoryPeer) -> None:
        script = self._scripts[min(self.num_streams, len(self._scripts) - 1)]
        self.num_streams += 1
        self._group.create_task(self._follow(script, peer))

    async def describe(self, address: Address) -> VerifierInfo:
        raise LinkClosed(f"{address}: not told")

    async def _follow(self, script: Script, peer: MemoryPeer) -> None:
        try:
            await script(peer)
            while await peer.receive() is not None:
                pass
            peer.end()
        except PacelineError:
            pass  # the stream is over, by the script or by the edge


def _ends_with(error: PacelineError | None) -> Script:
    async def script(peer: MemoryPeer) -> None:
        await peer.receive()
        peer.end(error)

    return script


async def _serves(peer: MemoryPeer) -> None:
    """Open or resume, and commit everything at once."""
    await peer.receive()
    await peer.send(OPENED)
    await peer.send(Commit(position=Position(len(PROMPT)), tokens=EXPECTED))


def _ask(
    *scripts: Script, around: Callable[[Surroundings], Surroundings] = lambda same: same
) -> tuple[GenerationResult, int, float]:
    """Return the result, the number of streams, and how long it took."""

    async def main() -> tuple[GenerationResult | PacelineError, int, float]:
        async with asyncio.TaskGroup() as group:
            server = Scripted(group, *scripts)
            setting = surroundings([], retry=RetryPolicy(give_up_after_s=20.0))
            setting = replace(
                setting, connector=MemoryConnector({place(0): server}), verifiers=(place(0),)
            )
            outcome: GenerationResult | PacelineError
            async with generation(around(setting), max_tokens=COUNT) as answer:
                try:
                    outcome = await _first_tokens(answer)
                except PacelineError as error:
                    outcome = error  # the task group would wrap it
            return outcome, server.num_streams, asyncio.get_running_loop().time()

    outcome, num_streams, duration_s = run_virtually(main())
    if isinstance(outcome, PacelineError):
        raise outcome
    return outcome, num_streams, duration_s


async def _first_tokens(answer: Generation) -> GenerationResult:
    """Read up to the last token; the scripts do not say `finish`."""
    async for piece in answer:
        if piece.position == len(PROMPT) + COUNT - 1:
            break
    answer.cancel()
    return answer.result


def test_a_status_that_may_pass_is_tried_again() -> None:
    error = OverloadedError("full", retry_after_s=3.0)
    result, num_streams, duration_s = _ask(_ends_with(error), _ends_with(None), _serves)
    assert result.token_ids == EXPECTED
    assert num_streams == 3
    assert 3.0 < duration_s < 5.0


@pytest.mark.parametrize(
    "error", [UnauthenticatedError("who?"), IncompatibleError("wrong"), RemoteProtocolError("bad")]
)
def test_a_status_that_is_final_ends_the_generation(error: PacelineError) -> None:
    with pytest.raises(type(error), match=str(error).replace("?", r"\?")):
        _ask(_ends_with(error), _serves)


def test_a_verifier_that_breaks_the_rules_ends_the_generation() -> None:
    async def lies(peer: MemoryPeer) -> None:
        await peer.receive()
        await peer.send(OPENED)
        await peer.send(Commit(position=Position(99), tokens=(TokenId(1),)))

    with pytest.raises(RemoteProtocolError, match=r"commit\.position"):
        _ask(lies)


def test_what_is_wrong_with_our_own_settings_is_not_tried_again() -> None:
    class Misconfigured(MemoryConnector):
        async def connect(self, address: Address) -> NoReturn:
            raise ConfigError("ca_file: cannot read it")

    with pytest.raises(ConfigError, match="ca_file"):
        _ask(_serves, around=lambda s: replace(s, connector=Misconfigured({})))


def test_a_session_is_resumed_where_the_verifier_says() -> None:
    """Behind a balancer: `Opened.address` names the replica that holds the session."""
    firsts: dict[str, list[type]] = {"balancer": [], "replica": []}

    async def opens(peer: MemoryPeer) -> None:
        firsts["balancer"].append(type(await peer.receive()))
        await peer.send(replace(OPENED, address=str(place(1))))
        await peer.send(Commit(position=Position(len(PROMPT)), tokens=EXPECTED[:5]))
        peer.end()

    async def resumes(peer: MemoryPeer) -> None:
        firsts["replica"].append(type(await peer.receive()))
        await peer.send(replace(OPENED, length=Position(len(PROMPT) + 5)))
        await peer.send(Commit(position=Position(len(PROMPT) + 5), tokens=EXPECTED[5:]))

    async def main() -> GenerationResult:
        async with asyncio.TaskGroup() as group:
            servers: dict[Address, MemoryServer] = {
                place(0): Scripted(group, opens),
                place(1): Scripted(group, resumes),
            }
            setting = replace(
                surroundings([]), connector=MemoryConnector(servers), verifiers=(place(0),)
            )
            async with generation(setting, max_tokens=COUNT) as answer:
                return await _first_tokens(answer)

    assert run_virtually(main()).token_ids == EXPECTED
    assert firsts == {"balancer": [Open], "replica": [Resume]}


def test_a_replica_that_is_gone_is_looked_for_at_the_balancer() -> None:
    async def main() -> list[type]:
        firsts: list[type] = []

        async def opens(peer: MemoryPeer) -> None:
            firsts.append(type(await peer.receive()))
            await peer.send(replace(OPENED, address=str(place(1))))
            peer.end()

        async def serves(peer: MemoryPeer) -> None:
            firsts.append(type(await peer.receive()))
            await peer.send(OPENED)
            await peer.send(Commit(position=Position(len(PROMPT)), tokens=EXPECTED))

        async with ToyCloud(target=TARGET) as gone, asyncio.TaskGroup() as group:
            gone.is_up = False
            servers: dict[Address, MemoryServer] = {
                place(0): Scripted(group, opens, serves),
                place(1): gone,
            }
            setting = replace(
                surroundings([]), connector=MemoryConnector(servers), verifiers=(place(0),)
            )
            async with generation(setting, max_tokens=COUNT) as answer:
                await _first_tokens(answer)
        return firsts

    # A resume it cannot know of, which the real one answers with SESSION_LOST.
    assert run_virtually(main()) == [Open, Resume]


def test_why_a_verifier_stopped_listening_is_heard_out() -> None:
    """A write fails while the reason lies unread: it counts, not the failed write."""
    refusal = Failure(reason="INVALID_REQUEST", message="prompt: too long", retryable=False)

    class Late(MemoryLink):
        """Its reader gets a turn when a write has failed."""

        failed = asyncio.Event()

        async def send(self, message: EdgeMessage) -> None:
            try:
                await super().send(message)
            finally:
                self.failed.set()

        async def receive(self) -> CloudMessage:
            await self.failed.wait()
            return await super().receive()

    class Deaf(MemoryConnector):
        """Its streams say why they take nothing."""

        async def connect(self, address: Address) -> MemoryLink:
            up, down = _Pipe(), _Pipe()
            peer = MemoryPeer(up, down)
            await peer.send(OPENED)
            await peer.send(refusal)
            peer.end()
            return Late(up, down, silence_s=60.0)

    with pytest.raises(InvalidRequestError, match="prompt: too long"):
        _ask(_serves, around=lambda setting: replace(setting, connector=Deaf({})))
