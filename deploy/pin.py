"""Writes the exact versions that container images install: those of the environment this runs in, which ran the tests.

    python deploy/pin.py

constraints.txt pins everything Paceline needs and what that needs in turn. orchestrator-requirements.txt lists what the
orchestrator needs of it: no PyTorch, so that its image is small. edge-requirements.txt lists what an edge without PyTorch needs.
"""

import importlib.metadata
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FOLDER = Path(__file__).resolve().parent
DISTRIBUTION = "paceline"

ORCHESTRATOR_DOES_WITHOUT = frozenset(
    {
        *("accelerate", "gguf", "grpcio", "grpcio-health-checking", "huggingface-hub"),
        *("jinja2", "packaging", "torch", "transformers"),
    }
)
"""Of our direct dependencies. What is left is tried by a test that runs the orchestrator with these blocked."""

EDGE_DOES_WITHOUT = frozenset({"accelerate", "torch"})
"""Of our direct dependencies, where drafts are computed by llama.cpp or by nobody: docs/llama.md. A test tries it."""

HEADER = "# Written by deploy/pin.py; do not edit.\n"


def closure(names: list[str]) -> dict[str, str]:
    """Return installed packages with their versions: the named ones and everything they need.

    What is not installed is not needed here: packages for other systems, and CUDA's, which PyTorch pins itself.
    """
    found: dict[str, str] = {}
    waiting = [(name, "") for name in names]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        # Without "+cpu": the same version comes from another index with another suffix.
        found[canonicalize_name(name)] = Version(distribution.version).public
        for needed in map(Requirement, distribution.requires or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                further = {(needed.name, part) for part in ("", *needed.extras)}
                waiting += further - seen
                seen |= further
    return dict(sorted(found.items()))


def direct_dependencies() -> dict[str, Requirement]:
    """Return what pyproject.toml asks for, by name."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))
    requirements = [Requirement(text) for text in project["project"]["dependencies"]]
    return {canonicalize_name(each.name): each for each in requirements}


def main() -> None:
    """Write all files."""
    direct = direct_dependencies()
    pins = closure([*direct])
    lines = [f"{name}=={version}\n" for name, version in pins.items()]
    (FOLDER / "constraints.txt").write_text(HEADER + "".join(lines), encoding="utf-8")
    for program, without in (
        ("orchestrator", ORCHESTRATOR_DOES_WITHOUT),
        ("edge", EDGE_DOES_WITHOUT),
    ):
        needed = sorted(name for name in direct if name not in without)
        text = HEADER + "".join(f"{direct[name]}\n" for name in needed)
        (FOLDER / f"{program}-requirements.txt").write_text(text, encoding="utf-8")
        print(f"{len(needed)} requirements of the {program}")
    print(f"{len(pins)} pins")


if __name__ == "__main__":
    main()
