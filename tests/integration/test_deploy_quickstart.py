"""The quickstarts of docs/deployment.md, command by command as printed, on two machines with a tiny model."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.brokers import MOSQUITTO
from harness.composed import shell_blocks
from harness.deployment import ROOT
from harness.machines import Machine, two_machines
from harness.models import save_tiny

pytestmark = pytest.mark.slow
BOUND_S = 90.0
(
    KEYS,
    CLOUD,
    ASK,
    EDGE,
    CURL,
    MORE_KEYS,
    BROKER,
    ORCHESTRATOR,
    CLOUD_OF_FLEET,
    LOOK,
    EDGE_OF_FLEET,
    FLEET,
) = shell_blocks(ROOT / "docs" / "deployment.md")
PORTS = (50051, 8080, 8090, 8883, 8884)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model under the name that the page's commands use."""
    return save_tiny(tmp_path_factory.mktemp("models") / "smollm2-135m")


@pytest.fixture
def machines(tmp_path: Path, model: Path) -> Iterator[tuple[Machine, Machine]]:
    commands = ("CLOUD", "DOCTOR", "GENERATE", "EDGE")
    variables = {f"PACELINE_{name}_TARGET": str(model) for name in commands}
    variables |= {"OMP_NUM_THREADS": "1", "PACELINE_GENERATE_MAX_TOKENS": "16"}
    with two_machines(tmp_path, variables=variables, ports=PORTS) as found:
        if found is None:
            pytest.skip("no network namespaces, and a port of the quickstart is in use")
        a, b = found
        (a.folder / "deploy").symlink_to(ROOT / "deploy")
        a.run(KEYS)
        yield a, b


def _copy(a: Machine, b: Machine, *names: str) -> None:
    """What the page asks to copy over a way that one trusts."""
    (b.folder / "keys").mkdir(exist_ok=True)
    for name in names:
        shutil.copy(a.folder / "keys" / name, b.folder / "keys")


def test_two_machines(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    _copy(a, b, "ca.pem", "kitchen.token")
    with a.serving(CLOUD) as cloud:
        cloud.wait_for(r"^paceline cloud ready on 0\.0\.0\.0:50051$", timeout_s=BOUND_S)
        said = b.run(ASK)
        report, _, text = said.partition("Nothing is wrong: ")
        assert f"OK      verifier {a.address}:50051 certificate: verifier-1" in report
        assert f"OK      verifier {a.address}:50051 model: " in report
        assert text.partition("\n")[2].strip(), said
        with b.serving(EDGE) as edge:
            edge.wait_for(r"^paceline edge ready on http://127.0.0.1:8080/v1", timeout_s=BOUND_S)
            if shutil.which("curl") is not None:
                answer = json.loads(b.run(CURL))
                assert answer["choices"][0]["finish_reason"] in {"stop", "length"}
                assert answer["usage"]["completion_tokens"] > 0


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_a_fleet(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    a.run(MORE_KEYS)
    _copy(a, b, "ca.pem", "kitchen.token", "kitchen.pem", "kitchen.key")
    with ExitStack() as stack:
        broker = stack.enter_context(a.serving(BROKER))
        broker.wait_for_stderr("running", timeout_s=BOUND_S)
        orchestrator = stack.enter_context(a.serving(ORCHESTRATOR))
        cloud = stack.enter_context(a.serving(CLOUD_OF_FLEET))
        ready = rf"ready on http://127\.0\.0\.1:8090 with broker {a.address}:8884$"
        orchestrator.wait_for(ready, timeout_s=BOUND_S)
        cloud.wait_for("ready on", timeout_s=BOUND_S)
        report = b.run(LOOK)
        assert f"OK      broker {a.address}:8883 rights: " in report
        assert "OK      orchestrator: online\n" in report
        edge = stack.enter_context(b.serving(EDGE_OF_FLEET))
        edge.wait_for("edge ready on", timeout_s=BOUND_S)
        told = a.run(_patiently(FLEET))
        assert "kitchen" in told
        assert "verifier-1" in told


def _patiently(commands: str) -> str:
    """Ask until the edge has been heard of; each question takes long enough to be no flood."""
    lines = commands.replace("\\\n", " ").splitlines()
    return "\n".join(f"timeout 60 sh -c 'until {line}; do :; done'" for line in lines)
