"""What an edge believes: a verifier that lies, or is not the one asked for, is found out here."""

from collections.abc import Sequence
from dataclasses import replace

from paceline.errors import RemoteProtocolError
from paceline.messages import FLOOR_WINDOW, Commit, Open, Opened
from paceline.tokens import Position, TokenId


def check_opened(opened: Opened, *, request: Open, weights: bytes, length: Position) -> None:
    """Check an answer to `Open` or `Resume`.

    Args:
        opened: the answer.
        request: what was asked for.
        weights: fingerprint of the weights that made the text so far; empty if any will do.
        length: of the text known as committed.

    Raises:
        RemoteProtocolError: names the field.
    """
    if opened.length < length:
        raise RemoteProtocolError(
            f"opened.length: got {opened.length}, expected at least {length}, which was committed before"
        )
    if opened.limits.window < FLOOR_WINDOW:
        raise RemoteProtocolError(
            f"opened.limits.window: got {opened.limits.window}, expected at least {FLOOR_WINDOW}"
        )
    target, tokenizer = opened.target, request.tokenizer_fingerprint
    if target.tokenizer_fingerprint != tokenizer:
        raise RemoteProtocolError(
            f"opened.target.tokenizer_fingerprint: got {target.tokenizer_fingerprint.hex()}, expected "
            f"{tokenizer.hex()}; the verifier should have refused"
        )
    if weights and target.weights_fingerprint != weights:
        raise RemoteProtocolError(
            f"opened.target.weights_fingerprint: got {target.weights_fingerprint.hex()}, expected "
            f"{weights.hex()}; the verifier should have refused"
        )


def check_commit(commit: Commit, *, request: Open, log: Sequence[TokenId]) -> None:
    """Check committed tokens against what is known.

    Args:
        commit: what arrived.
        request: what was asked for.
        log: prompt and output known as committed.

    Raises:
        RemoteProtocolError: names the field.
    """
    known, end = len(log), commit.position + len(commit.tokens)
    skip = known - commit.position
    if skip < 0:
        raise RemoteProtocolError(
            f"commit.position: got {commit.position}, expected at most {known}, the end of what was committed before"
        )
    if tuple(log[commit.position : end]) != commit.tokens[:skip]:
        raise RemoteProtocolError(
            f"commit.tokens: they contradict what was committed from {commit.position} to {known}"
        )
    last = len(request.prompt) + request.max_tokens
    if end > max(last, known):
        raise RemoteProtocolError(
            f"commit.tokens: got text up to {end}, expected at most {last}, prompt and max_tokens"
        )
    if commit.finish is not None and end < known:
        raise RemoteProtocolError(
            f"commit.finish: got it after {end} tokens, but {known} were committed before"
        )


def beyond(commit: Commit, skip: int) -> Commit:
    """Return what a commit says after its first `skip` tokens."""
    if not skip:
        return commit
    return replace(
        commit,
        position=Position(commit.position + skip),
        tokens=commit.tokens[skip:],
        accepted=commit.accepted[skip:],
        logprobs=commit.logprobs[skip:],
    )
