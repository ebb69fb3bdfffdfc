"""A simulated edge: the client of a real one, its controller, and somebody who asks one thing after the other."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numpy.random import Generator

from edge.control import ControlPlane, Pilot
from edge.controller import Activity, Controller
from edge.roster import Roster
from edge.steering import LengthPolicy, Steering
from paceline.beside import running_beside
from paceline.client.client import Client, Host
from paceline.client.outcome import EndReason, Statistics
from paceline.client.settings import ConnectionSettings, DraftingSettings
from paceline.control.drafting import Bounds, Drafting
from paceline.control.marginal import BYTE_S
from paceline.drafter import Drafter
from paceline.errors import InvalidRequestError, PacelineError
from paceline.sampling.settings import SamplingSettings
from paceline.session.table import EdgeState
from paceline.settings import Address
from paceline.tokens import TokenId
from simulator.virtual.channel import Path
from simulator.virtual.connector import VirtualConnector
from simulator.virtual.draft import DraftSettings, SimulatedDrafter
from simulator.virtual.events import Tell
from simulator.virtual.machine import MachineClock, Occupation, VirtualThread
from simulator.virtual.parts import AnyDraftSettings, AnyTarget, make_drafter
from simulator.virtual.ranked_draft import RankedDrafter
from simulator.virtual.seat import Seat, taking_part

if TYPE_CHECKING:
    from simulator.virtual.real_draft import RealDrafter


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for."""

    prompt: tuple[TokenId, ...]
    max_tokens: int
    seed: int = 0
    at_s: float = 0.0
    """Not before this time."""
    temperature: float = 0.0
    """A toy target knows none."""

    @property
    def sampling(self) -> SamplingSettings:
        """How its tokens are drawn."""
        return SamplingSettings(temperature=self.temperature, seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """An edge, its machine, and what is asked there."""

    requests: tuple[Request, ...]
    """One after the other; one that fails is asked again after `pause_s`."""
    draft: AnyDraftSettings | None = DraftSettings()  # noqa: RUF009 - frozen
    """None drafts nothing; a `RealTarget` needs `RealDraftSettings`."""
    drafting: DraftingSettings = DraftingSettings()  # noqa: RUF009 - frozen
    length_policy: LengthPolicy = LengthPolicy.FIXED
    byte_s: float = BYTE_S
    """What a byte of a tree's proposals is taken to cost, in seconds, with `LengthPolicy.MARGINAL`."""
    connection: ConnectionSettings = ConnectionSettings()  # noqa: RUF009 - frozen
    pause_s: float = 0.5
    max_attempts: int = 50
    """How often a request is asked before the world gives up."""
    is_open: bool = False
    """Do not end when all is answered: `SimulatedEdge.ask` brings more. What fails is not asked again then."""
    make_drafter: Callable[[AnyTarget, Occupation], Drafter] | None = None
    """Returns a drafter of the caller's own, in place of `draft`; it says what its calls take with `Occupation.spend`."""


@dataclass(slots=True, kw_only=True)
class Asked:
    """One try at a request: what was handed out, piece by piece, and how it ended."""

    request: Request
    pieces: list[TokenId] = field(default_factory=list)
    first_position: int | None = None
    reason: EndReason | None = None
    error: PacelineError | None = None
    statistics: Statistics | None = None


class SimulatedEdge:
    """See the module.

    Args:
        name: for the log.
        settings: the program, its machine, and what is asked.
        target: what its verifiers serve.
        paths: to the verifiers, the preferred one first.
        generator: draws what is left to chance.
        tell: told what happens, if anybody wants to know.
    """

    def __init__(
        self,
        *,
        name: str,
        settings: EdgeSettings,
        target: AnyTarget,
        paths: Mapping[Address, Path],
        generator: Generator,
        tell: Tell | None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.paths = dict(paths)
        self.clock = MachineClock(origin_s=float(generator.integers(1, 10_000_000)))
        self.occupation = Occupation()
        self.asked: list[Asked] = []
        self.num_answered = 0
        self.is_done = asyncio.Event()
        self._progressed = asyncio.Event()
        self.num_lives = 0
        self.seat: Seat | None = None
        """In the control plane, if there is one."""
        self.pilot: Pilot | None = None
        """What steers the client of this life, if there is a control plane."""
        self.plane: ControlPlane | None = None
        self.released = asyncio.Event()
        """Set to let the program end: where there is a control plane it stays there when all is answered."""
        self._drafter_name = ""
        self._target = target
        self._requests = list(settings.requests)
        self._generator = generator
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._running: Client | None = None
        self._drafter: SimulatedDrafter | RankedDrafter | RealDrafter | None = None

    @property
    def num_open_drafts(self) -> int:
        """Memories of generations that the drafter of the last life holds."""
        return self._drafter.num_open if self._drafter else 0

    @property
    def states(self) -> tuple[EdgeState, ...]:
        """Where its sessions are; none while it does not run, or nothing is asked."""
        return self._running.states if self._running and self._task else ()

    @property
    def answers(self) -> Sequence[Asked]:
        """The tries that came to their end."""
        return [one for one in self.asked if one.reason is not None]

    # --- what may happen to it

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the program, unless it runs: it asks what was not answered yet."""
        if self._task is None and not self.is_done.is_set():
            self._task = group.create_task(self._live())

    def kill(self) -> None:
        """End the program like SIGKILL: it does not say goodbye, its machine closes its connections."""
        if self._task is None or self.is_done.is_set():
            return
        self._note("killed")
        for path in self.paths.values():
            path.edge_died()
        if self.seat is not None:
            self.seat.station.die()
        self._task.cancel()
        self._task = None

    def ask(self, request: Request) -> int:
        """Ask for something more, behind what was asked before; return its number. The edge must be open."""
        assert self.settings.is_open, f"{self.name}: it is not open"
        self._requests.append(request)
        self._progress()
        return len(self._requests) - 1

    async def gone(self) -> None:
        """Return when the program has ended, once it was released."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Return when something holds that depends on what was handed out and answered here."""
        while not is_true():
            await self._progressed.wait()

    async def has(self, num_tokens: int) -> None:
        """Return when the generation under way has handed out so many tokens, or all is done."""
        while not self.is_done.is_set() and self._num_tokens < num_tokens:
            await self._progressed.wait()

    # --- the program

    async def _live(self) -> None:
        self.num_lives += 1
        self._note("started", life=self.num_lives)
        settings, activity = self.settings, Activity()
        self.pilot = self.plane = None
        async with self._client(activity) as client, AsyncExitStack() as stack:
            self._running = client
            await self._steer(client, activity, stack)
            while await self._has_more():
                request = self._requests[self.num_answered]
                await asyncio.sleep(request.at_s - asyncio.get_running_loop().time())
                if await self._ask(client, request) or settings.is_open:
                    self.num_answered += 1
                    self._progress()
                elif len(self.asked) >= settings.max_attempts:
                    break
                else:
                    await asyncio.sleep(settings.pause_s)
            if self.seat is not None:
                self._finish()
                await self.released.wait()
        if self.seat is None:
            self._finish()

    def _finish(self) -> None:
        self._note("done")
        self.is_done.set()
        self._progress()

    async def _steer(self, client: Client, activity: Activity, stack: AsyncExitStack) -> None:
        """Let the client be steered as it is in an edge, until the stack is left."""
        drafting, policy, seat = self.settings.drafting, self.settings.length_policy, self.seat
        if policy is LengthPolicy.FIXED and seat is None:
            return
        steering = Steering(
            start=Drafting(draft_length=drafting.draft_length, window=drafting.window),
            length_policy=policy,
            bounds=Bounds(window_most=drafting.window),
            growth=drafting.growth,
            byte_s=self.settings.byte_s,
        )
        controller = Controller(client, steering=steering, activity=activity)
        await stack.enter_async_context(running_beside(controller.run))
        if seat is None:
            return
        follows = seat.settings.follow_verifiers
        pilot = self.pilot = Pilot(
            client=client,
            controller=controller,
            steering=steering,
            activity=activity,
            roster=Roster(tuple(self.paths), target=self._target.identity, follows=follows),
            tokenizer_fingerprint=self._target.tokenizer.fingerprint,
            drafter=self._drafter_name,
        )
        self.plane = await stack.enter_async_context(
            taking_part(seat, pilot=pilot, clock=self.clock)
        )

    async def _has_more(self) -> bool:
        """Return whether anything is left to be asked; an open edge waits for it."""
        if self.settings.is_open:
            await self.wait_until(lambda: self.num_answered < len(self._requests))
        return self.num_answered < len(self._requests)

    async def _ask(self, client: Client, request: Request) -> bool:
        """Generate once; return whether it came to its end."""
        asked = Asked(request=request)
        self.asked.append(asked)
        self._note("asks", request=self.num_answered, attempt=len(self.asked))
        try:
            asking = client.generate(
                prompt_ids=request.prompt, max_tokens=request.max_tokens, sampling=request.sampling
            )
        except InvalidRequestError as error:
            if not self.settings.is_open:
                raise  # whoever planned the world is wrong
            asked.error = error
            self._note("failed", reason=error.reason, error=str(error))
            return False
        async with asking as generation:
            try:
                async for piece in generation:
                    if asked.first_position is None:
                        asked.first_position = piece.position
                    asked.pieces.extend(piece.token_ids)
                    self._progress()
            except PacelineError as error:
                asked.error = error
            else:
                asked.reason = generation.result.finish_reason
        asked.statistics = generation.statistics
        if asked.error is not None:
            self._note("failed", reason=asked.error.reason, error=str(asked.error))
        else:
            self._note("answered", tokens=len(asked.pieces))
        return asked.error is None

    def _client(self, activity: Activity) -> Client:
        settings = self.settings
        drafter: Drafter | None = None
        self._drafter = None
        if settings.make_drafter is not None:
            drafter = settings.make_drafter(self._target, self.occupation)
            self._drafter = drafter if isinstance(drafter, RankedDrafter) else None
        elif settings.draft is not None:
            drafter = self._drafter = make_drafter(
                self._target,
                settings=settings.draft,
                occupation=self.occupation,
                tell=self._tell,
            )
        self._drafter_name = drafter.name if drafter is not None else ""
        return Client(
            verifiers=tuple(self.paths),
            tokenizer=self._target.tokenizer,
            drafter=drafter,
            drafting=settings.drafting,
            connection=settings.connection,
            connector=VirtualConnector(self.paths, settings=settings.connection, clock=self.clock),
            observer=activity,
            host=Host(
                clock=self.clock, worker=VirtualThread(self.occupation), generator=self._generator
            ),
        )

    @property
    def _num_tokens(self) -> int:
        return len(self.asked[-1].pieces) if self.asked else 0

    def _progress(self) -> None:
        self._progressed.set()
        self._progressed = asyncio.Event()

    def _note(self, kind: str, **fields: float | str) -> None:
        if self._tell is not None:
            self._tell(kind, **fields)
