"""What `paceline calibrate` does: loads models one after another, measures, writes files."""

from __future__ import annotations

import gc
import os
import platform
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import click
import torch

from edge.draft_spec import BlockSpec, TreeSpec, parse
from edge.drafters import LOOKUP, ModelDrafter, load_drafter
from edge.private_verifier import VerifierSettings
from paceline.console import Step, progress
from paceline.engine.engine import Engine
from paceline.engine.loading import DType, load_model, load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError
from paceline.prompts import PromptLine
from paceline.sampling.settings import SamplingSettings
from simulator.acceptance.guess_trace import GuessTrace, write_trace
from simulator.calibration.collecting import Collection
from simulator.calibration.cost_file import Calibration, write_costs
from simulator.calibration.draft_steps import time_lookup, time_model_draft
from simulator.calibration.fit import Subject, fit
from simulator.calibration.grid import StepGrid
from simulator.calibration.record import (
    LOGITS,
    TOKENS,
    OwnText,
    look_along,
    read_along,
    write_texts,
)
from simulator.calibration.report import cost_lines, trace_lines
from simulator.calibration.service_steps import time_service
from simulator.calibration.target_steps import time_target
from simulator.cost import FittedCost

COSTS = "costs.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSettings:
    """What to measure."""

    target: str
    drafts: tuple[str, ...] = ()
    out: Path
    dtype: DType = "bfloat16"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    wants_costs: bool = True
    wants_service: bool = False
    """Costs of the verifier's program too; loads the target once more, in a process of its own."""
    grid: StepGrid = field(default_factory=StepGrid)
    lines: tuple[PromptLine, ...] = ()
    """Prompts of which guesses are recorded; none: no traces."""
    temperatures: tuple[float, ...] = (0.0, 1.0)
    seed: int = 0
    max_tokens: int = 64


def calibrate_all(settings: CalibrationSettings) -> None:
    """Measure, write, and tell.

    Raises:
        ConfigError, ModelError, IncompatibleError: a model or a setting is wrong.
    """
    torch.set_num_threads(settings.threads)
    settings.out.mkdir(parents=True, exist_ok=True)
    _check_names(settings.drafts)
    tokenizer = load_tokenizer(resolve(settings.target))
    target, texts = _target(settings, tokenizer)
    drafts = [_draft(settings, spec, tokenizer=tokenizer, texts=texts) for spec in settings.drafts]
    if target is not None and settings.wants_service:
        target = _with_service(settings, target, tokenizer)
    if target is not None:
        path = settings.out / COSTS
        found = tuple(draft for draft in drafts if draft is not None)
        write_costs(path, Calibration(machine=machine(), target=target, drafts=found))
        click.echo(f"written: {path}")


def trace_name(spec: str) -> str:
    """Return the file in which a drafter's guesses are recorded."""
    kept = "".join(char if char.isalnum() or char in "._-" else "-" for char in _name(spec))
    return f"guesses-{kept}.json"


def machine() -> dict[str, str]:
    """Return what times depend on besides the model."""
    versions = {name: version(name) for name in ("torch", "transformers", "paceline")}
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count() or 0),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    } | versions


def _name(spec: str) -> str:
    """Return what a drafter is called: of a folder or a file its own name, since its place means nothing elsewhere."""
    path = Path(spec).expanduser()
    return path.resolve().name if path.exists() else spec


