"""The few names that everything shares."""

from typing import NewType

TokenId = NewType("TokenId", int)
"""A token of the target's vocabulary; 0 <= id < vocabulary size."""

Position = NewType("Position", int)
"""A place over prompt and output together, from 0. Also a length: the text before it."""

SessionId = NewType("SessionId", bytes)
"""16 unguessable bytes, issued by the verifier."""


def log_name(session_id: SessionId) -> str:
    """Return what both sides call a session in their logs: too little of its id to resume it."""
    return session_id[:8].hex()
