"""Control of a running link: what it does, and what it does to strangers."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from click.testing import CliRunner
from harness.processes import running
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import ConfigError, LinkClosed, PacelineError, RemoteProtocolError
from paceline.settings import Address, parse_address
from simulator import command as command_module
from simulator import control as control_module
from simulator.command import link
from simulator.control import Action, ControlSocket, Request, ask, parse_request
from simulator.link import LinkSettings
from simulator.network import NetworkSettings
from simulator.notation import parse_network
from simulator.relay import Relay

PATIENCE_S = 10.0
NOWHERE = parse_address("127.0.0.1:1")
ANY = parse_address("127.0.0.1:0")
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await test()

    asyncio.run(bounded())


@asynccontextmanager
async def controlled() -> AsyncIterator[tuple[Relay, ControlSocket]]:
    settings = LinkSettings(delay_s=0.03)
    async with (
        Relay(to=NOWHERE, settings=settings) as relay,
        ControlSocket(relay, listen=ANY) as control,
    ):
        yield relay, control


async def told(control: ControlSocket, *lines: bytes) -> list[dict[str, object]]:
    """Send lines and return the answers until the other end closes or as many came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", control.address.port)
    try:
        writer.writelines(lines)
        answers = []
        for _ in lines:
            line = await reader.readline()
            if not line:
                break
            answers.append(json.loads(line))
        return answers
    finally:
        writer.transport.abort()


def line(do: str, value: str = "") -> bytes:
    return json.dumps({"do": do, "value": value}).encode() + b"\n"


def test_a_link_is_cut_healed_and_changed() -> None:
    async def test() -> None:
        async with controlled() as (relay, control):
            answers = await told(
                control,
                line("status"),
                line("cut"),
                line("cut"),
                line("heal"),
                line("black-hole"),
                line("heal"),
                line("rtt", "200ms"),
                line("network", "wan,loss=2%"),
            )
            assert all(answer["ok"] for answer in answers)
            states = [answer["state"] for answer in answers]
            assert states == [
                "open",
                "reset",
                "reset",
                "open",
                "black-hole",
                "open",
                "open",
                "open",
            ]
            assert [answer["rtt_s"] for answer in answers[:7:6]] == pytest.approx([0.06, 0.2])
            assert answers[-1]["network"] == "wan,loss=2%"
            assert relay.network.up.loss == 0.02

    run(test)


def test_what_cannot_be_done_is_told_and_changes_nothing() -> None:
    async def test() -> None:
        async with controlled() as (relay, control):
            before = relay.network
            answers = await told(
                control,
                line("rtt", "5"),
                line("rtt"),
                line("rtt", "2h"),
                line("status", "now"),
                line("fly"),
                line("network", "lt"),
                line("network", "series=/etc/passwd"),
                b'{"do": "rtt", "value": 5}\n',
                b'{"do": "status", "force": "yes"}\n',
                b"{}\n",
                line("status"),
            )
            assert [answer["ok"] for answer in answers] == [False] * 10 + [True]
            errors = " | ".join(str(answer.get("error")) for answer in answers)
            for expected in (
                "no unit", "got '' for rtt", "delay_s: got 3600.0", "got 'now' for status", "do 'fly'",
                "did you mean 'lte'", "expected no file", "value: got a int", "key 'force'", "do ''",
            ):  # fmt: skip
                assert expected in errors
            assert relay.network == before

    run(test)


@pytest.mark.parametrize(
    "stranger",
    [
        b"POST / HTTP/1.1\r\n",
        b"[" * 4000 + b"\n",
        b"\xff\xfe\n",
        b"5\n",
        b'{"do": "cut"' + b" " * 5000 + b"}\n",
    ],
)
def test_a_stranger_is_hung_up_on_before_anything_else_is_read(stranger: bytes) -> None:
    async def test() -> None:
        async with controlled() as (relay, control):
            answers = await told(control, stranger, line("cut"))
            assert [answer["ok"] for answer in answers] in ([False], [])
            assert relay.state == "open"
            assert (await told(control, line("status")))[0]["ok"]

    run(test)


def test_silence_ends_a_connection_and_too_many_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "SILENCE_S", 0.05)
    monkeypatch.setattr(control_module, "MAX_CONNECTIONS", 1)

    async def test() -> None:
        async with controlled() as (_, control):
            port = control.address.port
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            second, other = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b'{"do": ')
            try:
                with suppress(ConnectionResetError):
                    assert await second.read(1) == b""
                assert await reader.read(1) == b""
            finally:
                writer.transport.abort()
                other.transport.abort()

    run(test)


