"""Puts an edge together: tokenizer, drafter, verifier, client."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from edge.control import Pilot, control_plane
from edge.control_options import ControlSettings
from edge.controller import Activity, Controller
from edge.draft_spec import needs_model, needs_torch, parse
from edge.drafters import load_drafter
from edge.options import NO_DRAFT, AgentSettings
from edge.private_verifier import PrivateVerifier, VerifierSettings, private_verifier
from edge.roster import Roster
from edge.steering import LengthPolicy, Steering
from paceline.beside import running_beside
from paceline.client.client import Client
from paceline.client.link import VerifierInfo
from paceline.client.outcome import ClientObserver
from paceline.client.settings import ConnectionSettings, RetryPolicy
from paceline.console import progress
from paceline.control.drafting import Bounds, Drafting
from paceline.control.messages import EdgeCounters, EdgeGauges
from paceline.drafter import Drafter
from paceline.engine.source import load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError, IncompatibleError

log = logging.getLogger(__name__)

WINDOW_MOST = 128
"""Most drafted tokens in flight that the edge chooses by itself."""

PRIVATE_RETRY = RetryPolicy(give_up_after_s=5.0)
"""A private verifier that is gone does not come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An edge that is ready to generate."""

    client: Client
    tokenizer: Tokenizer
    verifier: VerifierInfo
    """The first verifier that answered."""
    counters: Callable[[], EdgeCounters]
    """Sums since the start."""
    gauges: Callable[[], EdgeGauges]
    """How things are now."""


@contextlib.asynccontextmanager
async def open_agent(
    settings: AgentSettings,
    *,
    control: ControlSettings | None = None,
    observer: ClientObserver | None = None,
    explain: Callable[[str], None] | None = None,
) -> AsyncIterator[Agent]:
    """Load what is needed, reach the verifier, and give the agent while the body runs.

    Args:
        settings: which verifier, models and link.
        control: the control plane to take part in, if any.
        observer: is told of every generation.
        explain: is told in a sentence whenever the draft length changes.

    Raises:
        ConfigError: a model or a file is not there, or the private verifier did not start.
        ModelError: a model cannot be loaded.
        TransportError: no verifier answers.
        IncompatibleError: the verifier's model has another tokenizer.
    """
    source = resolve(settings.target)  # a wrong name fails before anything slow starts
    if settings.draft != NO_DRAFT:
        parse(settings.draft)
    async with contextlib.AsyncExitStack() as stack:
        verifiers, connection = settings.verifiers, settings.connection
        private: PrivateVerifier | None = None
        if not verifiers:
            if find_spec("torch") is None:
                raise ConfigError(
                    "--cloud: without a verifier elsewhere a private one runs here, and PyTorch, which computes its model, is "
                    "not installed; name a verifier"
                )
            token = secrets.token_hex(32)
            # It loads its model while we load our part.
            private = await stack.enter_async_context(
                private_verifier(_private(settings, token=token))
            )
            connection = ConnectionSettings(token=token, retry=PRIVATE_RETRY)
        with progress(f"loading the tokenizer of {settings.target}"):
            tokenizer = await asyncio.to_thread(load_tokenizer, source)
        drafter = await _drafter(settings, tokenizer)
        if private is not None:
            verifiers = (await private.ready(),)
        activity = Activity(observer)
        client = await stack.enter_async_context(
            Client(
                verifiers=verifiers,
                tokenizer=tokenizer,
                drafter=drafter,
                drafting=settings.drafting,
                connection=connection,
                observer=activity,
            )
        )
        verifier = await client.describe()
        _check(verifier, tokenizer)
        steering = _steering(settings, verifier=verifier, explain=explain)
        controller = Controller(client, steering=steering, activity=activity)
        await stack.enter_async_context(running_beside(controller.run))
        counters, gauges = client.counters, client.gauges
        if control is not None:
            follows = control.follow_verifiers and private is None
            pilot = Pilot(
                client=client,
                controller=controller,
                steering=steering,
                activity=activity,
                roster=Roster(verifiers, target=verifier.target, follows=follows),
                tokenizer_fingerprint=tokenizer.fingerprint,
                drafter=drafter.name if drafter is not None else "",
            )
            plane = await stack.enter_async_context(control_plane(control, pilot=pilot))
            counters, gauges = plane.counters, plane.gauges
        yield Agent(
            client=client,
            tokenizer=tokenizer,
            verifier=verifier,
            counters=counters,
            gauges=gauges,
        )


def _steering(
    settings: AgentSettings, *, verifier: VerifierInfo, explain: Callable[[str], None] | None
) -> Steering:
    def told(sentence: str) -> None:
        log.info("%s", sentence)
        if explain is not None:
            explain(sentence)

    drafting = settings.drafting
    drafts = settings.draft != NO_DRAFT
    return Steering(
        start=Drafting(draft_length=drafting.draft_length, window=drafting.window),
        length_policy=settings.length_policy if drafts else LengthPolicy.FIXED,
        bounds=Bounds(window_most=min(WINDOW_MOST, verifier.limits.window)),
        explain=told,
        growth=drafting.growth if drafts else None,
        byte_s=settings.byte_s,
    )


def _private(settings: AgentSettings, *, token: str) -> VerifierSettings:
    return VerifierSettings(
        target=settings.target,
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
        token=token,
    )


async def _drafter(settings: AgentSettings, tokenizer: Tokenizer) -> Drafter | None:
    if settings.draft == NO_DRAFT:
        return None
    spec = parse(settings.draft)
    device: Literal["auto", "cpu", "cuda"] = settings.device
    if needs_torch(spec):
        # In a thread: to import PyTorch takes seconds, and the loop may be somebody else's.
        device = await asyncio.to_thread(_prepared_torch, settings)
    if not needs_model(spec):
        return await asyncio.to_thread(load_drafter, settings.draft, tokenizer=tokenizer)
    with progress(f"loading the drafter {settings.draft}"):
        return await asyncio.to_thread(
            load_drafter,
            settings.draft,
            tokenizer=tokenizer,
            dtype=settings.dtype,
            # Without PyTorch nobody says whether there is an accelerator, so it must be asked for.
            device="cpu" if device == "auto" else device,
            threads=settings.threads,
        )


def _prepared_torch(settings: AgentSettings) -> Literal["cpu", "cuda"]:
    """Tell PyTorch how many threads it has; return where models run."""
    try:
        import torch  # noqa: PLC0415 - an edge whose draft needs none may be without
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"draft: {settings.draft} is computed by PyTorch, which is not installed; install it, or take lookup, suffix, none "
            "or llama:FILE"
        ) from error
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return settings.device


def _check(verifier: VerifierInfo, tokenizer: Tokenizer) -> None:
    """Say early, and with names, what the verifier would refuse with fingerprints."""
    if verifier.target.tokenizer_fingerprint != tokenizer.fingerprint:
        raise IncompatibleError(
            f"tokenizer: {tokenizer.name} has {tokenizer.fingerprint.hex()[:12]}, but the verifier at "
            f"{verifier.address} runs {verifier.target.name} with "
            f"{verifier.target.tokenizer_fingerprint.hex()[:12]}; give its model as --target"
        )
