"""A client as an edge program has it: connected, steered, and with a drafter, for all that one tenant asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distance_cells import DRAFTS, NO_DRAFT, SYSTEMS, Draft, Link, System, drafting

from edge.agent import WINDOW_MOST
from edge.controller import Activity, Controller
from edge.steering import Steering
from paceline.client.client import Client
from paceline.client.settings import ConnectionSettings
from paceline.control.drafting import Bounds, Drafting
from paceline.drafter import Draft as DraftMemory
from paceline.drafter import Drafter
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A generation to make."""

    verifier: str
    token: str
    system: str
    draft: str
    rtt_s: float
    category: str
    prompt: tuple[TokenId, ...]
    max_tokens: int
    temperature: float
    seed: int
    texts: tuple[tuple[TokenId, ...], ...]
    """What a recorded draft knows."""

    @property
    def sampling(self) -> SamplingSettings:
        """How its tokens are drawn."""
        return SamplingSettings(temperature=self.temperature, seed=self.seed)

    @property
    def way(self) -> System:
        """The system."""
        return next(one for one in SYSTEMS if one.name == self.system)

    @property
    def guessing(self) -> Draft:
        """The draft."""
        return next(one for one in (NO_DRAFT, *DRAFTS) if one.name == self.draft)

    @property
    def has_trees(self) -> bool:
        """The drafter is asked for several guesses for a position."""
        return self.way.pipeline.sends_trees or self.way.pipeline.caches_outcomes


def job_of(value: Mapping[str, Any]) -> Job:
    """Return a job from JSON."""
    tokens = {"prompt": tuple(value["prompt"]), "texts": tuple(map(tuple, value["texts"]))}
    return Job(**({**value} | tokens))


class Changing:
    """A `Drafter` that hands on to another one: a recorded draft knows one prompt, its client lives longer.

    Args:
        drafter: the first one.
    """

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter

    @property
    def name(self) -> str:
        """See `Drafter`."""
        return self.drafter.name

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> DraftMemory:
        """See `Drafter`."""
        return self.drafter.open(
            prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )


class Seat:
    """The client of one tenant, as `edge.agent` puts it together.

    Args:
        job: the first one.
        tokenizer: the target's.
        drafter: None drafts nothing.
    """

    def __init__(self, job: Job, *, tokenizer: Tokenizer, drafter: Drafter | None) -> None:
        link = Link(name="", network="", rtt_s=job.rtt_s)
        settings = drafting(job.way, job.guessing, link)
        self._changing = None if drafter is None else Changing(drafter)
        activity = Activity()
        self.client = Client(
            verifiers=(job.verifier,),
            tokenizer=tokenizer,
            drafter=self._changing,
            drafting=settings,
            connection=ConnectionSettings(token=job.token),
            observer=activity,
        )
        steering = Steering(
            start=Drafting(draft_length=settings.draft_length, window=settings.window),
            length_policy=job.way.policy,
            bounds=Bounds(window_most=WINDOW_MOST),
            growth=settings.growth,
        )
        self.controller = Controller(self.client, steering=steering, activity=activity)

    async def connect(self) -> None:
        """Be connected before anything is asked."""
        await self.client.__aenter__()
        async with self.client.generate(prompt_ids=(TokenId(1),), max_tokens=1) as generation:
            async for _ in generation:
                pass

    async def leave(self) -> None:
        """Close all connections."""
        await self.client.__aexit__(None, None, None)

    def change(self, drafter: Drafter | None) -> None:
        """Draft with this from now on."""
        if self._changing is not None and drafter is not None:
            self._changing.drafter = drafter