def test_only_this_machine_may_control() -> None:
    with pytest.raises(ConfigError, match="expected an address of this machine only"):
        ControlSocket(Relay(to=NOWHERE), listen=parse_address("0.0.0.0:7702"))


def test_a_port_in_use_is_told() -> None:
    async def test() -> None:
        async with controlled() as (relay, control):
            with pytest.raises(ConfigError, match="control: cannot listen at"):
                async with ControlSocket(relay, listen=control.address):
                    pass

    run(test)


@given(st.binary(max_size=200))
def test_any_line_is_a_request_or_an_error(data: bytes) -> None:
    kind: object = None
    try:
        kind = parse_request(data)
    except PacelineError as error:
        kind = error
    assert isinstance(kind, Request | ConfigError | RemoteProtocolError)


def test_the_asking_side_tells_what_is_there_instead() -> None:
    request = Request(action=Action.STATUS)
    with pytest.raises(LinkClosed, match="nothing answers at"):
        ask(NOWHERE, request)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(host="127.0.0.1", port=silent.getsockname()[1])

        async def test() -> None:
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(asyncio.to_thread(ask, address, request))
                asking.add_done_callback(lambda task: task.cancelled() or task.exception())
                stranger = await asyncio.to_thread(silent.accept)
                stranger[0].sendall(b"SSH-2.0-x\r\n")
                stranger[0].close()

        with pytest.raises(ExceptionGroup) as refused:
            run(test)
    assert refused.group_contains(RemoteProtocolError, match="no control socket of a link")


def test_the_command_controls_a_running_link() -> None:
    async def test() -> None:
        async with controlled() as (relay, control):

            async def call(*arguments: str) -> str:
                where = str(control.address)
                result = await asyncio.to_thread(
                    CliRunner().invoke, link, ["control", where, *arguments], catch_exceptions=False
                )
                return result.output

            assert (await call("black-hole")).startswith("black-hole, network custom")
            assert relay.state == "black-hole"
            assert "round trip 200.0 ms now" in await call("rtt", "200ms")
            assert json.loads(await call("profile", "wan", "--json"))["network"] == "wan"
            assert "needs a value" in await call("rtt")
            with pytest.raises(ConfigError, match="did you mean 'wan'"):
                await call("profile", "wam")

    run(test)


@pytest.mark.slow
def test_a_link_of_its_own_process_is_controlled_and_carries_what_its_options_say() -> None:
    arguments = (
        "--to",
        "127.0.0.1:1",
        "--profile",
        "lan",
        "--up",
        "loss=2%",
        "--control",
        "127.0.0.1:0",
    )
    ready = r'"control": "(127\.0\.0\.1:\d+)"'
    with running("paceline.command", "link", "--json", *arguments, ready=ready) as process:
        assert process.ready is not None
        address = parse_address(process.ready[1])
        answer = ask(address, Request(action=Action.STATUS))
        assert (answer["state"], answer["network"]) == ("open", "lan, changed")
        assert ask(address, Request(action=Action.CUT))["state"] == "reset"
        assert process.terminate() == 0


def options(*arguments: str) -> NetworkSettings:
    context = link.make_context("link", ["--to", "a:1", *arguments])
    return command_module._network(context.params)


def test_options_are_the_notation_in_parts() -> None:
    assert options() == parse_network({"rtt": "60ms"})
    assert options("--profile", "lte") == parse_network("lte")
    wanted = parse_network("lte,rtt=80ms,loss=1%,up.bandwidth=1mbit")
    found = options("--profile", "lte", "--rtt", "80ms", "--loss", "1%", "--up", "bandwidth=1mbit")
    assert (found.up, found.down) == (wanted.up, wanted.down)
    assert options("--network", "wan,loss=2%") == parse_network("wan,loss=2%")
    with pytest.raises(ConfigError, match="--network: got --rtt too"):
        options("--network", "wan", "--rtt", "5ms")
    with pytest.raises(ConfigError, match=r"up\.trace: cannot read /does/not/exist"):
        options("--trace-up", "/does/not/exist")
    with pytest.raises(ConfigError, match=r"key 'up\.los'"):
        options("--up", "los=1%")


def test_a_link_needs_a_server() -> None:
    result = CliRunner().invoke(link, [])
    assert result.exit_code == 2
    assert "--to" in result.output
