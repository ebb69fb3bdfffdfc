"""Looks at models: their tokenizers always, their weights only when asked to."""

import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from transformers import AutoConfig, AutoModelForCausalLM

from edge.drafters.distilled import distilled_path
from paceline.clock import MonotonicClock
from paceline.engine.loading import DType, ModelSource, load_model, load_tokenizer, resolve
from paceline.errors import PacelineError
from simulator.doctor.probes.distilled import BYTES_PER_WEIGHT, look_at_distilled
from simulator.doctor.verdicts.models import ModelFinding

HUB_CONNECT_S = 10.0
"""Longest wait for a connection to the hub."""
HUB_PORT = 443


def look_at_model(
    name: str,
    *,
    role: str,
    dtype: DType,
    weights: Literal["none", "count", "load"],
    deadline_s: float,
    is_block: bool = False,
) -> ModelFinding:
    """Return what can be told of a model within a deadline: a hub name may wait for the network.

    Args:
        name: as in --target.
        role: target or draft.
        dtype: what it would run in.
        weights: whether to leave them alone, to count them, or to load them.
        deadline_s: longest time, in seconds; what is still under way then is left to end with the program.
        is_block: a draft that stands behind block:.
    """
    found = ModelFinding(role=role, name=name, error=f"{name}: took longer than {deadline_s:g} s")

    def look() -> None:
        nonlocal found
        found = _look(name, role=role, dtype=dtype, weights=weights, is_block=is_block)

    thread = threading.Thread(target=look, name=f"doctor-{role}", daemon=True)
    thread.start()
    thread.join(deadline_s)
    return found


def _look(
    name: str,
    *,
    role: str,
    dtype: DType,
    weights: Literal["none", "count", "load"],
    is_block: bool,
) -> ModelFinding:
    try:
        distilled = distilled_path(name) if role == "draft" else None
        if distilled is not None:
            return look_at_distilled(
                name, distilled, dtype=dtype, weights=weights, is_block=is_block
            )
        if is_block:
            return ModelFinding(
                role=role, name=name, error=f"{name}: no draft that paceline distil --block made"
            )
        source = resolve(name)
        if trouble := hub_trouble(source):
            return ModelFinding(role=role, name=name, error=f"{name}: {trouble}")
        tokenizer = load_tokenizer(source)
        found = ModelFinding(
            role=role,
            name=name,
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocabulary_size=tokenizer.vocabulary_size,
        )
        if weights == "none":
            return found
        found = replace(found, weight_bytes=_num_weights(source) * BYTES_PER_WEIGHT[dtype])
        if weights == "count":
            return found
        clock = MonotonicClock()
        started_s = clock.now_s()
        load_model(source, dtype=dtype, tokenizer=tokenizer)
        return replace(found, loaded_s=clock.now_s() - started_s)
    except PacelineError as error:
        return ModelFinding(role=role, name=name, error=str(error))
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # transformers' own
        return ModelFinding(role=role, name=name, error=f"{name}: {error}")


def hub_trouble(source: ModelSource, *, hub: str = ENDPOINT) -> str:
    """Return why a model of the hub cannot be had, or nothing. The hub's own library tries for most of a minute."""
    if Path(source.location).is_dir():
        return ""
    if isinstance(try_to_load_from_cache(source.location, "config.json"), str):
        return ""
    if "https" in getproxies():
        return ""  # the way there is the proxy's; the library knows how to ask it
    where = urlsplit(hub)
    try:
        port = where.port or HUB_PORT
        socket.create_connection((where.hostname or "", port), timeout=HUB_CONNECT_S).close()
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        return f"no such folder or file, not in the cache of models, and {where.hostname}: {said}"
    return ""


def _num_weights(source: ModelSource) -> int:
    """Return the number of parameters, from the configuration alone; nothing is allocated."""
    config = AutoConfig.from_pretrained(**source.arguments)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    # Tied matrices are one parameter, and one piece of memory.
    return sum(parameter.numel() for parameter in model.parameters())
