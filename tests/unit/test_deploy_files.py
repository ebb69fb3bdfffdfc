"""The files of deploy/ agree with each other and with the programs, and the tools that read them find nothing wrong."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.composed import Composition
from harness.deployment import DEPLOY, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cloud.metrics import VERIFIER_FIGURES
from edge.metrics import EDGE_FIGURES
from orchestrator.metrics import FIGURES as ORCHESTRATOR_FIGURES
from paceline.command import run
from paceline.topics import EDGE_POLICY, TOPICS

IMAGES = ("edge", "cloud", "orchestrator")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BLOCKED = ("torch", "transformers", "accelerate", "gguf", "grpc", "grpc_health", "numpy")


def _read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def _needs(tool: str, path: str | None = None) -> str:
    found = shutil.which(tool, path=path)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    return found


def _succeeds(*arguments: str | Path) -> str:
    done = subprocess.run(
        arguments, cwd=DEPLOY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Composition:
    folder = tmp_path_factory.mktemp("composed")
    return Composition(folder, secrets=folder, variables={})


def _pins() -> dict[str, str]:
    lines = _read("constraints.txt").splitlines()[1:]
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def test_what_images_install_is_what_the_package_asks_for() -> None:
    pins = _pins()
    for text in PROJECT["dependencies"]:
        needed = Requirement(text)
        pinned = pins.get(canonicalize_name(needed.name))
        assert pinned is not None, f"{text} is not pinned: run python deploy/pin.py"
        assert needed.specifier.contains(pinned), f"{text}: run python deploy/pin.py"


@pytest.mark.parametrize(
    ("program", "absent"),
    [("orchestrator", {"torch", "transformers", "grpcio"}), ("edge", {"torch", "accelerate"})],
)
def test_requirements_of_programs_without_models(program: str, absent: set[str]) -> None:
    without = runpy.run_path(str(DEPLOY / "pin.py"))[f"{program.upper()}_DOES_WITHOUT"]
    asked = [Requirement(text) for text in PROJECT["dependencies"]]
    wanted = {str(each) for each in asked if canonicalize_name(each.name) not in without}
    lines = _read(f"{program}-requirements.txt").splitlines()[1:]
    assert set(lines) == wanted, "run python deploy/pin.py"
    assert not {Requirement(line).name for line in lines} & absent


@pytest.mark.slow
def test_the_orchestrator_runs_without_the_libraries_of_models() -> None:
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
        "from paceline.command import main\n"
        "main(['orchestrator', 'serve', '--listen=127.0.0.1:0', '--broker-listen=127.0.0.1:0'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert "orchestrator ready on http://" in process.stdout.readline()
        process.terminate()
        assert process.wait(20.0) == 0
    finally:
        process.kill()
        process.stdout.close()


def _copied(image: str) -> list[str]:
    """Return what the build stage copies from the repository."""
    stage = _read(f"{image}.Containerfile").split("\nFROM ")[1]
    lines = re.findall(r"^COPY (.+)$", stage, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


@pytest.mark.slow
@pytest.mark.parametrize("image", IMAGES)
def test_an_image_copies_all_that_the_package_is_built_from(image: str, tmp_path: Path) -> None:
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for source in _copied(image):
        assert f"!{source}" in allowed, f"{source} is kept from the builder"
        target = tmp_path / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*_pb2*")
            shutil.copytree(ROOT / source, target, ignore=ignored)
        else:
            shutil.copy(ROOT / source, target)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("edge/command.py", "paceline/v1/control_pb2.py", "cloud/command.py"):
        assert part in names
    page = [name for name in names if name.startswith("orchestrator/dashboard/")]
    assert any(name.endswith(".html") for name in page), page


@pytest.mark.parametrize("image", IMAGES)
def test_images_are_pinned_small_and_not_root(image: str) -> None:
    text = _read(f"{image}.Containerfile")
    build, final = text.split("\nFROM ")[1:]
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    assert "--constraint deploy/constraints.txt" in build
    assert "pip" not in final, "nothing is installed in what is shipped"
    assert re.search(r"^USER \d+:\d+$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final


def test_hadolint_finds_nothing() -> None:
    tool = _needs("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    _succeeds(tool, *(f"{image}.Containerfile" for image in IMAGES))


def test_every_secret_is_declared_and_used(composition: Composition) -> None:
    declared = set(yaml.safe_load(_read("compose.yaml"))["secrets"])
    used = set()
    for name, service in composition.services.items():
        said = " ".join([*service["command"], _read("mosquitto/mosquitto.conf")])
        text = said if name == "broker" else " ".join(service["command"])
        needed = set(re.findall(r"/run/secrets/([\w.-]+)", text))
        assert needed == set(service.get("secrets", [])), name
        used |= needed
    assert used == declared


def test_every_service_is_confined(composition: Composition) -> None:
    for name, service in composition.services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] == "unless-stopped", name
        assert service["user"] not in {"0", "0:0", "root"}, name
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= limits.keys(), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: others would get in by {port}"
        image = service["image"]
        assert image.startswith("paceline-") or re.search(r":v?\d+\.\d+\.\d+$", image), image


def _long_options(arguments: list[str]) -> set[str]:
    return {part.partition("=")[0] for part in arguments if part.startswith("--")}


@pytest.mark.parametrize("service", ["orchestrator", "verifier-1", "verifier-2", "edge-1"])
def test_commands_have_only_options_that_exist(composition: Composition, service: str) -> None:
    from importlib.metadata import EntryPoint  # noqa: PLC0415

    command: Any = composition.services[service]["command"]
    points = PROJECT["entry-points"]["paceline.commands"]
    known = EntryPoint(name="", group="", value=points[command[0]]).load()
    if not command[1].startswith("--"):
        known = known.commands[command[1]]
    names = {name for option in known.params for name in option.opts}
    assert _long_options(command) <= names


def test_verifiers_have_their_rules_and_their_names(composition: Composition) -> None:
    rules = _read("mosquitto/acl")
    for name, service in composition.services.items():
        if not name.startswith("verifier"):
            continue
        assert f"--verifier-id={name}" in service["command"]
        assert f"user {name}\ntopic write paceline/v1/verifiers/{name}/status\n" in rules
    assert rules.count("\nuser ") == 3
    for topic in TOPICS:
        start = topic.pattern.partition("+")[0]
        assert start in rules
    assert f"topic write {EDGE_POLICY.pattern}\n" in rules


def test_gpu_verifiers_are_those_of_the_main_file(composition: Composition) -> None:
    more = yaml.safe_load(_read("compose.gpu.yaml"))["services"]
    assert set(more) == {name for name in composition.services if name.startswith("verifier")}
    assert more["verifier-1"]["build"]["args"].keys() <= set(
        re.findall(r"^ARG (\w+)", _read("cloud.Containerfile"), re.MULTILINE)
    )


def test_promtool_accepts_what_is_scraped_and_when_to_warn() -> None:
    tool = _needs("promtool")
    assert "6 rules found" in _succeeds(tool, "check", "config", "prometheus/prometheus.yml")


def test_alerts_come_when_they_should_and_go_again() -> None:
    tool = _needs("promtool")
    assert "SUCCESS" in _succeeds(tool, "test", "rules", ROOT / "tests" / "data" / "alerts.yml")


def test_alerts_are_about_figures_that_exist() -> None:
    kinds: tuple[tuple[Any, ...], ...] = (VERIFIER_FIGURES, EDGE_FIGURES, ORCHESTRATOR_FIGURES)
    known = {
        f"{figure.name}_total" if figure.kind == "counter" else figure.name
        for figures in kinds
        for figure in figures
    }
    told = set(re.findall(r"paceline:\w+", _read("prometheus/alerts.yml")))
    assert told
    assert told <= known


def test_the_settings_of_a_service_are_options_of_the_edge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    file = tmp_path / "edge.toml"
    file.write_text(text, encoding="utf-8")
    assert run(["--config", str(file), "edge", "--help"]) == 0
    capsys.readouterr()
    unit = _read("systemd/paceline-edge.service")
    for name in re.findall(r"/run/credentials/paceline-edge.service/([\w.]+)", text):
        assert f"LoadCredential={name}:" in unit
    file.write_text(f"{text}draft-lenght = 4\n", encoding="utf-8")
    assert run(["--config", str(file), "edge", "--help"]) == 2
    assert "draft-length" in capsys.readouterr().err


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    tool = _needs("systemd-analyze")
    unit = tmp_path / "paceline-edge.service"
    program = tmp_path / "paceline"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    text = _read("systemd/paceline-edge.service")
    unit.write_text(text.replace("/opt/paceline/bin/paceline", str(program)), encoding="utf-8")
    assert _succeeds(tool, "verify", unit) == ""
    level = _succeeds(tool, "security", "--offline=yes", unit)
    found = re.search(r"exposure level for \S+: ([\d.]+)", level)
    assert found is not None
    assert float(found[1]) < 2.0


def test_the_readme_shows_the_quickstart_that_is_tried() -> None:
    tried = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8").splitlines()
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Two machines")[2]
    shown = [
        line
        for block in section.split("```sh\n")[1:]
        for line in block.partition("```")[0].splitlines()
    ]
    assert len(shown) > 5
    assert not [line for line in shown if line not in tried]
