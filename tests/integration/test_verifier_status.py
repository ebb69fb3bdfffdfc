"""A verifier process in the fleet: what it tells a broker while it runs, drains, ends and dies."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from harness.control import quick
from harness.event_loop import run_async
from harness.models import save_tiny, tiny_llama
from harness.processes import Child, free_port, running
from harness.raw_edge import GREEDY, LOOPBACK, RawStream, serving, until

from cloud.announcing import AnnouncementSettings, announcing
from orchestrator.embedded import embedded_broker
from paceline.control.messages import VerifierStatus
from paceline.engine.loading import load_tokenizer, resolve
from paceline.messages import Commit, Open, Opened
from paceline.mqtt.link import ControlLink, control_link
from paceline.mqtt.settings import BrokerSettings
from paceline.settings import Address
from paceline.tokens import TokenId
from paceline.topics import VERIFIER_STATUS

READY = r"^paceline cloud ready on (\S+)$"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@contextmanager
def cloud(model: Path, broker: Address, *arguments: str) -> Iterator[Child]:
    """A verifier that loads while the test goes on."""
    options = ("--target", str(model), "--listen", "127.0.0.1:0", "--threads", "1")
    fleet = ("--broker", str(broker), "--min-step", "10ms")
    with running("paceline.command", "cloud", *options, *fleet, *arguments) as child:
        yield child


@asynccontextmanager
async def watching(broker: Address) -> AsyncIterator["Watch"]:
    async with control_link(quick(broker), name="watch", subscriptions=(VERIFIER_STATUS,)) as link:
        yield Watch(link)


class Watch:
    """Everything that verifiers have said, and waiting for what they will say."""

    def __init__(self, link: ControlLink) -> None:
        self._messages = link.messages()
        self.seen: list[tuple[str, VerifierStatus]] = []

    async def until(self, condition: Callable[[VerifierStatus], bool]) -> VerifierStatus:
        """Read on until somebody says something like this."""
        async for received in self._messages:
            assert isinstance(received.value, VerifierStatus)
            self.seen.append((received.member, received.value))
            if condition(received.value):
                return received.value
        raise AssertionError("the messages have no end")


async def ready(child: Child) -> str:
    return (await asyncio.to_thread(child.wait_for, READY))[1]


def request(model: Path, *, max_tokens: int) -> Open:
    return Open(
        tokenizer_fingerprint=load_tokenizer(resolve(str(model))).fingerprint,
        prompt=(TokenId(5), TokenId(17)),
        sampling=GREEDY,
        max_tokens=max_tokens,
    )


def test_a_verifier_tells_how_it_is_drains_at_once_and_says_goodbye(model: Path) -> None:
    async def main() -> None:
        async with embedded_broker(LOOPBACK) as broker, watching(broker) as watch:
            with cloud(model, broker, "--max-sessions", "1", "--drain", "10s") as child:
                address = await ready(child)
                first = await watch.until(lambda status: status.online)
                assert first.address == address
                assert (first.max_sessions, first.num_sessions, first.draining) == (1, 0, False)
                assert first.row_budget == 128
                assert first.target is not None
                assert (
                    first.target.tokenizer_fingerprint
                    == load_tokenizer(resolve(str(model))).fingerprint
                )
                async with grpc.aio.insecure_channel(address) as channel:
                    stream = RawStream(channel)
                    await stream.send(request(model, max_tokens=250))
                    opened = await stream.receive()
                    assert isinstance(opened, Opened)
                    assert opened.address == "", "edges come back where they dialled"
                    full = await watch.until(lambda status: status.num_sessions == 1)
                    busy = await watch.until(lambda status: status.counters.committed > 0)
                    assert busy.step_s >= 0.01
                    assert 0.0 < busy.busy <= 1.0
                    child.signal(signal.SIGTERM)
                    draining = await watch.until(lambda status: status.draining)
                    assert (draining.online, draining.num_sessions) == (True, 1)
                    committed = 0
                    while (message := await stream.receive()) is not None:
                        committed += len(message.tokens) if isinstance(message, Commit) else 0
                        if isinstance(message, Commit) and message.finish is not None:
                            break
                    assert committed > draining.counters.committed, "it went on while it drained"
                    stream.call.cancel()
                gone = await watch.until(lambda status: not status.online)
                assert gone == VerifierStatus(online=False, incarnation=first.incarnation)
                assert await asyncio.to_thread(child.wait) == 0
            told = [status for _, status in watch.seen if status.online]
            assert [s.sequence for s in told] == sorted({s.sequence for s in told})
            assert full.sequence < busy.sequence < draining.sequence
            port = address.rpartition(":")[2]
            assert {member for member, _ in watch.seen} == {f"{socket.gethostname()}-{port}"}

    run_async(main(), timeout_s=60.0)


def test_the_broker_tells_of_one_that_was_killed_and_the_next_one_is_another(model: Path) -> None:
    async def main() -> None:
        options = ("--verifier-id", "gpu-1", "--advertise", "gpu-box:50051")
        async with embedded_broker(LOOPBACK) as broker, watching(broker) as watch:
            with cloud(model, broker, *options) as child:
                first = await watch.until(lambda status: status.online)
                assert first.address == "gpu-box:50051"
                async with grpc.aio.insecure_channel(await ready(child)) as channel:
                    stream = RawStream(channel)
                    await stream.send(request(model, max_tokens=2))
                    opened = await stream.receive()
                    assert isinstance(opened, Opened)
                    assert opened.address == "gpu-box:50051"
                    stream.call.cancel()
                child.kill()
                gone = await watch.until(lambda status: not status.online)
                assert gone.incarnation == first.incarnation
            with cloud(model, broker, *options) as child:
                again = await watch.until(lambda status: status.online)
                assert again.incarnation != first.incarnation
            assert {member for member, _ in watch.seen} == {"gpu-1"}

    run_async(main(), timeout_s=60.0)


def test_it_serves_without_a_broker_and_tells_when_there_is_one(model: Path) -> None:
    async def main() -> None:
        place = Address(host="127.0.0.1", port=free_port())
        with cloud(model, place) as child:
            async with grpc.aio.insecure_channel(await ready(child)) as channel:
                stream = RawStream(channel)
                await stream.send(request(model, max_tokens=8))
                assert isinstance(await stream.receive(), Opened)
                assert isinstance(await stream.receive(), Commit)
                stream.call.cancel()
            async with embedded_broker(place), watching(place) as watch:
                late = await watch.until(lambda status: status.counters.sessions == 1)
                second = await watch.until(lambda status: status.sequence > late.sequence)
                assert second.incarnation == late.incarnation
            child.terminate(timeout_s=10.0)
            assert "Traceback" not in child.stderr

    run_async(main(), timeout_s=60.0)


def test_what_cannot_be_told_is_logged_once_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = tiny_llama()
    engine.identity = replace(engine.identity, quantisation="q" * 300)
    broker = BrokerSettings(address=Address(host="127.0.0.1", port=free_port()))

    async def main() -> None:
        async with serving(engine) as verifier:
            settings = AnnouncementSettings(broker=broker, listen=verifier.address)
            async with announcing(verifier, settings, row_budget=8):
                await until(lambda: "status cannot be told" in caplog.text)
                verifier.registry.news.set()
                await until(lambda: not verifier.registry.news.is_set())

    run_async(main())
    assert caplog.text.count("status cannot be told") == 1
