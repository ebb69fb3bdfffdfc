"""One session in a simulated world, and the same without drafts: plain streaming."""

from dataclasses import dataclass, replace

from paceline.client.settings import DraftingSettings
from paceline.errors import ConfigError
from paceline.timeline.building import timeline_of
from paceline.timeline.facts import Facts
from paceline.timeline.value import Reference
from paceline.tokens import TokenId
from simulator.network import NetworkSettings
from simulator.timeline.from_log import facts_of_log
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import Asked, EdgeSettings, Request
from simulator.virtual.events import EventLog
from simulator.virtual.model import ModelSettings
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """What is asked, over which network, of which machines."""

    network: NetworkSettings
    draft: DraftSettings
    model: ModelSettings
    drafting: DraftingSettings
    prompt_tokens: int = 32
    tokens: int = 64
    neighbours: int = 0
    """Other edges that ask the same verifier for as much, each over a link of its own."""
    seed: int = 0

    def world(self, *, drafts: bool = True) -> WorldSettings:
        """Return the world; without drafts it is plain streaming."""
        edges = tuple(
            EdgeSettings(
                requests=(self._request(index),),
                draft=self.draft if drafts else None,
                drafting=self.drafting,
            )
            for index in range(1 + self.neighbours)
        )
        return WorldSettings(
            edges=edges,
            verifiers=(VerifierSettings(model=self.model),),
            network=self.network,
            seed=self.seed,
        )

    def _request(self, index: int) -> Request:
        # Neighbours ask a little later: steps that all begin together would never let anybody wait.
        return Request(
            prompt=tuple(TokenId(1 + (7 * index + i) % 500) for i in range(self.prompt_tokens)),
            max_tokens=self.tokens,
            seed=self.seed * 1009 + index,
            at_s=0.013 * index,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of it."""

    facts: Facts
    plain: Reference
    """How the text grew without drafts, in the same world."""


def run_session(plan: SessionPlan) -> Ran:
    """Run a session with drafts, and one without.

    Raises:
        ConfigError: the network is such that the answer failed.
    """
    drafted, log = _answered(plan.world())
    plain, plain_log = _answered(plan.world(drafts=False))
    assert drafted.pieces == plain.pieces, "drafts never change the text"
    facts = facts_of_log(plain_log)
    return Ran(
        facts=facts_of_log(log),
        plain=Reference(name="plain streaming, same world", times_s=_token_times(facts)),
    )


def _answered(world: WorldSettings) -> tuple[Asked, EventLog]:
    log = EventLog()
    result = run(replace(world, longest_s=36_000.0), log=log)
    (*_, asked) = result.asked[0]
    if asked.reason is None:
        raise ConfigError(f"network {world.network.name}: nothing was answered: {asked.error}")
    return asked, log


def _token_times(facts: Facts) -> tuple[float, ...]:
    """Return when each token was at the edge, in seconds from the start."""
    timeline = timeline_of(facts, title="")
    return tuple(commit.at_s for commit in timeline.commits for _ in commit.accepted)