def _check_names(specs: Sequence[str]) -> None:
    for spec in specs:
        parsed = parse(spec)
        if isinstance(parsed.model if isinstance(parsed, TreeSpec) else parsed, BlockSpec):
            raise ConfigError(
                f"--draft: got {spec}, expected a drafter of one position at a time: a trace has one guess for each. Leave "
                "block: out to record what the draft guesses without its slots"
            )
    names = [trace_name(spec) for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--draft: two of them would be written to {name}; leave one out")


def _target(
    settings: CalibrationSettings, tokenizer: Tokenizer
) -> tuple[FittedCost | None, list[OwnText]]:
    """Return the target's cost if it is wanted, and its text on the prompts."""
    source = resolve(settings.target)
    with progress(f"loading {settings.target}"):
        engine = load_model(
            source, dtype=settings.dtype, device=settings.device, tokenizer=tokenizer
        )
        engine.warm_up()
    cost = None
    if settings.wants_costs:
        with progress("timing steps of the target") as step:
            advance = _counting(step, settings.grid.num_turns)
            collection = time_target(engine, settings.grid, advance=advance)
        cost = _fit(settings, settings.target, settings.dtype, collection)
        click.echo("\n".join(cost_lines("target", cost)))
    if not settings.lines:
        return cost, []
    with progress("letting the target answer") as step:
        advance = _counting(step, len(settings.lines) * len(settings.temperatures))
        texts = [
            text
            for temperature in settings.temperatures
            for text in write_texts(
                engine,
                tokenizer,
                settings.lines,
                sampling=SamplingSettings(temperature=temperature, seed=settings.seed),
                max_tokens=settings.max_tokens,
                advance=advance,
            )
        ]
    return cost, texts


def _with_service(
    settings: CalibrationSettings, target: FittedCost, tokenizer: Tokenizer
) -> FittedCost:
    """Return the target's cost with what the program takes between two steps."""
    gc.collect()  # room for the verifier's own copy
    verifier = VerifierSettings(
        target=settings.target,
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
        token=secrets.token_hex(32),
    )
    between_s = time_service(verifier, tokenizer=tokenizer)
    click.echo(f"verifier: {1e3 * between_s:.3g} ms between two steps")
    return replace(target, between_s=between_s)


def _draft(
    settings: CalibrationSettings, spec: str, *, tokenizer: Tokenizer, texts: list[OwnText]
) -> FittedCost | None:
    """Measure one drafter; return its cost if it is wanted."""
    engine = _draft_engine(settings, spec, tokenizer)
    cost = None
    if settings.wants_costs:
        with progress(f"timing {spec}"):
            timed = (
                time_lookup(settings.grid)
                if engine is None
                else time_model_draft(engine, settings.grid)
            )
        cost = _fit(settings, _name(spec), settings.dtype if engine is not None else "", timed)
        click.echo("\n".join(cost_lines("draft", cost)))
    if texts:
        with progress(f"letting {spec} read along") as step:
            advance = _counting(step, len(texts))
            guessed = (
                look_along(texts, advance=advance)
                if engine is None
                else read_along(engine, texts, advance=advance)
            )
        trace = GuessTrace(
            draft=_name(spec),
            target=settings.target,
            width=16 if engine is not None else 1,
            abstains=engine is None,
            confidence=LOGITS if engine is not None else TOKENS,
            made=_made(settings, engine),
            texts=guessed,
        )
        path = settings.out / trace_name(spec)
        write_trace(path, trace)
        click.echo("\n".join([*trace_lines(trace), f"written: {path}"]))
    return cost


def _draft_engine(settings: CalibrationSettings, spec: str, tokenizer: Tokenizer) -> Engine | None:
    """Return a drafter's model; None for prompt lookup, which has none."""
    if spec == LOOKUP:
        return None
    gc.collect()  # the model before this one is large
    with progress(f"loading {spec}"):
        drafter = load_drafter(
            spec, tokenizer=tokenizer, dtype=settings.dtype, device=settings.device
        )
        if not isinstance(drafter, ModelDrafter):
            raise ConfigError(
                f"--draft: {spec} is a {type(drafter).__name__}; expected {LOOKUP}, low-bit:BITS/GROUP or a model"
            )
        engine = drafter.engine
        engine.warm_up()
    return engine


def _fit(
    settings: CalibrationSettings, name: str, dtype: str, collection: Collection
) -> FittedCost:
    subject = Subject(
        name=name, dtype=dtype, threads=settings.threads, left_out=collection.left_out
    )
    return fit(subject, collection.samples())


def _made(settings: CalibrationSettings, engine: Engine | None) -> dict[str, str]:
    made = {
        "dtype": settings.dtype,
        "seed": str(settings.seed),
        "max_tokens": str(settings.max_tokens),
        "prompts": str(len(settings.lines)),
    }
    if engine is not None:
        made["draft_weights"] = engine.identity.weights_fingerprint.hex()
    return made | {name: version(name) for name in ("torch", "transformers", "paceline")}


def _counting(step: Step, total: int) -> Callable[[], None]:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        step.advance(done, total)

    return advance


def _processor() -> str:
    """Return the processor's name as Linux tells it; elsewhere what Python knows."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor() or "unknown"
