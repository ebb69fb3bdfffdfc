"""What a drafter's guesses are worth along an answer, round by round, as with a verifier that judges each round's guesses at once.

A chain guesses so many tokens in a row. A tree grows best first, up to so many guesses in all, some of them with each pass. A guess is
judged if all above it was right; in a tree a place is judged if something was guessed there, and accepted if one of the
guesses is right.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from paceline.drafter import ScoringDrafter, TreeDraft
from paceline.session.growth import Frontier, Growth, path_to
from paceline.session.tree import root_after
from paceline.tokens import TokenId
from simulator.calibration.record import OwnText

GUESSES_PER_TREE = 12
GUESSES_PER_PASS = 4


class Rounds:
    """Counts of one drafter at one temperature.

    Args:
        draft_length: guesses of a chain.
        is_tree: whether to grow a tree instead.
    """

    def __init__(self, *, draft_length: int, is_tree: bool) -> None:
        self._draft_length = draft_length
        self._is_tree = is_tree
        self._rounds = self._drafted = self._judged = self._accepted = self._positions = 0
        self._calls_s: list[float] = []
        self._tokens: list[int] = []

    def run(self, drafter: ScoringDrafter, text: OwnText) -> None:
        """Draft along an answer, round by round."""
        draft = drafter.open(
            prompt_length=len(text.prompt),
            max_tokens=len(text.output) + GUESSES_PER_TREE,
            sampling=text.sampling,
        )
        try:
            while draft.prepare(text.prompt):
                pass
            done = 0
            while done < len(text.output) - 1:
                known = (*text.prompt, *text.output[:done])
                ahead = text.output[done:-1]
                started_s = time.thread_time()
                if self._is_tree:
                    assert isinstance(draft, TreeDraft), "its name says so"
                    grown, right, judged = grow(draft, known, ahead)
                else:
                    found = draft.extend(known, min(self._draft_length, len(ahead)))
                    grown, right = len(found), same_beginning(found, ahead)
                    judged = min(right + 1, grown)
                took_s = time.thread_time() - started_s
                if done:  # the first call may have the end of the prompt to compute
                    self._calls_s.append(took_s)
                    self._tokens.append(grown)
                self._rounds += 1
                self._drafted += grown
                self._judged += judged
                self._accepted += right
                self._positions += right + 1
                done += right + 1
        finally:
            draft.close()

    def figures(self, step_s: float) -> dict[str, Any]:
        """What the table tells; `step_s` is a step of the target."""
        token_s = sum(self._calls_s) / max(1, sum(self._tokens))
        return {
            "acceptance_probability": round(self._accepted / max(1, self._judged), 4),
            "judged": self._judged,
            "tokens_per_round": round(self._positions / max(1, self._rounds), 3),
            "drafted_per_round": round(self._drafted / max(1, self._rounds), 3),
            "ms_per_drafted_token": round(1e3 * token_s, 3),
            "target_step_ms": round(1e3 * step_s, 3),
            "cost": round(token_s / step_s, 4),
            "cost_of_round": round(sum(self._calls_s) / max(1, len(self._calls_s)) / step_s, 4),
        }


def same_beginning(guesses: Sequence[TokenId], ahead: Sequence[TokenId]) -> int:
    """Return how many tokens two texts have in common before they part."""
    count = 0
    while count < min(len(guesses), len(ahead)) and guesses[count] == ahead[count]:
        count += 1
    return count


def grow(
    draft: TreeDraft, text: Sequence[TokenId], ahead: Sequence[TokenId]
) -> tuple[int, int, int]:
    """Grow a tree best first; return its guesses, how many tokens of what is ahead it holds, and how many places are judged."""
    growth = Growth(floor=1e-9)
    root = root_after(tuple(text))
    frontier, size = Frontier(root), 0
    while size < GUESSES_PER_TREE:
        leaves = frontier.best(growth, deepest=min(GUESSES_PER_TREE, len(ahead)), stops=frozenset())
        found = draft.branch(text, [path_to(leaf) for leaf in leaves], width=growth.width)
        for leaf, guesses in zip(leaves, found, strict=True):
            frontier.grown(leaf, guesses)
        most = min(GUESSES_PER_PASS, GUESSES_PER_TREE - size)
        hung = len(list(frontier.promoted(most, growth)))
        if not hung:
            break
        size += hung
    node, right = root, 0
    for token in ahead:
        if token not in node.children:
            return size, right, right + bool(node.children)
        node, right = node.children[token], right + 1
    return size, right, right
