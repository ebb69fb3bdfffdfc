"""`paceline cloud` as a process: ready line, options, signals, exit status."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from harness.certificates import make_certificates
from harness.event_loop import run_async
from harness.models import save_tiny
from harness.processes import Child, running
from harness.raw_edge import GREEDY, RawStream

from paceline.engine.loading import load_tokenizer, resolve
from paceline.messages import Commit, Drain, Failure, Open, Opened
from paceline.tokens import TokenId

READY = r"^paceline cloud ready on (127\.0\.0\.1:\d+)$"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@contextmanager
def cloud(model: Path, *arguments: str) -> Iterator[tuple[Child, str]]:
    """A verifier on a tiny model and its address."""
    options = ("--target", str(model), "--listen", "127.0.0.1:0", "--threads", "1", *arguments)
    with running("paceline.command", "cloud", *options, ready=READY) as child:
        assert child.ready is not None
        yield child, child.ready[1]


def request(model: Path, *, max_tokens: int) -> Open:
    return Open(
        tokenizer_fingerprint=load_tokenizer(resolve(str(model))).fingerprint,
        prompt=(TokenId(5), TokenId(17)),
        sampling=GREEDY,
        max_tokens=max_tokens,
    )


def test_sigterm_drains_and_ends_at_the_deadline(model: Path) -> None:
    with cloud(model, "--min-step", "10ms", "--drain", "300ms") as (child, address):

        async def run() -> list[type]:
            async with grpc.aio.insecure_channel(address) as channel:
                stream = RawStream(channel)
                await stream.send(request(model, max_tokens=400))
                assert isinstance(await stream.receive(), Opened)
                child.signal(signal.SIGTERM)
                kinds = []
                while (message := await stream.receive()) is not None:
                    kinds.append(type(message))
                assert isinstance(message, Failure) or await stream.call.code() is (
                    grpc.StatusCode.UNAVAILABLE
                )
                return kinds

        kinds = run_async(run())
        assert kinds.count(Drain) == 1
        assert kinds.index(Drain) < len(kinds) - 2, "it went on after the drain began"
        assert Commit in kinds[kinds.index(Drain) :]
        assert kinds[-1] is Failure
        assert child.wait(timeout_s=10.0) == 0
        assert child.stdout.count("\n") == 1
        assert "Traceback" not in child.stderr


def test_sigint_with_tls_and_tokens(model: Path, tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    token = "t" * 32
    (tmp_path / "tokens").write_text(f"alice {token}\n", encoding="utf-8")
    options = (
        *("--tls-cert", str(files.server), "--tls-key", str(files.server_key)),
        *("--token-file", str(tmp_path / "tokens")),
    )
    with cloud(model, *options) as (child, address):

        async def run() -> None:
            theirs = grpc.ssl_channel_credentials(files.authority.read_bytes())
            async with grpc.aio.secure_channel(address, theirs) as channel:
                stranger = RawStream(channel)
                assert (await stranger.receive_failure()).reason == "UNAUTHENTICATED"
                alice = RawStream(channel, token=token)
                await alice.send(request(model, max_tokens=4))
                assert isinstance(await alice.receive(), Opened)
                alice.call.cancel()

        run_async(run())
        child.signal(signal.SIGINT)
        assert child.wait(timeout_s=5.0) == 0
        assert "Traceback" not in child.stderr
