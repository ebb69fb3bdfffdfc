"""Compile proto/ to Python stubs: at build time by hatchling, or by hand: python deploy/build_stubs.py [FOLDER].

The stubs are never committed: protoc's output must match the installed protobuf runtime.
"""

import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = ("python", "grpc_python", "mypy", "mypy_grpc")


def build(output: Path) -> None:
    """Write the stubs of every schema under proto/ below `output`.

    Raises:
        RuntimeError: protoc refused a schema; its own message is on stderr.
    """
    schemas = sorted(str(path) for path in (ROOT / "proto").rglob("*.proto"))
    well_known = files("grpc_tools") / "_proto"
    # protoc finds its plugins on PATH or by name; a build environment's scripts are beside python.
    plugins = [
        f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"
        for name in ("mypy", "mypy_grpc")
        if (Path(sys.executable).parent / f"protoc-gen-{name}").exists()
    ]
    outputs = [f"--{name}_out={output}" for name in PLUGINS]
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{well_known}", *plugins, *outputs, *schemas]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed: fix the schema it names above")


class StubsHook(BuildHookInterface[Any]):
    """Called by hatchling before it packs a wheel or an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build into the source tree, where the packages are."""
        del version, build_data
        build(ROOT)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
