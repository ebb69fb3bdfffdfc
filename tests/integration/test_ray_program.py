"""`paceline cloud --ray` as a process: ready line, figures, drain, and nothing left of Ray."""

import asyncio
import re
import signal
from pathlib import Path

import aiohttp
import grpc
import psutil
import pytest
from harness.event_loop import run_async
from harness.models import save_tiny
from harness.processes import running
from harness.raw_edge import GREEDY, RawStream

from paceline.engine.loading import load_tokenizer, resolve
from paceline.messages import Commit, Drain, Failure, Open, Opened
from paceline.tokens import TokenId

STREAMS = r'(?m)^paceline:num_streams\{replica="\w+"\} 1\.0$'
READY = r"^paceline cloud ready on (127\.0\.0\.1:\d+)$"
pytestmark = pytest.mark.slow


def test_the_program_drains_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra")
    model = save_tiny(tmp_path / "model")
    fingerprint = load_tokenizer(resolve(str(model))).fingerprint
    request = Open(
        tokenizer_fingerprint=fingerprint,
        prompt=(TokenId(5), TokenId(17)),
        sampling=GREEDY,
        max_tokens=500,
    )
    arguments = (
        *("cloud", "--ray", "--target", str(model), "--listen", "127.0.0.1:0", "--threads", "1"),
        *("--min-step", "10ms", "--drain", "300ms", "--metrics-listen", "127.0.0.1:0"),
    )
    with running("paceline.command", *arguments, ready=READY) as child:
        assert child.ready is not None
        address = child.ready[1]
        started = psutil.Process(child.pid).children(recursive=True)

        async def run() -> list[type]:
            async with grpc.aio.insecure_channel(address) as channel:
                stream = RawStream(channel)
                await stream.send(request)
                assert isinstance(await stream.receive(), Opened)
                async with aiohttp.ClientSession() as scraper:
                    url = child.wait_for(r"metrics on (\S+)$")[1]
                    while not re.search(STREAMS, await (await scraper.get(url)).text()):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                child.signal(signal.SIGTERM)
                kinds = []
                while (message := await stream.receive()) is not None:
                    kinds.append(type(message))
                assert await stream.call.code() is grpc.StatusCode.UNAVAILABLE
                return kinds

        kinds = run_async(run())
        assert kinds.count(Drain) == 1
        assert Commit in kinds[kinds.index(Drain) :], "it went on after the drain began"
        assert kinds[-1] is Failure
        assert child.wait(timeout_s=30.0) == 0
        assert child.stdout.count("\n") == 2
        assert "Traceback" not in child.stderr, child.stderr
        _, alive = psutil.wait_procs(started, timeout=10.0)
        assert not alive, alive
