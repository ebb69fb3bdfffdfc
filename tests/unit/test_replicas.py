"""The half of a replica that needs no Ray to run: calls through the ingress, and what its options may be."""

import asyncio
import logging
import pickle
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import click
import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2
from harness.event_loop import run_async
from harness.models import save_tiny

from cloud.command import cloud
from cloud.ray_call import CallRefused, IngressCall, is_from_this_machine, no_requests
from paceline.errors import ConfigError

REPLICAS = "cloud.replicas"


class FakeContext:
    """Serve's context, as far as a call uses it."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.OK
        self.details = ""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("authorization", "Bearer x")]

    def auth_context(self) -> dict[str, Any]:
        return {}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


async def requests(*payloads: bytes) -> AsyncIterator[bytes]:
    for payload in payloads:
        yield payload


def call(
    context: FakeContext | None = None, *, sent: AsyncIterator[bytes] | None = None
) -> IngressCall:
    return IngressCall(
        context or FakeContext(), requests=sent or no_requests(), decode=lambda payload: payload
    )


async def said(made: IngressCall, serve: Callable[[IngressCall], Awaitable[None]]) -> list[Any]:
    return [message async for message in made.responses(serve)]


def test_what_the_service_reads_and_writes_goes_through_in_order() -> None:
    async def echo(made: IngressCall) -> None:
        while (message := await made.read()) is not None:
            await made.write(message)

    assert run_async(said(call(sent=requests(b"1", b"2", b"3")), echo)) == [b"1", b"2", b"3"]
    assert run_async(said(call(), echo)) == []


def test_nobody_who_does_not_read_is_written_for() -> None:
    async def run() -> None:
        written: list[int] = []

        async def serve(made: IngressCall) -> None:
            for number in range(10):
                await made.write(number)
                written.append(number)

        responses = call().responses(serve)
        assert await anext(responses) == 0
        for _ in range(20):
            await asyncio.sleep(0)  # the service may go as far as it can
        # One that waits in the queue, and one that waits for room.
        assert written in ([0], [0, 1])
        await responses.aclose()  # type: ignore[attr-defined]

    run_async(run())


def test_leaving_early_cancels_the_service() -> None:
    async def run() -> None:
        ended = asyncio.Event()

        async def serve(made: IngressCall) -> None:
            try:
                await made.write("first")
                await asyncio.Event().wait()
            finally:
                ended.set()

        responses = call().responses(serve)
        assert await anext(responses) == "first"
        await responses.aclose()  # type: ignore[attr-defined]
        assert ended.is_set()

    run_async(run())


def test_an_aborted_call_says_all_before_its_status() -> None:
    context = FakeContext()

    async def serve(made: IngressCall) -> None:
        await made.write("why")
        await made.abort(grpc.StatusCode.ABORTED, "because")

    async def run() -> None:
        responses = call(context).responses(serve)
        assert await anext(responses) == "why"
        with pytest.raises(CallRefused, match="ABORTED: because"):
            await anext(responses)

    run_async(run())
    assert (context.code, context.details) == (grpc.StatusCode.ABORTED, "because")


def test_a_bug_of_the_service_is_not_swallowed() -> None:
    async def serve(made: IngressCall) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_async(said(call(), serve))


def test_a_refusal_survives_the_way_to_the_ingress() -> None:
    assert str(pickle.loads(pickle.dumps(CallRefused("ABORTED: x")))) == "ABORTED: x"


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:127.0.0.1:50051", True),
        ("ipv4:127.9.9.9:1", True),
        ("ipv6:[::1]:50051", True),
        ("ipv6:%5B::1%5D:50051", True),
        ("ipv6:[::ffff:127.0.0.1]:5", True),
        ("unix:/tmp/socket", True),
        ("unix:", True),
        ("ipv4:192.0.2.7:50051", False),
        ("ipv6:[2001:db8::1]:50051", False),
        ("ipv6:[::ffff:192.0.2.7]:5", False),
        ("dns:localhost", False),
        ("", False),
        ("ipv4:", False),
    ],
)
def test_who_is_on_this_machine(peer: str, *, expected: bool) -> None:
    assert is_from_this_machine(peer) is expected


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if it was not installed."""
    for name in list(sys.modules):
        if name in {REPLICAS, "cloud.ray_stop"} or name.partition(".")[0] == "ray":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    # What was imported before is an attribute of its package too, where `from cloud import replicas` finds it.
    monkeypatch.delattr("cloud.replicas", raising=False)
    yield
    for name in (REPLICAS, "cloud.ray_stop"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.usefixtures("without_ray")
def test_without_ray_its_extra_is_named() -> None:
    outcome = CliRunner().invoke(cloud, ["--ray"])
    assert isinstance(outcome.exception, ConfigError)
    assert "pip install 'paceline[ray]'" in str(outcome.exception)


@pytest.mark.parametrize("words", [["--replicas", "2"], ["--ray-address", "auto"]])
def test_options_of_ray_need_ray(words: list[str]) -> None:
    outcome = CliRunner().invoke(cloud, words)
    assert isinstance(outcome.exception, ConfigError)
    assert "they need --ray" in str(outcome.exception)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")
class TestApplication:
    """What a Serve configuration may say; importing Ray takes seconds."""

    @pytest.fixture(autouse=True)
    def _replicas(self) -> None:
        pytest.importorskip("ray", reason="Ray is an extra")
        from cloud import replicas  # noqa: PLC0415 - see above

        self.replicas = replicas

    def test_arguments_are_the_options_of_the_command(self) -> None:
        options = self.replicas.parse_options(
            {"target": "here", "max-sessions": 3, "race": False, "drain": "2s", "insecure": True}
        )
        defaults = self.replicas.parse_options({})
        changed = {name for name, value in options.items() if value != defaults[name]}
        assert changed == {"target", "max_sessions", "race", "drain", "insecure"}
        assert (options["max_sessions"], options["race"], options["drain"]) == (3, False, 2.0)
        parameters = {option.name for option in cloud.params if isinstance(option, click.Option)}
        assert set(options) == parameters

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"no-such": 1}, "no-such"),
            ({"max-sessions": "many"}, "many"),
            ({"num-replicas": "two"}, "two"),
            ({"num-replicas": 0}, "0"),
            ({"tls-cert": "x.pem"}, "--tls-cert: the ingress of Ray Serve does no TLS"),
            ({"client_ca": "x.pem"}, "--client-ca: the ingress"),
            ({"listen": "0.0.0.0:50051"}, "--listen: 0.0.0.0:50051 can be reached"),
            ({"broker": "127.0.0.1:1883"}, "--broker: replicas"),
            ({"metrics-listen": "127.0.0.1:0"}, "metrics-listen: an application"),
            ({"log-level": "loud"}, "log-level: got 'loud'"),
            ({"token-file": "/does/not/exist"}, "--token-file: cannot read"),
        ],
    )
    def test_what_cannot_be_is_told_by_name(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError) as caught:
            self.replicas.application(arguments)
        assert words in str(caught.value)

    def test_the_configuration_that_is_shipped_holds(self) -> None:
        import yaml  # noqa: PLC0415 - comes with Ray
        from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415

        from cloud.ray_program import APPLICATION, INGRESS  # noqa: PLC0415

        path = Path(__file__).parents[2] / "deploy" / "ray-serve.yaml"
        schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        assert schema.grpc_options.grpc_servicer_functions == [INGRESS]
        (application,) = schema.applications
        assert application.name == APPLICATION
        assert application.import_path == "cloud.replicas:application"
        built = self.replicas.application(application.args)
        deployment = built._bound_deployment
        assert [each.name for each in application.deployments] == [deployment.name]
        assert deployment.max_ongoing_requests == 4 * 64 + 64

    def test_a_replica_that_cannot_start_says_so(self, tmp_path: Path) -> None:
        class Unlucky(self.replicas.VerifierReplica):  # type: ignore[misc, name-defined]
            async def _live(self, started: asyncio.Future[Any]) -> None:
                raise MemoryError("no thread to be had")

        options = self.replicas.parse_options({"target": save_tiny(tmp_path), "threads": 1})

        async def run() -> None:
            async with asyncio.timeout(20.0):
                replica: Any = object.__new__(Unlucky)
                await replica.__init__(options)  # as Serve does

        root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
        try:
            with pytest.raises(MemoryError, match="no thread"):
                run_async(run())
        finally:
            root.handlers[:] = handlers

    def test_a_replica_whose_model_thread_is_gone_says_so(self, tmp_path: Path) -> None:
        status = health_pb2.HealthCheckResponse
        root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
        options = self.replicas.parse_options({"target": save_tiny(tmp_path), "threads": 1})

        async def run() -> None:
            replica: Any = object.__new__(self.replicas.VerifierReplica)
            await replica.__init__(options)  # as Serve does
            await replica.check_health()
            assert (await replica.Check(b"", FakeContext())).status == status.SERVING
            replica._core._thread.close()
            with pytest.raises(RuntimeError):
                await replica.check_health()
            # The next step finds out; with it ends all that the replica does.
            replica._core.registry.closing.add(1)
            replica._core.registry.work.set()
            await asyncio.wait({replica._life}, timeout=10.0)
            with pytest.raises(RuntimeError, match="the verifier has ended"):
                await replica.check_health()
            assert (await replica.Check(b"", FakeContext())).status == status.NOT_SERVING
            context = FakeContext()
            with pytest.raises(CallRefused):
                await anext(replica.Verify(requests(b"x"), context))
            assert context.code is grpc.StatusCode.UNAVAILABLE

        try:
            run_async(run())
        finally:
            root.handlers[:] = handlers
