"""The whole system as deploy/ has it: its own commands, keys and broker, as plain processes instead of containers."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.brokers import MOSQUITTO
from harness.composed import Composition, shell_blocks
from harness.deployment import DEPLOY, BrokerPorts, deployed_broker, make_certificate
from harness.models import save_tiny
from harness.processes import free_port, running
from transformers import AutoModelForCausalLM, AutoTokenizer

from paceline.command import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
]
BOUND_S = 60.0
PROGRAMS = {
    "orchestrator": r"orchestrator ready on",
    "verifier-1": r"cloud ready on",
    "verifier-2": r"cloud ready on",
    "edge-1": r"edge ready on",
}
MAX_TOKENS = 24
PROMPT = "The paceline rides on, and"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys, made by the very commands of deploy/README.md."""
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copy(DEPLOY / "certificates.sh", folder)
    commands = shell_blocks(DEPLOY / "README.md")[0]
    subprocess.run(["sh", "-euc", commands], cwd=folder, check=True, timeout=60)
    return folder / "secrets"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def system(
    tmp_path_factory: pytest.TempPathFactory, secrets: Path, model: Path
) -> Iterator[Composition]:
    """Everything runs, in the order in which the services depend on each other."""
    folder = tmp_path_factory.mktemp("system")
    variables = {"PACELINE_TARGET": str(model), "PACELINE_THREADS": "1"}
    composition = Composition(folder, secrets=secrets, variables=variables)
    assert composition.services.keys() == {"broker", "prometheus", *PROGRAMS}
    (folder / "broker").mkdir()
    with ExitStack() as stack:
        ports = BrokerPorts(
            members=composition.port("broker", 8883), steering=composition.port("broker", 8884)
        )
        stack.enter_context(deployed_broker(folder / "broker", secrets=secrets, ports=ports))
        children = {
            name: stack.enter_context(running("paceline.command", *composition.command(name)))
            for name in PROGRAMS
            if name != "edge-1"
        }
        for name, child in children.items():
            child.wait_for(PROGRAMS[name], timeout_s=BOUND_S)
        edge = running(
            "paceline.command",
            *composition.command("edge-1"),
            ready=PROGRAMS["edge-1"],
            timeout_s=BOUND_S,
        )
        stack.enter_context(edge)
        yield composition


def _get(url: str, *, key: Path | None = None, body: dict[str, Any] | None = None) -> Any:
    """Return the open answer."""
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key.read_text(encoding='utf-8').strip()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    return urllib.request.urlopen(request, timeout=BOUND_S)


def test_the_edge_answers_with_the_targets_own_text(
    system: Composition, secrets: Path, model: Path
) -> None:
    body = {
        "model": model.name,
        "prompt": PROMPT,
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }
    port = system.port("edge-1", 8080)
    url = f"http://127.0.0.1:{port}/v1/completions"
    with _get(url, key=secrets / "endpoint.token", body=body) as answer:
        text = json.load(answer)["choices"][0]["text"]

    tokenizer = AutoTokenizer.from_pretrained(model)
    target = AutoModelForCausalLM.from_pretrained(model)
    ids = torch.tensor([tokenizer.encode(PROMPT)])
    with torch.inference_mode():
        output = target.generate(ids, max_new_tokens=MAX_TOKENS, do_sample=False)
    expected = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    assert text == expected
    assert len(text) > 4


def test_the_orchestrator_sees_all_of_them_and_steers_the_edge(
    system: Composition, secrets: Path
) -> None:
    root = f"http://127.0.0.1:{system.port('orchestrator', 8090)}"
    key = secrets / "dashboard.token"

    def online(fleet: dict[str, Any], kind: str) -> set[str]:
        return {row["id"] for row in fleet[kind] if row["state"] == "online"}

    edges: set[str] = set()
    with _get(f"{root}/api/events", key=key) as events:  # an event each second; the read is bounded
        for line in events:
            if not line.startswith(b"data:"):
                continue
            told = json.loads(line.removeprefix(b"data:"))
            edges |= online(told, "edges")
            if edges and online(told, "verifiers") == {"verifier-1", "verifier-2"}:
                break
    with _get(f"{root}/api/fleet", key=key) as answer:
        fleet = json.load(answer)
    assert online(fleet, "edges") == {"edge-1"}
    addresses = {row["address"] for row in fleet["verifiers"]}
    assert addresses == {
        f"127.0.0.1:{system.port(name, 50051)}" for name in ("verifier-1", "verifier-2")
    }


@pytest.mark.parametrize("service", [*PROGRAMS])
def test_every_program_is_scraped_where_prometheus_looks(system: Composition, service: str) -> None:
    scraped = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    assert f'"{service}:9464"' in scraped
    with _get(f"http://127.0.0.1:{system.port(service, 9464)}/metrics") as answer:
        assert "paceline:build_info" in answer.read().decode()


@pytest.mark.parametrize("service", [*PROGRAMS])
def test_what_a_container_asks_about_its_health_is_answered(
    system: Composition, service: str
) -> None:
    image = system.services[service]["build"]["dockerfile"].removeprefix("deploy/")
    (probe,) = re.findall(r"CMD (\[.*urlopen.*\])", (DEPLOY / image).read_text(encoding="utf-8"))
    _, *arguments = json.loads(probe)
    here = [
        re.sub(
            r"127\.0\.0\.1:(\d+)",
            lambda found: f"127.0.0.1:{system.port(service, int(found[1]))}",
            part,
        )
        for part in arguments
    ]
    asked = subprocess.run(
        [sys.executable, *here], capture_output=True, timeout=BOUND_S, check=False
    )
    assert asked.returncode == 0, asked.stderr


def test_the_doctor_finds_nothing_wrong_with_another_edge(
    system: Composition, secrets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_certificate(secrets, "client", "edge-2").check_returncode()
    own = ("--listen", "--api-key-file", "--metrics-listen")
    options = [
        part.replace("edge-1", "edge-2")
        for part in system.command("edge-1")[1:]
        if not part.startswith(own)
    ]
    status = run(["doctor", "--json", *options, f"--listen=127.0.0.1:{free_port()}"])
    told = json.loads(capsys.readouterr().out)
    assert status == 0, [check for check in told["checks"] if check["status"] == "fail"]
    checks = {check["name"]: check for check in told["checks"]}
    broker = f"broker 127.0.0.1:{system.port('broker', 8883)}"
    assert checks[f"{broker} rights"]["status"] == "ok"
    assert checks["orchestrator"]["found"] == "online"
    assert checks["same model everywhere"]["found"] == "2 verifiers"
