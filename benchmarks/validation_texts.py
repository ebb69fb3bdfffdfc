"""The texts that benchmarks/validation.py got, and how its drafters guess them.

In bfloat16 which of two nearly equal tokens wins depends on how many rows share a step, so a text may leave the one that
was recorded before. How well a draft guesses is then read off the text that really came.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge.drafters import LOOKUP
from paceline.engine.engine import Engine
from paceline.prompts import PromptLine
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.acceptance.guess_trace import GuessedText, GuessTrace, read_trace, write_trace
from simulator.calibration.record import OwnText, look_along, read_along
from simulator.calibration.run import trace_name

FILE = "texts.json"


def keep_text(folder: Path, prompt: tuple[TokenId, ...], output: tuple[TokenId, ...]) -> str:
    """Keep an answer; return what names it."""
    digest = hashlib.sha256(repr((prompt, output)).encode()).hexdigest()[:12]
    path = folder / FILE
    texts = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(texts | {digest: [prompt, output]}))
    return digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads along what a drafter would have guessed.

    Args:
        folder: of the texts; guesses are kept in its folder `read`.
        recorded: by draft: its trace of the prompts, made before; it says how the trace is to be understood.
        lines: the prompts by name.
    """

    folder: Path
    recorded: Mapping[str, GuessTrace]
    lines: Mapping[str, PromptLine]

    def read(self, draft: str, engine: Engine | None, *, wanted: Iterable[tuple[str, str]]) -> None:
        """Record guesses of answers, given by prompt and name, that were not recorded yet."""
        texts = json.loads((self.folder / FILE).read_text())
        known = {text.prompt: text for text in self.known(draft)}
        missing = sorted({(p, name) for p, name in wanted if f"{p} {name}" not in known})
        own = [self._own(prompt, *texts[name]) for prompt, name in missing]
        if not own:
            return
        assert (engine is None) == (draft == LOOKUP)
        found = look_along(own) if engine is None else read_along(engine, own)
        for (prompt, name), text in zip(missing, found, strict=True):
            known[f"{prompt} {name}"] = replace(text, prompt=f"{prompt} {name}")
        write_trace(self._path(draft), replace(self.recorded[draft], texts=tuple(known.values())))

    def known(self, draft: str) -> tuple[GuessedText, ...]:
        """Return all guesses of a drafter that were recorded so."""
        path = self._path(draft)
        return read_trace(path).texts if path.exists() else ()

    def _path(self, draft: str) -> Path:
        folder = self.folder / "read"
        folder.mkdir(exist_ok=True)
        return folder / trace_name(draft)

    def _own(self, prompt: str, ids: list[int], output: list[int]) -> OwnText:
        return OwnText(
            line=self.lines[prompt],
            prompt=tuple(TokenId(token) for token in ids),
            output=tuple(TokenId(token) for token in output),
            sampling=SamplingSettings(temperature=0.0, seed=0),
            ended=False,
        )
