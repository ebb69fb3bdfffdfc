"""What a gRPC status means to us. The one place where gRPC's errors become ours."""

import grpc

from paceline.errors import (
    IncompatibleError,
    InvalidRequestError,
    LinkClosed,
    LinkTimeout,
    OverloadedError,
    PacelineError,
    RemoteProtocolError,
    SessionLostError,
    UnauthenticatedError,
)

_CODE = grpc.StatusCode

ERRORS: dict[grpc.StatusCode, type[PacelineError]] = {
    # The stream is over without a complaint, but before we said so: a verifier that shuts down.
    _CODE.OK: LinkClosed,
    _CODE.CANCELLED: LinkClosed,
    # What broke connections, proxies and crashed handlers look like; another attempt may succeed.
    _CODE.UNKNOWN: LinkClosed,
    _CODE.INTERNAL: LinkClosed,
    _CODE.UNAVAILABLE: LinkClosed,
    _CODE.DATA_LOSS: LinkClosed,
    _CODE.DEADLINE_EXCEEDED: LinkTimeout,
    # The same request fails in the same way everywhere.
    _CODE.INVALID_ARGUMENT: InvalidRequestError,
    _CODE.OUT_OF_RANGE: InvalidRequestError,
    _CODE.UNAUTHENTICATED: UnauthenticatedError,
    _CODE.PERMISSION_DENIED: UnauthenticatedError,
    _CODE.FAILED_PRECONDITION: IncompatibleError,
    _CODE.UNIMPLEMENTED: IncompatibleError,
    _CODE.ALREADY_EXISTS: RemoteProtocolError,
    # The session is gone, the request is not.
    _CODE.ABORTED: SessionLostError,
    _CODE.NOT_FOUND: SessionLostError,
    _CODE.RESOURCE_EXHAUSTED: OverloadedError,
}
"""Every status gRPC knows."""


def error_of_status(code: grpc.StatusCode, message: str) -> PacelineError:
    """Return our error for a status that ended a call."""
    return ERRORS[code](message)
