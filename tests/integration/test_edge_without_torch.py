"""An edge on which PyTorch is not installed: what it can do, and what it says about the rest."""

import asyncio
import json
import runpy
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness.endpoint import scene, tiny_tokenizer
from harness.event_loop import run_async
from harness.gguf_files import save_tiny_gguf
from harness.llama_library import needs_llama
from harness.models import llama_config, save_tiny, tiny_model
from harness.reference import reference_output
from packaging.utils import canonicalize_name

from edge import agent as agent_module
from edge.agent import open_agent
from edge.drafters.llama import library as library_module
from edge.drafters.llama.library import library
from edge.options import AgentSettings
from paceline.engine import source as source_module
from paceline.engine.source import ModelSource, load_tokenizer
from paceline.errors import ConfigError, ModelError
from paceline.sampling.settings import SamplingSettings

PROGRAM = (
    "import sys; sys.modules.update(dict.fromkeys({absent})); from paceline.command import main; "
    "sys.exit(main())"
)
"""`paceline` where importing some modules fails."""
PIN = Path(__file__).parents[2] / "deploy/pin.py"
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as path:
        yield save_tiny(Path(path))


def _absent() -> list[str]:
    """Modules that nothing in deploy/edge-requirements.txt brings along: PyTorch, and what only PyTorch asks for."""
    pin = runpy.run_path(str(PIN))
    direct = pin["direct_dependencies"]()
    there = pin["closure"]([name for name in direct if name not in pin["EDGE_DOES_WITHOUT"]])
    gone = pin["closure"]([*direct]).keys() - there.keys()
    modules = packages_distributions().items()
    return sorted(
        module for module, names in modules if {canonicalize_name(n) for n in names} <= gone
    )


async def _generated(folder: Path, draft: str) -> dict[str, object]:
    absent = _absent()
    assert "torch" in absent
    async with scene() as here:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-P",
                "-c",
                PROGRAM.format(absent=absent),
                "--config",
                "/dev/null",
                "generate",
                "Hello",
            ),
            *("--raw", "--cloud", str(here.verifier.address), "--target", str(folder)),
            *("--draft", draft, "--threads", "1", "--json", "--max-tokens", "24"),
            *("--temperature", "0.7", "--seed", "5"),
            stdout=PIPE,
            stderr=PIPE,
        )
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        answer: dict[str, object] = json.loads(out)
        return answer


@pytest.mark.slow
@pytest.mark.parametrize(
    "draft", ["lookup", pytest.param("llama:{file}", marks=needs_llama)], ids=["lookup", "llama"]
)
def test_an_edge_generates_without_pytorch(folder: Path, tmp_path: Path, draft: str) -> None:
    if "{file}" in draft:
        draft = draft.format(file=save_tiny_gguf(tmp_path / "tiny.gguf"))
    answer = run_async(_generated(folder, draft))
    tokenizer = tiny_tokenizer()
    expected = reference_output(
        tiny_model(llama_config()),
        list(tokenizer.encode("Hello")),
        sampling=SamplingSettings(temperature=0.7, seed=5),
        max_tokens=24,
        stop_tokens=tokenizer.stop_tokens,
        vocabulary_size=tokenizer.vocabulary_size,
    )
    assert answer["token_ids"] == list(expected)


def test_what_needs_pytorch_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with open_agent(AgentSettings(target=str(folder))):
            pass

    monkeypatch.setattr(agent_module, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="a private one runs here"):
        run_async(run())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="early-exit:3 is computed by PyTorch, which is not"):
        agent_module._prepared_torch(AgentSettings(target=str(folder), draft="early-exit:3"))


def test_pytorch_is_not_imported_in_the_event_loop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importers: list[str] = []

    def prepared(_: AgentSettings) -> str:
        importers.append(threading.current_thread().name)
        return "cpu"

    monkeypatch.setattr(agent_module, "_prepared_torch", prepared)
    settings = AgentSettings(target=str(folder), draft=str(folder / "none.gguf"))
    with pytest.raises(ConfigError, match="there is no file"):
        run_async(agent_module._drafter(settings, tiny_tokenizer()))
    assert importers
    assert threading.main_thread().name not in importers


def test_a_tokenizer_in_a_gguf_file_says_that_it_needs_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source_module, "find_spec", lambda _: None)
    with pytest.raises(
        ModelError, match=r"name a folder or a hub repository with a tokenizer\.json"
    ):
        load_tokenizer(ModelSource(name="m", location="/nowhere", gguf_file="m.gguf"))


def test_a_missing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", None)
    with pytest.raises(ConfigError, match=r"install it with: pip install 'paceline\[llama\]'"):
        library()


def test_an_old_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    library.cache_clear()
    monkeypatch.setattr(library_module, "import_module", lambda _: object())
    monkeypatch.setattr(library_module, "version", lambda _: "0.2.0")
    with pytest.raises(ConfigError, match=r"got llama-cpp-python 0\.2\.0, expected 0\.3\.36"):
        library()
