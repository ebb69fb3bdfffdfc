"""What a verifier's `Failure` means to an edge."""

from paceline.errors import (
    DrainingError,
    FencedError,
    IncompatibleError,
    InvalidRequestError,
    ModelError,
    OverloadedError,
    PacelineError,
    RemoteProtocolError,
    SessionLostError,
    UnauthenticatedError,
)
from paceline.messages import Failure

_KINDS: dict[str, type[PacelineError]] = {
    kind.reason: kind
    for kind in (
        DrainingError,
        FencedError,
        IncompatibleError,
        InvalidRequestError,
        ModelError,
        RemoteProtocolError,
        SessionLostError,
        UnauthenticatedError,
    )
}


def error_of(failure: Failure) -> PacelineError:
    """Return the error that a `Failure` tells of; PacelineError itself for a reason this version does not know."""
    if failure.reason == OverloadedError.reason:
        return OverloadedError(failure.message, retry_after_s=failure.retry_after_ms / 1000)
    kind = _KINDS.get(failure.reason)
    return (
        PacelineError(f"{failure.reason}: {failure.message}")
        if kind is None
        else kind(failure.message)
    )
