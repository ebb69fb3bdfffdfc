"""The typed Python client: an edge in itself, for programs that want the target's text."""

import asyncio
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from paceline.client.backoff import Generator
from paceline.client.generation import Generation
from paceline.client.grpc_link import GrpcConnector
from paceline.client.link import Connector, VerifierInfo
from paceline.client.outcome import ClientObserver
from paceline.client.pump import DraftingThread, Worker
from paceline.client.runner import Surroundings
from paceline.client.session_trace import SessionTrace
from paceline.client.settings import ConnectionSettings, DraftingSettings
from paceline.clock import Clock, MonotonicClock
from paceline.control.marginal import Measured
from paceline.control.messages import EdgeCounters, EdgeGauges
from paceline.drafter import Drafter
from paceline.engine.detokenizer import Detokenizer
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError, InvalidRequestError, TransportError
from paceline.messages import MAX_LOGPROBS, Open
from paceline.prompts import Message, parse_messages
from paceline.sampling.settings import SamplingSettings
from paceline.session.table import EdgeState
from paceline.settings import Address, parse_address
from paceline.tokens import TokenId

DEFAULT_MAX_TOKENS = 512
MAX_TOKENS = 2**31 - 1
"""What the wire can say; a verifier allows far fewer."""

MAX_PROMPT_TOKENS = 2**20
"""More may not fit into a message (`paceline.client.channel`), and gRPC would call that an overload, to be retried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a client takes from the machine it runs on; a simulation brings its own."""

    clock: Clock
    worker: Worker
    """Runs the drafter."""
    generator: Generator
    """Draws the jitter of reconnects."""


