"""Policies that nobody should have sent: what a broken or hostile client publishes in the orchestrator's place."""

from enum import StrEnum

from paceline.control.messages import MAX_DRAFT_LENGTH, MAX_WINDOW, EdgePolicy
from paceline.mqtt.lanes import Letter
from paceline.topics import EDGE_POLICY


class Poison(StrEnum):
    """What is wrong with it."""

    GARBAGE = "garbage"
    """No message at all."""
    TRUNCATED = "truncated"
    LARGE = "too large"
    CLEARED = "cleared"
    """The policy is withdrawn."""
    OLD = "old"
    """One that was sent long ago."""
    FAR = "far"
    """Its revision is as high as can be: nothing that follows would count."""
    GREEDY = "greedy"
    """The longest drafts there are."""
    IDLE = "idle"
    """Draft nothing."""
    STRANGERS = "strangers"
    """It names verifiers that there are not."""


_NEXT = 1000
"""How far ahead of the orchestrator a forged revision is: it must count."""


def poisoned(poison: Poison, *, edge_id: str, revision: int, verifier: str) -> Letter:
    """Return what is published.

    Args:
        poison: what is wrong with it.
        edge_id: whose policy it is.
        revision: of the policy that the edge has, or 0.
        verifier: address of one that there is.
    """
    forged = EdgePolicy(revision=revision + _NEXT, draft_length=8, window=16, verifiers=(verifier,))
    payload = EDGE_POLICY.encode(forged)
    match poison:
        case Poison.GARBAGE:
            payload = b"\xff" * 64
        case Poison.TRUNCATED:
            payload = payload[: len(payload) // 2 + 1]
        case Poison.LARGE:
            payload *= 4096
        case Poison.CLEARED:
            payload = b""
        case Poison.OLD:
            payload = _policy(revision=1, draft_length=3, window=6, verifiers=(verifier,))
        case Poison.FAR:
            # Said in the bytes of the schema: our own encoder would not.
            payload = b"\x08" + b"\xff" * 8 + b"\x7f" + payload[payload.index(b"\x10") :]
        case Poison.GREEDY:
            payload = _policy(
                revision=forged.revision, draft_length=MAX_DRAFT_LENGTH, window=MAX_WINDOW
            )
        case Poison.IDLE:
            payload = _policy(revision=forged.revision, draft_length=0, window=1)
        case Poison.STRANGERS:
            names = ("10.0.0.99:50051", "nowhere.invalid:1", "10.0.0.1:1")
            payload = _policy(revision=forged.revision, draft_length=8, window=16, verifiers=names)
    return Letter(name=EDGE_POLICY.name(edge_id), payload=payload, retain=True)


def _policy(
    *, revision: int, draft_length: int, window: int, verifiers: tuple[str, ...] = ()
) -> bytes:
    return EDGE_POLICY.encode(
        EdgePolicy(revision=revision, draft_length=draft_length, window=window, verifiers=verifiers)
    )
