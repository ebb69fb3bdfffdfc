"""The shape of the repository: who imports whom, fresh stubs, small files, a README that tells the truth."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from paceline.v1 import control_pb2, verification_pb2

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
MAX_LINES = 400
STUBS = {"control.proto": control_pb2, "verification.proto": verification_pb2}


def _sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if "_pb2" not in path.name)


@pytest.mark.slow
def test_import_contracts_hold() -> None:
    linted = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("name", STUBS)
def test_stubs_are_fresh(name: str, tmp_path: Path) -> None:
    target = tmp_path / "descriptors"
    schema = f"paceline/v1/{name}"
    assert (
        protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={target}", schema])
        == 0
    )
    compiled = FileDescriptorSet.FromString(target.read_bytes()).file[0]
    installed = FileDescriptorProto()
    STUBS[name].DESCRIPTOR.CopyToProto(installed)
    # The runtime fills json_name in where the compiler leaves it out, and the other way round.
    for descriptor in (compiled, installed):
        for message in descriptor.message_type:
            for field in (*message.field, *(f for n in message.nested_type for f in n.field)):
                field.ClearField("json_name")
    assert compiled == installed, "the stubs are stale: run make stubs"


def test_every_schema_has_a_fresh_stub_test() -> None:
    schemas = {path.name for path in (ROOT / "proto").rglob("*.proto")}
    assert schemas == set(STUBS)


def test_every_package_is_there_and_says_what_it_is() -> None:
    for name in PACKAGES:
        text = (ROOT / name / "__init__.py").read_text(encoding="utf-8")
        assert text.startswith('"""'), name
    assert not (ROOT / "proto" / "__init__.py").exists()
    contracts = PROJECT["tool"]["importlinter"]
    assert contracts["root_packages"] == PACKAGES


def test_every_sub_command_has_its_module() -> None:
    for name, target in PROJECT["project"]["entry-points"]["paceline.commands"].items():
        module = target.partition(":")[0]
        assert importlib.util.find_spec(module) is not None, f"{name}: {module} is missing"


def test_files_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _sources(*PACKAGES, "tests", "deploy", "benchmarks")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long, f"split these files, at most {MAX_LINES} lines: {long}"


def test_no_module_hides_one_of_the_standard_library() -> None:
    clashes = [
        str(path.relative_to(ROOT))
        for path in _sources(*PACKAGES)
        if path.stem in sys.stdlib_module_names and path.stem != "__main__"
    ]
    # Inside a package nothing is hidden, but a reader of `from . import queue` is misled all the same.
    assert not clashes


def test_the_readme_names_only_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b(?=`|\s+#)", readme))
    assert {"demo", "test"} <= named <= targets
    commands = set(re.findall(r"^paceline ([a-z]+)\b", readme, re.MULTILINE))
    assert commands <= set(PROJECT["project"]["entry-points"]["paceline.commands"])


def test_the_pages_the_readme_links_to_are_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(([\w./-]+)\)", readme))
    missing = sorted(link for link in links if not (ROOT / link).exists())
    assert not missing