class Client:
    """Generates text with a verifier's model and, if there is one, a drafter of our own.

        async with Client(verifiers=["127.0.0.1:50051"], tokenizer=tokenizer, drafter=drafter) as client:
            async with client.generate(prompt="...", max_tokens=100) as generation:
                async for piece in generation:
                    print(piece.text, end="")
            print(generation.result.statistics)

    Any number of generations may run at the same time. One client per event loop.

    Args:
        verifiers: where to ask, "host:port" each, the preferred one first; the others serve when it fails.
        tokenizer: the target's; the verifier refuses any other.
        drafter: what guesses; None leaves all to the verifier.
        drafting: how far ahead to draft.
        connection: how to connect.
        connector: makes the streams, for tests and simulations; gRPC as `connection` says if None.
        observer: is told of every generation, for metrics.
        host: time, chance and the thread that drafts, for simulations; this machine's if None.

    Raises:
        ConfigError: an address, a certificate or a setting is wrong.
    """

    def __init__(  # noqa: PLR0913 - what a program brings, each under its name
        self,
        *,
        verifiers: Sequence[str | Address],
        tokenizer: Tokenizer,
        drafter: Drafter | None = None,
        drafting: DraftingSettings | None = None,
        connection: ConnectionSettings | None = None,
        connector: Connector | None = None,
        observer: ClientObserver | None = None,
        host: Host | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        thread = DraftingThread()
        self._thread = None if host else thread
        host = host or Host(clock=MonotonicClock(), worker=thread, generator=secrets.SystemRandom())
        self._clock = host.clock
        self._connector = connector or GrpcConnector(connection or ConnectionSettings())
        self._surroundings = Surroundings(
            connector=self._connector,
            verifiers=_addresses(verifiers),
            retry=(connection or ConnectionSettings()).retry,
            drafter=drafter,
            drafting=drafting or DraftingSettings(),
            worker=host.worker,
            clock=host.clock,
            generator=host.generator,
            observer=observer,
        )

    async def __aenter__(self) -> Self:
        """Make the client ready; nothing is connected yet."""
        if self._thread is not None:
            self._thread.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection. Generations must be over."""
        try:
            await self._connector.close()
        finally:
            if self._thread is not None:
                self._thread.__exit__()

    def generate(  # noqa: PLR0913 - the names are those of the OpenAI interface
        self,
        *,
        messages: Sequence[Message | Mapping[str, str]] | None = None,
        prompt: str | None = None,
        prompt_ids: Sequence[TokenId] | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        sampling: SamplingSettings | None = None,
        stop: Sequence[str] = (),
        num_logprobs: int = 0,
        trace: SessionTrace | None = None,
    ) -> Generation:
        """Return a generation to be entered with `async with`; nothing happens before.

        Args:
            messages: a conversation, put into the model's chat template. Give exactly one of this and the next two.
            prompt: a plain text to go on from, without a template.
            prompt_ids: the same as token ids.
            max_tokens: most tokens of output; the verifier may allow fewer.
            sampling: how tokens are drawn; None is the default settings with a fresh random seed.
            stop: strings that end the text before they appear in it.
            num_logprobs: how many of the target's log probabilities come with each token; 0 to 20.
            trace: notes what happens when, for a timeline; one of its own for each generation.

        Raises:
            InvalidRequestError: a value is out of its range, or not exactly one kind of prompt was given.
        """
        if not 0 <= num_logprobs <= MAX_LOGPROBS:
            raise InvalidRequestError(
                f"num_logprobs: got {num_logprobs}, expected 0 to {MAX_LOGPROBS}"
            )
        if not 1 <= max_tokens <= MAX_TOKENS:
            raise InvalidRequestError(f"max_tokens: got {max_tokens}, expected 1 to {MAX_TOKENS}")
        request = Open(
            tokenizer_fingerprint=self._tokenizer.fingerprint,
            prompt=self._encode(messages, prompt, prompt_ids),
            sampling=sampling or SamplingSettings(seed=random_seed()),
            max_tokens=max_tokens,
            stop_tokens=self._tokenizer.stop_tokens,
            num_logprobs=num_logprobs,
            patience_ms=self._surroundings.drafting.pipeline.patience_ms,
        )
        return Generation(
            request,
            detokenizer=Detokenizer(self._tokenizer),
            stop=stop,
            surroundings=self._surroundings,
            trace=trace,
        )

    def steer(
        self,
        *,
        drafting: DraftingSettings | None = None,
        verifiers: Sequence[str | Address] | None = None,
        weights: Mapping[Address, bytes] | None = None,
    ) -> None:
        """Change how far ahead to draft, which verifiers to use, or both; None leaves it as it is.

        Generations under way draft by the new settings at once; what they have sent stays sent. New verifiers count for new
        generations and for those that lose theirs: none leaves a verifier that serves it.

        Args:
            drafting: how far ahead.
            verifiers: the preferred one first.
            weights: fingerprints of the weights that some verifiers must serve. One that turns out to have others is left
                for the next, or else ends the generation: it would write another text.

        Raises:
            ConfigError: an address is wrong, or there is none.
        """
        around = self._surroundings
        if verifiers is not None:
            around.verifiers = _addresses(verifiers)
        if weights is not None:
            around.weights = dict(weights)
        if drafting is not None:
            around.drafting = drafting
        around.steer()

    @property
    def drafting(self) -> DraftingSettings:
        """How far ahead it drafts now."""
        return self._surroundings.drafting

    @property
    def states(self) -> tuple[EdgeState, ...]:
        """Where the sessions of the generations under way are, the oldest first."""
        return tuple(runner.state for runner in self._surroundings.running)

    @property
    def verifiers(self) -> tuple[Address, ...]:
        """Where it asks now, the preferred one first."""
        return self._surroundings.verifiers

    def counters(self) -> EdgeCounters:
        """Return sums over all generations of this client, those under way included."""
        around, now_s = self._surroundings, self._clock.now_s()
        running = [runner.statistics(now_s=now_s) for runner in around.running]
        return around.ledger.counters(running, now_s=now_s)

    def gauges(self) -> EdgeGauges:
        """Return how things are now. Times are of the verifier that opened a session last; 0 is what is not known yet."""
        around, meter = self._surroundings, self._surroundings.meter
        place = meter.in_use or around.verifiers[0]
        return EdgeGauges(
            num_generations=around.ledger.num_running,
            rtt_s=meter.rtt_s(place),
            rtt_jitter_s=meter.jitter_s(place),
            draft_s=meter.draft_s,
            step_s=meter.step_s(place),
            acceptance_probability=meter.acceptance_probability,
            num_judged=meter.num_judged,
            draft_length=around.drafting.draft_length if around.drafter is not None else 0,
            window=around.drafting.window,
            verifier=str(place),
        )

    def tree_measured(self) -> Measured:
        """Return what tells how a tree should grow, with the verifier that opened a session last."""
        around, meter = self._surroundings, self._surroundings.meter
        return meter.tree(meter.in_use or around.verifiers[0])

    async def probe(self, verifier: Address) -> VerifierInfo:
        """Ask one verifier what it serves, and note the round trip.

        Raises:
            TransportError: it does not answer.
            PacelineError: it refuses, and says why.
        """
        info = await self._connector.describe(verifier)
        self._surroundings.meter.add_rtt(verifier, info.rtt_s)
        return info

    async def keep_only(self, verifiers: Collection[Address]) -> None:
        """Forget other verifiers and close the connections to them; generations that use one are not disturbed."""
        self._surroundings.meter.keep_only(verifiers)
        await self._connector.keep_only(verifiers)

    def rtt_s(self, verifier: Address) -> float:
        """Return the round trip to a verifier in seconds; 0 if it was never measured."""
        return self._surroundings.meter.rtt_s(verifier)

    async def describe(self) -> VerifierInfo:
        """Ask the first verifier that answers what it serves.

        Raises:
            TransportError: none answers; the error of the preferred one.
            UnauthenticatedError: the credentials are wrong.
        """
        around = self._surroundings
        errors: dict[Address, TransportError] = {}
        for address in around.unreachable.order(around.verifiers, now_s=self._clock.now_s()):
            try:
                info = await self._connector.describe(address)
            except TransportError as error:
                around.unreachable.note(address, now_s=self._clock.now_s())
                errors[address] = error
            except asyncio.CancelledError:
                # The caller's patience ended first: whoever asks next need not wait here again.
                around.unreachable.note(address, now_s=self._clock.now_s())
                raise
            else:
                around.unreachable.forget(address)
                around.meter.add_rtt(address, info.rtt_s)
                return info
        raise errors[around.verifiers[0]]

    def _encode(
        self,
        messages: Sequence[Message | Mapping[str, str]] | None,
        prompt: str | None,
        prompt_ids: Sequence[TokenId] | None,
    ) -> tuple[TokenId, ...]:
        if sum(given is not None for given in (messages, prompt, prompt_ids)) != 1:
            raise InvalidRequestError(
                "messages, prompt, prompt_ids: expected exactly one of them to be given"
            )
        if messages is not None:
            ids = self._tokenizer.encode_chat(_checked(messages))
        elif prompt is not None:
            ids = self._tokenizer.encode(_unicode(prompt, name="prompt"))
        else:
            ids = tuple(prompt_ids or ())
        if not 0 < len(ids) <= MAX_PROMPT_TOKENS:
            raise InvalidRequestError(
                f"prompt: it has {len(ids)} tokens, expected 1 to {MAX_PROMPT_TOKENS}, and fewer than the context "
                "of the verifier's model"
            )
        return ids


def _addresses(verifiers: Sequence[str | Address]) -> tuple[Address, ...]:
    if not verifiers:
        raise ConfigError("verifiers: got none, expected at least one HOST:PORT")
    places = (parse_address(one) if isinstance(one, str) else one for one in verifiers)
    return tuple(dict.fromkeys(places))


def random_seed() -> int:
    """Return a fresh seed for `SamplingSettings`."""
    return secrets.randbits(64)


def _checked(messages: Sequence[Message | Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the conversation as the tokenizer takes it; mappings have `role` and `content`."""
    plain = [
        {"role": m.role, "content": m.content} if isinstance(m, Message) else dict(m)
        for m in messages
    ]
    try:
        checked = parse_messages(plain, where="messages")
    except ConfigError as error:
        raise InvalidRequestError(str(error)) from error
    return [
        {"role": message.role, "content": _unicode(message.content, name=f"messages[{index}]")}
        for index, message in enumerate(checked)
    ]


def _unicode(text: str, *, name: str) -> str:
    """Return the text if it is one: JSON and command lines can bring halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{name}: character {error.start} is half a surrogate pair, expected text that can be written as UTF-8"
        ) from error
    return text
