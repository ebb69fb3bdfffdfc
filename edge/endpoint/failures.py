"""What went wrong, as OpenAI's clients expect to hear it: a status and an `error` object."""

import math
import re
from dataclasses import dataclass
from typing import Any

from paceline.errors import (
    ConnectionGivenUpError,
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    PacelineError,
    SessionLostError,
    TransportError,
)
from paceline.logs import mask_secrets

_FIELD = re.compile(r"(?:^|\s)(?:[a-z]+\.)*(?P<name>[a-z][a-z_]*)(?:\[\w+\])?: ")

UNAVAILABLE_RETRY_S = 5.0
"""What a client is told to wait while the verifier cannot be reached."""


# Not frozen: the interpreter writes the traceback into an exception.
@dataclass(eq=False, kw_only=True)
class ApiError(Exception):
    """An answer that is an error."""

    status: int
    """HTTP status."""

    message: str
    """One sentence: the field, what was got, what was expected."""

    type: str = "invalid_request_error"
    """OpenAI's class of the error."""

    param: str | None = None
    """The field of the request that is to blame."""

    code: str | None = None
    """Machine-readable reason."""

    retry_after_s: float | None = None
    """Earliest time to try again, in seconds from now."""

    def __str__(self) -> str:
        """Return the message."""
        return self.message

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        fields = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": fields}

    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that belong to it."""
        if self.retry_after_s is not None:
            return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {}


def bad_request(param: str, message: str, *, code: str | None = None) -> ApiError:
    """Return the refusal of one field."""
    return ApiError(status=400, message=f"{param}: {message}", param=param, code=code)


def translate(error: PacelineError) -> ApiError:
    """Return the answer for an error of ours; the one place where one becomes the other."""
    message, code = mask_secrets(str(error)), error.reason.lower()
    match error:
        case InvalidRequestError():
            # Our messages name the field first: "top_p: got 2, expected ...".
            field = _FIELD.search(message)
            return ApiError(
                status=400,
                message=message,
                param=field["name"] if field else None,
                code="context_length_exceeded" if "context" in message else code,
            )
        case OverloadedError(retry_after_s=delay_s):
            return ApiError(
                status=429,
                message=message,
                type="rate_limit_error",
                code=code,
                retry_after_s=delay_s,
            )
        case TransportError() | ConnectionGivenUpError() | DrainingError() | SessionLostError():
            return ApiError(
                status=503,
                message=message,
                type="service_unavailable",
                code=code,
                retry_after_s=UNAVAILABLE_RETRY_S,
            )
    # The agent's own set-up is wrong (credentials, tokenizer, a model that fails): no request can mend it.
    return ApiError(status=500, message=message, type="server_error", code=code)
