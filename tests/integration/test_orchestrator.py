"""The orchestrator as a process: it plans for edges over a real broker, answers, survives restarts and floods."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import pytest
from harness.brokers import MOSQUITTO, MosquittoRig, running_rig
from harness.certificates import make_certificates
from harness.fleet_api import api_of, broker_of, edge_row, orchestrator, url_of
from harness.fleet_world import SimulatedEdge, SimulatedVerifier, telling
from harness.processes import Child, free_port, running

from paceline import command
from paceline.control.messages import EdgePolicy, Presence
from paceline.mqtt.link import control_link
from paceline.topics import EDGE_POLICY, EDGE_TELEMETRY, ORCHESTRATOR_PRESENCE

pytestmark = pytest.mark.slow

FAST_S = 0.3
"""Interval of telemetry in these tests."""


@pytest.fixture(scope="module")
def served() -> Iterator[Child]:
    """One orchestrator with its own broker for all tests that leave it as it was."""
    with orchestrator() as child:
        yield child


def _is_planned(fleet: dict[str, Any], edge_id: str) -> bool:
    return bool(edge_row(fleet, edge_id).get("revision", 0) > 0)


def test_an_edge_that_tells_is_planned_for_and_shown(served: Child) -> None:
    edge = SimulatedEdge(edge_id="near-1", rtt_s=0.02, verifier="one:1")
    verifier = SimulatedVerifier(verifier_id="one", address="one:1")

    async def scenario() -> None:
        async with (
            telling(broker_of(served), [edge], [verifier], interval_s=FAST_S),
            api_of(served) as api,
        ):
            fleet = await api.until(
                lambda now: (
                    edge_row(now, "near-1").get("draft_length", 0) >= 6 and bool(now["verifiers"])
                )
            )
            row = edge_row(fleet, "near-1")
            assert row["state"] == "online"
            assert row["explanation"].startswith("draft ")
            assert fleet["verifiers"][0]["model"] == "Qwen3-32B"
            status, details = await api.get("/api/edges/near-1")
            assert status == 200
            assert "round trip" in details["explanation"]
            status, history = await api.get("/api/edges/near-1/history?last_s=60")
            assert status == 200
            assert history["points"][0]["rtt_s"] == pytest.approx(0.02, rel=0.6)
            assert history["decisions"][0]["revision"] >= 1

    asyncio.run(scenario())
    assert edge.draft_length >= 6, "it followed"


def test_an_operator_pins_and_releases(served: Child, capsys: pytest.CaptureFixture[str]) -> None:
    edge = SimulatedEdge(edge_id="pinned-1", verifier="two:1")
    at = ("--at", url_of(served))

    async def scenario() -> None:
        async with (
            telling(broker_of(served), [edge], interval_s=FAST_S),
            api_of(served) as api,
        ):
            await api.until(lambda now: _is_planned(now, "pinned-1"))
            status, answer = await asyncio.to_thread(
                lambda: (
                    command.run(["orchestrator", "pin", "pinned-1", "--draft-length", "3", *at]),
                    "",
                )
            )
            assert (status, answer) == (0, "")
            row = edge_row(
                await api.until(lambda now: edge_row(now, "pinned-1")["draft_length"] == 3),
                "pinned-1",
            )
            assert row["pinned"] == 3
            assert (
                await asyncio.to_thread(command.run, ["orchestrator", "release", "pinned-1", *at])
                == 0
            )
            await api.until(lambda now: edge_row(now, "pinned-1")["draft_length"] > 3)
            assert await asyncio.to_thread(command.run, ["orchestrator", "status", *at]) == 0
            assert (
                await asyncio.to_thread(command.run, ["orchestrator", "explain", "pinned-1", *at])
                == 0
            )

    asyncio.run(scenario())
    told = capsys.readouterr().out
    assert "pinned-1 drafts 3 tokens ahead until it is released" in told
    assert "edges online" in told
    assert "edge pinned-1 is online" in told


def test_an_unknown_edge_is_one_sentence_with_near_names(
    served: Child, capsys: pytest.CaptureFixture[str]
) -> None:
    edge = SimulatedEdge(edge_id="gateway-7")

    async def scenario() -> None:
        async with telling(broker_of(served), [edge], interval_s=FAST_S), api_of(served) as api:
            await api.until(lambda now: bool(edge_row(now, "gateway-7")))

    asyncio.run(scenario())
    assert command.run(["orchestrator", "explain", "gateway7", "--at", url_of(served)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("paceline: edge 'gateway7' is not known; did you mean 'gateway-7'")
    assert error.count("\n") == 1
    assert (
        command.run(["orchestrator", "pin", "a/b c", "--draft-length", "1", "--at", url_of(served)])
        == 2
    )
    assert "edge 'a/b c' is not known" in capsys.readouterr().err


def test_nobody_at_an_address_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert command.run(["orchestrator", "status", "--at", url]) == 2
    assert "no orchestrator answers" in capsys.readouterr().err
    assert command.run(["orchestrator", "status", "--at", "localhost:8090"]) == 2
    assert "expected a URL" in capsys.readouterr().err


def test_the_api_is_closed_to_other_pages(served: Child) -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            url = url_of(served)
            async with session.get(url) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                page, tag = await answer.text(), answer.headers["ETag"]
            async with session.head(f"{url}/api/events") as answer:
                assert answer.status == 405
            assert '<script type="module" src="/app.js"></script>' in page
            assert " style=" not in page
            assert " onclick" not in page
            async with session.get(url, headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304
            async with session.get(f"{url}/api/fleet", headers={"Host": "evil.example"}) as answer:
                assert answer.status == 403
                assert "Host" in (await answer.json())["error"]
            async with session.post(
                f"{url}/api/edges/x/pin",
                data='{"draft_length": 1}',
                headers={"Content-Type": "text/plain"},
            ) as answer:
                assert answer.status == 415
            for body, field in (
                ({"draft_length": -1}, "draft_length"),
                ({"draft_length": True}, "draft_length"),
                ([], "body"),
            ):
                async with session.post(f"{url}/api/edges/x/pin", json=body) as answer:
                    assert answer.status == 400
                    assert (await answer.json())["error"].startswith(field)
            async with session.post(
                f"{url}/api/edges/x/pin",
                data=b"x" * 9000,
                headers={"Content-Type": "application/json"},
            ) as answer:
                assert answer.status == 413
            for path, status in (
                ("/api/edges/x", 404),
                ("/api/edges/x/history?last_s=nan", 400),
                ("/api/nothing", 404),
                ("/../pyproject.toml", 404),
                ("/health", 200),
            ):
                async with session.get(url + path) as answer:
                    assert answer.status == status, path
                    assert answer.content_type == "application/json"

    asyncio.run(scenario())


def test_a_key_and_tls_keep_others_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificates = make_certificates(tmp_path)
    key = tmp_path / "key"
    key.write_text("correct horse\n", encoding="utf-8")
    secure = ("--tls-cert", str(certificates.server), "--tls-key", str(certificates.server_key))
    with orchestrator("--api-key-file", str(key), *secure) as child:
        url = url_of(child)
        assert url.startswith("https://")
        asking = ["orchestrator", "status", "--at", url, "--tls-ca", str(certificates.authority)]
        assert command.run(asking) == 2
        assert "the API key is missing or wrong" in capsys.readouterr().err
        assert command.run([*asking, "--api-key", "correct house"]) == 2
        assert command.run([*asking, "--api-key-file", str(key)]) == 0
        assert "0 of 0 edges online" in capsys.readouterr().out
        assert "correct" not in child.stderr
        assert child.terminate() == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen", "0.0.0.0:0"], "other machines could see and steer the fleet without a key"),
        (["--api-key", "short"], "--api-key is too short"),
        (["--broker-listen", "0.0.0.0:0"], "--broker-listen"),
        (["--history", "{garbage}"], "is not a database"),
        (["--listen", "127.0.0.1:{taken}"], "--listen: cannot listen"),
    ],
)
def test_what_cannot_work_is_one_sentence_at_once(
    served: Child, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no database " * 500)
    taken = url_of(served).rpartition(":")[2]
    filled = [part.format(garbage=garbage, taken=taken) for part in arguments]
    fixed = ["--listen", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0"]
    with running("paceline.command", "orchestrator", "serve", *fixed, *filled) as child:
        assert child.wait() == 2
        assert sentence in child.stderr
        assert "Traceback" not in child.stderr


def test_metrics_are_served() -> None:
    with orchestrator("--metrics-listen", "127.0.0.1:0") as child:
        url = child.wait_for(r"^paceline orchestrator metrics on (\S+)$")[1]

        async def scenario() -> str:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return await answer.text()

        text = asyncio.run(scenario())
        assert 'paceline:orchestrator_edges{state="online"} 0.0' in text
        assert 'paceline:build_info{program="orchestrator"' in text
        child.wait_for_stderr("history is kept in memory")
        child.signal(signal.SIGINT)
        assert child.wait() == 0


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_a_restart_goes_on_with_revisions_and_history(tmp_path: Path) -> None:
    """The orchestrator is killed: edges keep what they have, the next one goes on from what the broker retained."""
    edge = SimulatedEdge(edge_id="kept", rtt_s=0.2, acceptance=0.95, verifier="v:1")
    held = SimulatedEdge(edge_id="held", rtt_s=0.2, acceptance=0.95, verifier="v:1")
    history = ("--history", str(tmp_path / "fleet.db"))

    async def scenario() -> None:
        async with running_rig(MosquittoRig(tmp_path)) as rig:
            broker = str(rig.address)
            with orchestrator(*history, broker=broker) as first:
                link = broker_of(first)
                async with api_of(first) as api, telling(link, [edge, held], interval_s=FAST_S):
                    await api.until(lambda now: _is_planned(now, "held"))
                    assert (await api.post("/api/edges/held/pin", {"draft_length": 3}))[0] == 200
                    fleet = await api.until(
                        lambda now: edge_row(now, "kept").get("revision", 0) >= 3
                    )
                    before = edge_row(fleet, "kept")["revision"]
                    assert 0.0 < fleet["orchestrator"]["decision_latency_median_s"] < 1.0
                await asyncio.to_thread(first.kill)
                async with (
                    asyncio.timeout(30.0),
                    control_link(
                        link, name="watch", subscriptions=(EDGE_POLICY, ORCHESTRATOR_PRESENCE)
                    ) as watch,
                ):
                    messages = watch.messages()
                    retained = [await anext(messages) for _ in range(3)]
            (policy,) = (found for found in retained if found.member == "kept")
            (presence,) = (found for found in retained if found.topic == ORCHESTRATOR_PRESENCE)
            assert isinstance(policy.value, EdgePolicy)
            assert policy.value.revision >= before
            assert isinstance(presence.value, Presence)
            assert not presence.value.online, "the broker has published its will"
            with orchestrator(*history, broker=broker) as second:
                async with api_of(second) as api, telling(link, [edge, held], interval_s=FAST_S):
                    row = edge_row((await api.get("/api/fleet"))[1], "held")
                    assert row["pinned"] == 3, "before it has heard of anybody"
                    await api.until(lambda now: edge_row(now, "kept").get("revision", 0) > before)
                    await api.until(lambda now: edge_row(now, "held")["state"] == "online")
                    _, answer = await api.get("/api/edges/kept/history?last_s=600")
                    revisions = [decision["revision"] for decision in answer["decisions"]]
                    assert {1, 2, 3} <= set(revisions), "those of the first process are there"

    asyncio.run(scenario())
    assert edge.revision > 3
    assert held.draft_length == 3


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_a_broker_that_goes_away_is_found_again(tmp_path: Path) -> None:
    edge = SimulatedEdge(edge_id="back", verifier="v:1")

    async def scenario() -> None:
        rig = MosquittoRig(tmp_path)
        async with running_rig(rig):
            with orchestrator("--own-telemetry-connection", broker=str(rig.address)) as child:
                async with (
                    api_of(child) as api,
                    telling(broker_of(child), [edge], interval_s=FAST_S),
                ):
                    await api.until(lambda now: _is_planned(now, "back"))
                    await rig.stop()
                    await api.until(lambda now: not now["orchestrator"]["is_connected"])
                    assert (await api.get("/health"))[0] == 503
                    assert (await api.post("/api/edges/back/pin", {"draft_length": 2}))[0] == 200
                    await rig.start()
                    await api.until(lambda now: edge_row(now, "back")["draft_length"] == 2)
                    assert (await api.get("/health"))[0] == 200
                assert "Traceback" not in child.stderr

    asyncio.run(scenario())


def test_a_flood_is_counted_and_nothing_else_waits() -> None:
    """Malformed payloads and one edge's telemetry as fast as they go; a calm edge and a verifier are served meanwhile."""
    loud, calm = SimulatedEdge(edge_id="loud"), SimulatedEdge(edge_id="calm", rtt_s=0.15)
    verifier = SimulatedVerifier(verifier_id="v", address="gpu-a:50051", draining=True)

    async def flood(host: str, port: int) -> None:
        async with aiomqtt.Client(host, port, identifier="flood") as client:
            for number in range(1500):
                await client.publish(
                    EDGE_TELEMETRY.name("liar"), b"\xff" * (number % 300 + 1), qos=0
                )
                payload = EDGE_TELEMETRY.encode(loud.advance(0.01))
                await client.publish(EDGE_TELEMETRY.name("loud"), payload, qos=0)

    async def scenario() -> None:
        with orchestrator() as child:
            link = broker_of(child)
            async with (
                api_of(child) as api,
                asyncio.TaskGroup() as group,
            ):
                flooding = group.create_task(flood(link.address.host, link.address.port))
                async with telling(link, [calm], [verifier], interval_s=FAST_S):
                    await api.until(
                        lambda now: (
                            edge_row(now, "calm").get("draft_length", 0) > 4
                            and any(row["state"] == "draining" for row in now["verifiers"])
                        )
                    )
                    await flooding
                    fleet = await api.until(
                        lambda now: (
                            now["orchestrator"]["num_malformed"] > 0
                            and edge_row(now, "loud").get("state") == "online"
                        )
                    )
            own = fleet["orchestrator"]
            assert own["num_shed"] > 0
            assert not edge_row(fleet, "liar"), "who is never understood is not there"
            assert child.stderr.count("control message cannot be read") == 1
            assert "Traceback" not in child.stderr

    asyncio.run(scenario())


def test_an_edge_ahead_of_a_broker_that_forgot_is_steered_again() -> None:
    """Orchestrator and its own broker start anew together; the edge still follows revision 57 of the one before."""
    edge = SimulatedEdge(edge_id="ahead", revision=57, draft_length=4, rtt_s=0.15, verifier="v:1")

    async def scenario() -> None:
        with orchestrator() as child:
            async with (
                api_of(child) as api,
                telling(broker_of(child), [edge], interval_s=FAST_S),
            ):
                await api.until(lambda now: edge_row(now, "ahead").get("draft_length", 0) > 4)

    asyncio.run(scenario())
    assert edge.revision > 57
