"""`paceline doctor` against real verifiers, certificates and ports, and against servers that misbehave."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from harness.deployment import certificates, expire, make_certificate
from harness.models import llama_config, save_tiny, tiny_model, tiny_tokenizer
from harness.processes import free_port, running
from tokenizers import AddedToken

from paceline.client.settings import ConnectionSettings
from paceline.command import run
from paceline.settings import Address
from simulator.doctor.probes.certificates import Pair, look_at_authority, look_at_pair
from simulator.doctor.probes.network import look_at_server, reach, shows_tls
from simulator.doctor.probes.verifier import tls_context
from simulator.doctor.verdicts.certificates import EXPIRED, WRONG_ADDRESS

pytestmark = pytest.mark.slow
TOKEN = "kitchen-0123456789abcdef"
HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A verifier with TLS and tokens, and what an edge needs for it."""

    address: str
    model: Path
    secrets: Path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("doctor")
    secrets = certificates(folder / "secrets", servers=("cloud",), clients=("kitchen",))
    model = save_tiny(folder / "tiny")
    (secrets / "tokens").write_text(f"kitchen {TOKEN}\n", encoding="utf-8")
    (secrets / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    arguments = ["cloud", "--target", str(model), "--listen", "127.0.0.1:0", "--threads", "1"]
    arguments += ["--tls-cert", str(secrets / "cloud.pem"), "--tls-key", str(secrets / "cloud.key")]
    arguments += ["--token-file", str(secrets / "tokens")]
    with running("paceline.command", *arguments, ready=r"ready on (\S+)") as child:
        assert child.ready is not None
        yield House(address=child.ready[1], model=model, secrets=secrets)


def _examined(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return exit status and checks by name."""
    status = run(["doctor", "--json", "--deadline", "5s", *arguments])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] == (status == 0)
    return status, {check["name"]: check for check in told["checks"]}


def _edge(house: House, **changes: str) -> list[str]:
    """Return the options of an edge for that verifier; a change to "" leaves an option out."""
    options = {
        "--cloud": house.address,
        "--target": str(house.model),
        "--tls-ca": str(house.secrets / "ca.pem"),
        "--token-file": str(house.secrets / "token"),
        "--listen": f"127.0.0.1:{free_port()}",
    } | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [part for name, value in options.items() if value for part in (name, value)]


def test_all_is_well(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    pair = {
        "tls_cert": str(house.secrets / "kitchen.pem"),
        "tls_key": str(house.secrets / "kitchen.key"),
    }
    status, checks = _examined(capsys, *_edge(house, draft=str(house.model), **pair), "--load")
    assert status == 0, checks
    verifier = f"verifier {house.address}"
    expected = [
        *("python", "packages", "clock", "processor", "memory", "gpu", "target", "draft"),
        *("same tokenizer", "memory for models", "--tls-ca", "--tls-cert"),
        *(f"{verifier} name", f"{verifier} connection", f"{verifier} certificate"),
        *(f"{verifier} access", f"{verifier} model", f"{verifier} link"),
    ]
    assert {name: checks[name]["status"] for name in expected} == dict.fromkeys(expected, "ok")
    assert "loaded in" in checks["draft"]["found"]
    assert "(client)" in checks["--tls-cert"]["found"]
    assert "cloud for 127.0.0.1, expires" in checks[f"{verifier} certificate"]["found"]
    assert "slowest of 10" in checks[f"{verifier} link"]["found"]


def test_a_wrong_token(house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef", encoding="utf-8")
    status, checks = _examined(capsys, *_edge(house, token_file=str(file)))
    assert status == 1
    access = checks[f"verifier {house.address} access"]
    assert access["status"] == "fail"
    assert "--token-file" in access["advice"]
    assert f"verifier {house.address} model" not in checks


def test_without_tls_where_it_is_spoken(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    status, checks = _examined(capsys, *_edge(house, tls_ca=""))
    assert status == 1
    assert "--tls-ca" in checks[f"verifier {house.address} access"]["advice"]


def test_a_name_that_is_not_in_the_certificate(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    address = house.address.replace(HERE, "localhost")
    status, checks = _examined(capsys, *_edge(house, cloud=address))
    assert status == 1
    certificate = checks[f"verifier {address} certificate"]
    assert "localhost" in certificate["found"]
    assert "Use a name that stands in the certificate" in certificate["advice"]
    assert checks[f"verifier {address}"]["status"] == "skipped"


def test_another_tokenizer(
    house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|new|>")]})
    tiny_model(llama_config()).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    status, checks = _examined(capsys, *_edge(house, draft=str(tmp_path)))
    assert status == 1
    assert checks["same tokenizer"]["status"] == "fail"
    status, checks = _examined(capsys, *_edge(house, target=str(tmp_path)))
    assert checks[f"verifier {house.address} model"]["status"] == "fail"


def test_a_port_in_use_and_a_verifier_that_is_not_there(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    status, checks = _examined(
        capsys, *_edge(house, listen=house.address, cloud=nowhere), "--cloud", house.address
    )
    assert status == 1
    assert checks[f"port {house.address}"]["found"] == "address already in use"
    assert checks[f"verifier {nowhere} connection"]["found"] == "connection refused"
    assert checks[f"verifier {house.address} model"]["status"] == "ok", "others are looked at"


def test_what_people_see(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    status = run(["doctor", *_edge(house, target="no-such-file.gguf", cloud="")])
    shown = capsys.readouterr().out
    assert status == 1
    assert "FAIL    target: model: there is no file no-such-file.gguf\n        -> Check" in shown
    assert shown.endswith(" skipped.\n")
    assert "Something is wrong, see above: " in shown


def test_certificates_of_ours(tmp_path: Path) -> None:
    def pair(name: str, key: str | None = None) -> Pair:
        return Pair(certificate=tmp_path / f"{name}.pem", key=tmp_path / f"{key or name}.key")

    assert make_certificate(tmp_path, "server", "cloud", "gpu-box", "::1").returncode == 0
    assert make_certificate(tmp_path, "client", "kitchen", days=3).returncode == 0
    assert make_certificate(tmp_path, "client", "old").returncode == 0
    expire(tmp_path, "old")
    server = look_at_pair(pair("cloud"))
    assert server.purposes == ("server", "client")
    assert server.certificate is not None
    assert server.certificate.names[0] == "gpu-box"
    client = look_at_pair(pair("kitchen"))
    assert client.purposes == ("client",)
    assert client.certificate is not None
    assert client.certificate.subject == "kitchen"
    assert 2 <= (client.certificate.expires - datetime.now(UTC)).days <= 3
    assert look_at_pair(pair("old")).code == EXPIRED
    assert "key values mismatch" in look_at_pair(pair("kitchen", "cloud")).error
    assert "No such file" in look_at_pair(pair("nobody")).error
    (authority,) = look_at_authority(tmp_path / "ca.pem")
    assert authority.certificate is not None
    assert authority.certificate.subject == "Paceline authority"
    assert look_at_authority(tmp_path / "cloud.pem")[0].certificate is None
    assert look_at_authority(tmp_path / "cloud.key")[0].certificate is None


def test_servers_that_misbehave_cost_no_more_than_the_deadline(tmp_path: Path) -> None:
    secrets = certificates(tmp_path, servers=("cloud",))
    make_certificate(tmp_path, "server", "other", "gpu-box").check_returncode()
    make_certificate(tmp_path, "server", "old", HERE).check_returncode()
    expire(tmp_path, "old")
    ours = tls_context(ConnectionSettings(ca_file=secrets / "ca.pem"))

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def looked(name: str | None) -> tuple[Any, bool]:
        context = None
        if name is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(secrets / f"{name}.pem", secrets / f"{name}.key")
        async with await asyncio.start_server(silent, HERE, 0, ssl=context) as server:
            host, port = server.sockets[0].getsockname()
            address = Address(host=host, port=port)
            reached = await reach(address, deadline_s=5.0)
            assert reached.connect_s is not None
            deadline_s = 0.2 if name is None else 5.0
            shown = await look_at_server(address, ours, deadline_s=deadline_s)
            return shown, await shows_tls(address, deadline_s=deadline_s)

    async def scene() -> None:
        right, is_tls = await looked("cloud")
        assert right.certificate.names == (HERE,)
        assert is_tls
        other, _ = await looked("other")
        assert other.code == WRONG_ADDRESS
        old, _ = await looked("old")
        assert old.code == EXPIRED
        nothing, is_tls = await looked(None)
        assert nothing.error == "no handshake within 0.2 s"
        assert not is_tls
        assert (await reach(Address(host="a..b", port=1), deadline_s=5.0)).hosts == ()

    asyncio.run(scene())
