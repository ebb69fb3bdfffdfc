"""What every way to load a draft needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paceline.engine.source import DType, Progress
from paceline.engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftLoading:
    """For which target, and how a draft runs."""

    tokenizer: Tokenizer
    """The target's; it bears the target's name, by which weights are found for drafts that are made of them."""
    dtype: DType = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int | None = None
    """Of llama.cpp; PyTorch's are set for the whole process. None: half as many as this machine has."""
    progress: Progress | None = None
