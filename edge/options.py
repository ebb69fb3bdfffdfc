"""The options that `generate`, `chat` and `edge` have in common, and the settings they make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from edge.draft_spec import TREES
from edge.steering import LengthPolicy
from paceline.client.settings import ConnectionSettings, DraftingSettings
from paceline.control.marginal import BYTE_S
from paceline.control.messages import MAX_DRAFT_LENGTH, MAX_WINDOW
from paceline.errors import ConfigError
from paceline.sampling.settings import MAX_SEED, SamplingSettings
from paceline.session.growth import Growth
from paceline.session.pipeline import PipelineName, PipelineSettings
from paceline.settings import ADDRESS, Address, secret

DEFAULT_TARGET = "smollm2-135m"
DEFAULT_MAX_TOKENS = 256
NO_DRAFT = "none"
TREE_DEPTH = 32
TREE_WINDOW = 256
"""A tree grows so deep and large unless told otherwise; what ends it is that guesses become unlikely."""

ROUND_LENGTH = 4
CHAIN_AHEAD = 16
"""A pipeline that works in rounds drafts so many tokens for each, one that runs ahead so far, unless told otherwise."""

_DRAFTING = DraftingSettings()
_REACH = ("draft_length", "window")
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MODEL_OPTIONS = (
    click.option(
        "--cloud",
        type=ADDRESS,
        multiple=True,
        help="A verifier (`paceline cloud`); repeat it for others that take over when it fails.  "
        "[default: a private one on this machine]",
    ),
    click.option(
        "--target",
        default=DEFAULT_TARGET,
        metavar="MODEL",
        help="The verifier's model: a Hugging Face name, a folder, a GGUF file, or smollm2-135m. With --cloud only its "
        "tokenizer is read.",
    ),
    click.option(
        "--draft",
        default="lookup",
        metavar="NAME",
        help="What guesses here: lookup or suffix (find repetitions, need no weights), none, a model like --target, "
        "low-bit:4/64 or early-exit:20 (made of --target), text:MODEL (any tokenizer), suffix+MODEL (both), tree:MODEL (a "
        "tree of guesses), adapt:tree:MODEL (one that learns from what is committed), llama:FILE (a GGUF file, without PyTorch); see docs/drafters.md.",
    ),
    click.option(
        "--draft-length",
        type=click.IntRange(0, MAX_DRAFT_LENGTH),
        help="How many tokens deep to draft beyond the committed text.  "
        f"[default: {_DRAFTING.draft_length} at first, then by --length-policy]",
    ),
    click.option(
        "--window",
        type=click.IntRange(1, MAX_WINDOW),
        help="Most drafted tokens under way to the verifier.  "
        f"[default: {_DRAFTING.window} at first, then by --length-policy]",
    ),
    click.option(
        "--length-policy",
        type=click.Choice([policy.value for policy in LengthPolicy]),
        help="Whether draft length and window stay as they are told, or follow what is measured (closed-form); for tree:MODEL "
        "whether a guess is sent by a fixed chance, or by what it is worth and costs (marginal).  [default: marginal for "
        "trees, else closed-form, but fixed with --draft-length or --window]",
    ),
    click.option(
        "--pipeline",
        type=click.Choice([name.value for name in PipelineName]),
        default=PipelineName.TREE_STREAM.value,
        help="What is drafted when, and which of it is sent when. The others are there to be compared with; see docs/pipelines.md.",
    ),
    click.option(
        "--patience",
        type=click.FloatRange(0.0, 3600.0),
        metavar="SECONDS",
        help="How long the verifier may wait for drafts before it goes on without; 0: not at all.  "
        "[default: 0 for tree-stream, 2 for the others]",
    ),
    click.option(
        "--byte-price",
        type=click.FloatRange(min=0.0),
        default=round(BYTE_S * 1e6, 3),
        metavar="US",
        help="What a byte of a tree's guesses is taken to cost, in microseconds: 8 is the time of one at 1 Mbit/s. More sends fewer "
        "guesses; for --length-policy marginal.",
    ),
    click.option(
        "--tokens-per-message",
        type=click.IntRange(min=1),
        default=_DRAFTING.tokens_per_message,
        help="Most drafted tokens sent together: fewer arrive sooner, more cost fewer bytes each.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16"]),
        default="float32",
        help="Arithmetic of the models that run on this machine.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="Where the models of this machine run.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1, max=1024),
        help="CPU threads of each model on this machine.  [default: as PyTorch thinks best]",
    ),
)

_CONNECTION_OPTIONS = (
    click.option("--token", help="Bearer token that the verifier asks for."),
    click.option("--token-file", type=_FILE, help="File with the token, kept out of `ps`."),
    click.option("--tls-ca", type=_FILE, help="Certificates to trust (PEM).  [default: system's]"),
    click.option("--tls-cert", type=_FILE, help="Our own certificate (PEM), for mutual TLS."),
    click.option("--tls-key", type=_FILE, help="Key of --tls-cert (PEM)."),
    click.option(
        "--insecure", is_flag=True, help="Speak without TLS to verifiers on other machines."
    ),
)

_ANSWER_OPTIONS = (
    click.option(
        "--max-tokens",
        type=click.IntRange(1, 2**31 - 1),
        default=DEFAULT_MAX_TOKENS,
        help="Most tokens of an answer.",
    ),
    click.option(
        "--temperature",
        type=float,
        default=0.0,
        help="0 takes the likeliest token, the same text every time; above, tokens are drawn.",
    ),
    click.option("--top-p", type=float, default=1.0, help="Draw from the likeliest tokens only."),
    click.option("--top-k", type=int, default=0, help="Draw from so many tokens; 0 is all."),
    click.option(
        "--min-p", type=float, default=0.0, help="Drop tokens below this x the likeliest."
    ),
    click.option(
        "--presence-penalty", type=float, default=0.0, help="Against tokens that are there."
    ),
    click.option("--frequency-penalty", type=float, default=0.0, help="The same, for each time."),
    click.option("--repetition-penalty", type=float, default=1.0, help="The same, as a divisor."),
    click.option(
        "--seed",
        type=click.IntRange(min=0, max=MAX_SEED),
        help="Same seed, same text, whatever draft and network.  [default: a random one]",
    ),
    click.option("--stop", multiple=True, help="Text that ends an answer; repeat it for others."),
    click.option("--system", help="System message, put before every conversation."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Which verifier, which models, which link."""

    verifiers: tuple[Address, ...] = ()
    """The preferred one first; empty: start a private one."""

    target: str = DEFAULT_TARGET
    draft: str = "lookup"
    drafting: DraftingSettings = field(default_factory=DraftingSettings)
    """How far ahead to draft at first, or always: as `length_policy` says."""

    length_policy: LengthPolicy = LengthPolicy.CLOSED_FORM
    byte_s: float = BYTE_S
    """What a byte of a tree's guesses is taken to cost, in seconds; at least 0."""

    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda if there is one."""

    threads: int | None = None
    """CPU threads of each model on this machine; none: PyTorch's own choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSettings:
    """How answers are drawn and where they end."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    """None: a new random one for every answer."""

    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()
    system: str | None = None

    def sampling(self, *, random_seed: int) -> SamplingSettings:
        """Return the settings of one answer; `random_seed` counts unless there is a fixed one.

        Raises:
            InvalidRequestError: a field is out of its range.
        """
        return SamplingSettings(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=random_seed if self.seed is None else self.seed,
        )


def agent_options(command: _Command) -> _Command:
    """Add the options of `AgentSettings` to a command."""
    return _decorated(command, (*_MODEL_OPTIONS, *_CONNECTION_OPTIONS))


def answer_options(command: _Command) -> _Command:
    """Add the options of `AnswerSettings` to a command."""
    return _decorated(command, _ANSWER_OPTIONS)


def agent_settings(values: Mapping[str, Any]) -> AgentSettings:
    """Return the settings of a command's values.

    Raises:
        ConfigError: they contradict each other, or a file cannot be read.
    """
    return AgentSettings(
        verifiers=tuple(values["cloud"]),
        target=values["target"],
        draft=values["draft"],
        drafting=_drafting(values),
        length_policy=_length_policy(values),
        byte_s=_byte_s(values["byte_price"]),
        connection=ConnectionSettings(
            insecure=values["insecure"],
            ca_file=values["tls_ca"],
            cert_file=values["tls_cert"],
            key_file=values["tls_key"],
            token=secret(values["token"], values["token_file"], name="--token"),
        ),
        dtype=values["dtype"],
        device=values["device"],
        threads=values["threads"],
    )


def _byte_s(price_us: float) -> float:
    if not isfinite(price_us):
        raise ConfigError(
            f"--byte-price: got {price_us}, expected a finite number of microseconds; --draft none sends no guesses"
        )
    return price_us / 1e6


def _drafting(values: Mapping[str, Any]) -> DraftingSettings:
    told = {name: values[name] for name in _REACH if values[name] is not None}
    pipeline = PipelineSettings(
        name=PipelineName(values["pipeline"]), patience_s=values["patience"]
    )
    usual = DraftingSettings(tokens_per_message=values["tokens_per_message"], pipeline=pipeline)
    if not pipeline.name.sends_trees:
        usual = replace(
            usual, draft_length=CHAIN_AHEAD if pipeline.name.runs_ahead else ROUND_LENGTH
        )
    elif _sends_tree(values):
        usual = replace(usual, draft_length=TREE_DEPTH, window=TREE_WINDOW, growth=Growth())
    return replace(usual, **told)


def _sends_tree(values: Mapping[str, Any]) -> bool:
    is_tree = str(values["draft"]).startswith(TREES)
    return is_tree and PipelineName(values["pipeline"]).sends_trees


def _length_policy(values: Mapping[str, Any]) -> LengthPolicy:
    """Return what was asked for; who says how far to draft means it, unless they say otherwise.

    Raises:
        ConfigError: the policy of a chain was asked for a tree, or the other way round.
    """
    asked = None if values["length_policy"] is None else LengthPolicy(values["length_policy"])
    is_fixed = asked in (None, LengthPolicy.FIXED)
    if not PipelineName(values["pipeline"]).sends_trees:
        if not is_fixed:
            raise ConfigError(
                f"--length-policy: got {asked} with --pipeline {values['pipeline']}, expected fixed: the policy plans for "
                f"{PipelineName.TREE_STREAM} only; say --draft-length"
            )
        return LengthPolicy.FIXED
    if _sends_tree(values):
        if asked is LengthPolicy.CLOSED_FORM:
            raise ConfigError(
                f"--length-policy: got {asked} with --draft {values['draft']}, expected marginal or fixed: a tree ends "
                "where guesses are not worth their cost, not at a length; leave the option out"
            )
        return asked or LengthPolicy.MARGINAL
    if asked is LengthPolicy.MARGINAL:
        raise ConfigError(
            f"--length-policy: got {asked} with --draft {values['draft']}, expected closed-form or fixed: it is for trees; "
            "leave the option out"
        )
    if asked is not None:
        return asked
    is_told = any(values[name] is not None for name in _REACH)
    return LengthPolicy.FIXED if is_told else LengthPolicy.CLOSED_FORM


def answer_settings(values: Mapping[str, Any]) -> AnswerSettings:
    """Return the settings of a command's values.

    Raises:
        InvalidRequestError: a value is out of its range.
    """
    names = AnswerSettings.__dataclass_fields__
    settings = AnswerSettings(**{name: values[name] for name in names})
    settings.sampling(random_seed=0)  # checks the ranges before anything slow starts
    return settings


def _decorated(command: _Command, options: tuple[Callable[[_Command], _Command], ...]) -> _Command:
    # Decorators apply from the last to the first, and --help lists them the other way round.
    for option in reversed(options):
        command = option(command)
    return command
