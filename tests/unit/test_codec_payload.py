"""What a drafted token costs on the wire: ids only, and parents only where a chain breaks."""

import random
from collections.abc import Callable

import pytest
from harness.toy_verifier import toy_request

from paceline.codec import encode_edge
from paceline.messages import Proposal
from paceline.session import EdgeSession
from paceline.session.events import Drafted, EdgeEffect, LinkUp, Send
from paceline.tokens import Position, TokenId

VOCABULARY = 49_152
PROMPT_LENGTH = 700


def bytes_per_token(per_message: int, *, restart_every: int, worst_ids: bool = False) -> float:
    """Return payload bytes per drafted token of a session's proposals.

    Args:
        per_message: drafted tokens in each.
        restart_every: tokens after which a guess was wrong and a new chain begins at the committed text.
        worst_ids: all ids are long ones.
    """
    rng = random.Random(1)
    lowest = 2**14 if worst_ids else 0
    prompt = tuple(rng.randrange(VOCABULARY) for _ in range(PROMPT_LENGTH))
    num_bytes = num_tokens = 0
    for _ in range(20):
        edge = EdgeSession(request=toy_request(prompt, max_tokens=4000), draft_length=64, window=64)
        edge.handle(LinkUp(holds_session=False))
        chain: tuple[TokenId, ...] = ()
        while len(chain) + per_message <= restart_every:
            fresh = (TokenId(rng.randrange(lowest, VOCABULARY)) for _ in range(per_message))
            chain = (*chain, *fresh)
            effects = edge.handle(Drafted(position=Position(PROMPT_LENGTH), tokens=chain))
            for proposal in proposals_of(effects):
                num_bytes += encode_edge(proposal).ByteSize()
                num_tokens += len(proposal.tokens)
    return num_bytes / num_tokens


def proposals_of(effects: tuple[EdgeEffect, ...]) -> list[Proposal]:
    messages = [effect.message for effect in effects if isinstance(effect, Send)]
    return [message for message in messages if isinstance(message, Proposal)]


@pytest.mark.parametrize(
    ("per_message", "budget"), [(8, 4.0), (4, 5.0), (1, 11.0)], ids=["8", "4", "1"]
)
def test_a_drafted_token_costs_few_bytes(
    per_message: int, budget: float, record_property: Callable[[str, object], None]
) -> None:
    cost = bytes_per_token(per_message, restart_every=16)
    record_property("bytes_per_drafted_token", round(cost, 2))
    assert 2.0 < cost <= budget


def test_even_long_ids_stay_in_the_budget() -> None:
    assert bytes_per_token(8, restart_every=16, worst_ids=True) <= 4.4
    assert bytes_per_token(8, restart_every=64, worst_ids=True) <= 4.0
